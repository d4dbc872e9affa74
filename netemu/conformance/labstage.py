"""A stage on a running lab: it can reboot guests, ask the responder, and read its log."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, NamedTuple, Self, TextIO

from netemu.client import labs
from netemu.conformance.inside import Inside
from netemu.conformance.machine_place import MachinePlace
from netemu.conformance.probe import Place, Posted
from netemu.conformance.roles import HTTP, Cast, Guest
from netemu.conformance.stage import CONTROL_PATIENCE, INSTANCE_INFO, Stage, is_answered_as
from netemu.errors import BadInput, NotSo
from netemu.interfaces import BRIDGE, GUEST_WIRE, port_name
from netemu.topology import Lab, Policy
from netemu.wire import runtime_dir
from netemu.wire.profile import Profile

_BOUND: Final = ("netdev", "guard", "bound")
_WITHOUT_GUARD: Final = """add table netdev guard
delete table netdev guard
add table inet guard
delete table inet guard
"""


class Port(NamedTuple):
    """A guest's port, as a rule set sees it."""

    name: str
    mac: str
    address: str


class Access(NamedTuple):
    """A line of the responder's access log: the mark that it knew the caller by, and its answer."""

    caller: str
    guest: str
    status: int
    method: str
    target: str


_ACCESS: Final = re.compile(r"access caller=(\S+) guest=(\S+) status=(\d+) (\S+) (.*)$")


class Ground(NamedTuple):
    """What a stage stands on: how its lab keeps guests apart, and how processes get into guests."""

    profile: Profile = Profile()
    enter: Callable[[str, str], dict[str, int]] = labs.enter


STANDARD: Final = Ground()


@contextmanager
def running(lab: Lab, time_scale: float, ground: Ground = STANDARD) -> Iterator["LabStage"]:
    """A stage on a new lab, which is taken down afterwards."""
    labs.bring_up(lab, time_scale=time_scale, access_log=True, profile=ground.profile, owned=True)
    try:
        with LabStage.on(lab.name, ground) as stage:
            yield stage
    finally:
        labs.take_down(lab.name)


class LabStage(Stage):
    """A running lab with a process in each place: on the first node with two guests, and on another
    node.
    """

    def __init__(self, told: dict[str, Any], cast: Cast, log: TextIO, ground: Ground) -> None:
        """`told` is the lab's status, `log` its log."""
        super().__init__(cast)
        self._ground = ground
        self.lab = str(told["name"])
        self.time_scale = float(told["time_scale"])
        self.access_log = bool(told["access_log"])
        self.ipv6 = "ipv6" in told
        nodes = {node["name"]: node["guests"] for node in told["nodes"]}
        self._near: list[dict[str, Any]] = nodes[cast.node.name]
        played = (cast.attacker.name, cast.victim.name)
        self.dhcp = all("dhcp" in one for one in self._near if one["name"] in played)
        self.by_machine = isinstance(self.attacker, MachinePlace)
        self._leases = any("dhcp" in one for guests in nodes.values() for one in guests)
        # Returns a transaction that replaces the node's guard by itself, bindings included.
        self.rules: Callable[[], str] = self._guard
        self._log = log
        # Another process in the victim: it asks while the attack goes on.
        (self.honest,) = cast.others
        self._answered = True
        self._asking: Posted[tuple[bytes, str, float]] | None = None

    @classmethod
    def on(cls, lab: str, ground: Ground = STANDARD) -> Self:
        """A stage on a running lab, with a process in each place. Raises BadInput and NotSo."""
        told = labs.status(lab)
        cast = _cast(told, ground)
        return cls(told, cast, labs.log_file(lab).open(encoding="utf-8", errors="replace"), ground)

    def __enter__(self) -> Self:
        super().__enter__()
        self.record()
        return self

    def close(self) -> None:
        super().close()
        self._log.close()

    # The honest guest, and the responder's log.

    def ask(self, request: bytes = INSTANCE_INFO, place: Place | None = None) -> tuple[bytes, str]:
        """Send a request as a guest (the attacker if none is named): answer, and how it ended."""
        answer, end, _ = (place or self.attacker).call(
            Inside.get, request, self.md, HTTP, CONTROL_PATIENCE
        )
        return answer, end

    def honest_get(self) -> tuple[bytes, str, float]:
        """The victim's honest request: the answer, how it ended, and the seconds it took."""
        answer, end, taken = self.honest.call(
            Inside.get, INSTANCE_INFO, self.md, HTTP, CONTROL_PATIENCE
        )
        return answer, end, taken

    def begin_control(self) -> None:
        """Have the victim ask who it is; `end_control` says whether it was answered."""
        self._asking = self.honest.post(Inside.get, INSTANCE_INFO, self.md, HTTP, CONTROL_PATIENCE)

    def hear_control(self) -> None:
        """Wait for the answer, before a step that disturbs the victim without being an attack."""
        if self._asking is not None:
            answer, _, _ = self._asking.result()
            self._answered, self._asking = is_answered_as(answer, self.two.name), None

    def end_control(self) -> bool:
        """Whether the victim was answered as itself."""
        self.hear_control()
        return self._answered

    def well(self) -> bool:
        """Whether the attacker holds an address: without one, everything is closed to it."""
        return self.bound(self.one.name) is not None

    def record(self) -> list[Access]:
        """The responders' answers since the last call; empty if the lab keeps no access log."""
        if os.fstat(self._log.fileno()).st_size < self._log.tell():
            self._log.seek(0)  # the log was shortened
        found = (_ACCESS.search(line) for line in self._log.readlines())
        return [
            Access(match[1], match[2], int(match[3]), match[4], match[5])
            for match in found
            if match is not None
        ]

    def known_by_port(self) -> bool:
        """Whether the attacker was last answered by its port's mark; True if no log is kept."""
        if not self.access_log:
            return True
        own = [one.caller for one in self.record() if one.guest == self.one.name]
        return bool(own) and own[-1] == self.one.port.removeprefix("p")

    # The guard.

    def bound_to(self, port: str) -> list[str]:
        """The addresses that the guard has bound to a port; none if there is no guard."""
        code, out, _ = self.node.call(Inside.run, ["nft", "-j", "list", "set", *_BOUND], "")
        if code:
            return []
        (found,) = (one["set"] for one in json.loads(out)["nftables"] if "set" in one)
        parts = [one["concat"] for one in found.get("elem", [])]
        return [address for name, _, address in parts if name == port]

    def ports(self) -> list[Port]:
        """Every port of the node, with its present guest."""
        told = labs.status(self.lab)["nodes"]
        guests = next(node["guests"] for node in told if node["name"] == self.node.name)
        return [Port(port_name(one["port_mark"]), one["mac"], one["address"]) for one in guests]

    def _guard(self) -> str:
        ports = [(port_name(one["port_mark"]), one["port_mark"], one["mac"]) for one in self._near]
        rules = self._ground.profile.rules
        if self.ipv6:
            rules = rules.with_ipv6()
        if self._leases:
            rules = rules.with_dhcp(
                port_name(one["port_mark"]) for one in self._near if "dhcp" in one
            )
        rendered = rules.render(
            bridge_mac=self.bridge,
            ports=ports,
            same_node=self.policy is Policy.SAME_NODE,
            time_scale=self.time_scale,
        )
        bound = ", ".join(
            f'"{port}" . {mac} . {address}'
            for port, _, mac in ports
            for address in self.bound_to(port)
        )
        elements = f"add element netdev guard bound {{ {bound} }}\n" if bound else ""
        return _WITHOUT_GUARD + rendered + "\n" + elements

    # Guests.

    def management_sockets(self) -> list[str]:
        """Every address of a control socket: of this user's labs, and of their processes."""
        outer = [
            runtime_dir.address(labs.log_file(name).parent, runtime_dir.CONTROL)
            for name in labs.running()
        ]
        outer += labs.agents(self.lab).values()
        inner = [
            f"/run/hostagent/{kind}-{number}.sock"
            for kind in ("feed", "command")
            for number in range(8)
        ]
        return [*outer, *inner, "/run/docker.sock"]

    def process_of_attacker(self) -> AbstractContextManager[Place]:
        """A process inside the attacking guest, like any that runs there."""
        return self.process_of(self.one)

    @contextmanager
    def process_of(self, guest: Guest) -> Iterator[Place]:
        """A process inside a guest, like any that runs there."""
        place = Place(guest.name, GUEST_WIRE, wire=False)
        place.start(self._ground.enter(self.lab, guest.name))
        try:
            place.ready()
            yield place
        finally:
            place.close()

    def reboot(self, guest: str) -> None:
        """Reboot a guest, which claims its address again. `await_bound` waits for that."""
        self.hear_control()
        labs.reboot(self.lab, guest, hard=True)
        taken = [one.place for one in self.cast.guests if one.name == guest]
        for place in (*taken, *(one for one in self.cast.others if one.name == guest)):
            place.again(self._ground.enter(self.lab, guest))
        for place in taken:
            self.tap(place)

    def bound(self, guest: str) -> str | None:
        """The address that a guest holds and its node knows; else None."""
        for node in labs.status(self.lab)["nodes"]:
            for one in node["guests"]:
                if one["name"] == guest and one["state"] == "bound":
                    return str(one["address"])
        return None

    def await_bound(self, guest: str) -> bool:
        """Wait until a guest is bound, for as long as claims may take. Returns whether it is."""
        end = time.monotonic() + 20 * self.time_scale + CONTROL_PATIENCE
        while time.monotonic() < end:
            address = self.bound(guest)
            if address is not None:
                self._moved(guest, address)
                return True
            time.sleep(0.02)
        return False

    def _moved(self, guest: str, address: str) -> None:
        for one in self.cast.guests:
            if one.name == guest:
                one.address = address

    def heal(self) -> bool:
        """Repair what an attack has left behind. Returns whether honest guests are served again."""
        if super().heal() and self.well():
            return True
        guests = [one for one in self.cast.guests if one is not self.cast.far]
        for guest in guests:
            if guest is self.two or self.bound(guest.name) is None:
                self.reboot(guest.name)
        bound = [self.await_bound(guest.name) for guest in guests]
        return all(bound) and self.control()


def _cast(told: dict[str, Any], ground: Ground) -> Cast:
    """Start a process in each place of a lab whose status is `told`."""
    lab = told["name"]
    near = next((node for node in told["nodes"] if len(node["guests"]) >= 2), None)
    if near is None:
        raise BadInput(f"{lab}: a node with two guests is needed, an attacker and a victim")
    far = next((node for node in told["nodes"] if node is not near and node["guests"]), None)
    attacker = next((one for one in near["guests"] if "machine" in one), near["guests"][0])
    peers = [one for one in near["guests"] if one is not attacker and "machine" not in one]
    if not peers:
        raise BadInput(f"{lab}: {near['name']}: a guest that is no machine is needed, as a victim")
    victim, *others = peers
    if unbound := [one["name"] for one in (attacker, *peers[:2]) if not one["address"]]:
        raise NotSo(f"{unbound[0]}: holds no address; wait until {lab} is up")

    def man(target: str, interface: str) -> Place:
        return Place(target, interface).start(ground.enter(lab, target))

    def guest(one: dict[str, Any]) -> Guest:
        port = port_name(one["port_mark"])
        if "machine" in one:
            place: Place = MachinePlace(lab, one["name"], port).start(
                ground.enter(lab, near["name"])
            )
        else:
            place = man(one["name"], GUEST_WIRE)
        return Guest(one["name"], one["mac"], one["address"], port, place)

    return Cast(
        policy=Policy(told["policy"]),
        attacker=guest(attacker),
        victim=guest(victim),
        bystander=guest(others[0]) if others else None,
        node=man(near["name"], BRIDGE),
        far=guest(far["guests"][0]) if far else None,
        far_node=man(far["name"], BRIDGE) if far else None,
        others=[man(victim["name"], GUEST_WIRE)],
    )
