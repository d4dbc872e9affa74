"""A lab on which rows are played: a process in each place, taps open everywhere, who is who.

Waiting is bounded by canaries, not by the clock: behind an attack's frames the attacker sends an
honest one, and when the bridge has heard it, the node sends one to every guest. All places sit on
one CPU, whose queue of frames is then the only one: who has heard the canary has heard all before.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from netemu.conformance.places import Place
from netemu.conformance.row import ALLOWED, DROPPED, Frame, Observed, Row
from netemu.errors import BadInput, NotSo
from netemu.kernel import guard
from netemu.kernel.protections import Protection
from netemu.lab import client
from netemu.topology import Policy

METADATA: Final = "169.254.169.254"
BROADCAST: Final = "ff:ff:ff:ff:ff:ff"
NOBODY: Final = "00:00:00:00:00:00"
HTTP: Final = 80

# An address of the node's besides the responder's, where it serves something of its own: from the
# block for documentation (RFC 5737). It stands on the node's loopback while the suite plays.
ELSEWHERE: Final = "198.51.100.77"
SERVICE: Final = 8080

# linux/if_ether.h: all; and IPv4, ARP, IPv6, LLC, LLDP.
_ALL: Final = 3
_BEHIND_THE_BRIDGE: Final = (0x0800, 0x0806, 0x86DD, 0x0004, 0x88CC)

# Frames sent before the taps are emptied: they make some six times as many at all ports.
_BATCH: Final = 400
# The longest that a canary may take; a lab that is well needs a millisecond.
_CANARY_PATIENCE: Final = 2.0
_CANARY_PATIENCE_AGAIN: Final = 0.25
# For the honest control: an answer within one machine takes a millisecond, on a busy one more.
CONTROL_PATIENCE: Final = 2.0

_WITHOUT_GUARD: Final = """add table netdev guard
delete table netdev guard
add table inet guard
delete table inet guard
"""
_BOUND: Final = ("netdev", "guard", "bound")

INSTANCE_INFO: Final = (
    f"GET /metadata/v1/InstanceInfo HTTP/1.1\r\nHost: {METADATA}\r\nConnection: close\r\n\r\n"
).encode()


@dataclass(frozen=True, slots=True)
class Station:
    """A guest as the others know it."""

    name: str
    mac: str
    address: str
    port: str


class Access(NamedTuple):
    """A line of the responder's own record: the mark it knew the caller by, the guest, the answer."""

    caller: str
    guest: str
    status: int
    method: str
    target: str


_ACCESS = re.compile(r"access caller=(\S+) guest=(\S+) status=(\d+) (\S+) (.*)$")


class Stage:
    """A running lab with its places manned; a context manager.

    Of a row: `m1`, `i1` are the attacker's MAC and address, `m2`, `i2` the victim's, `m3`, `i3`
    those of a third guest of the node, `mf`, `if_` those of a guest of another node, `bridge` the
    node's own MAC; `token` and `port` are this row's alone.
    """

    def __init__(self, lab: str) -> None:
        told = client.status(lab)
        self.lab = lab
        self.policy = Policy(told["policy"])
        self.time_scale = float(told["time_scale"])
        self.without = frozenset(told["without"])
        near = next((node for node in told["nodes"] if len(node["guests"]) >= 2), None)
        if near is None:
            raise BadInput(f"{lab}: a node with two guests is needed, an attacker and a victim")
        far = next((node for node in told["nodes"] if node is not near and node["guests"]), None)
        self._near: list[dict[str, Any]] = near["guests"]
        guests = [_station(guest) for guest in near["guests"]]
        self.one, self.two = guests[:2]
        self.three = guests[2] if len(guests) > 2 else guests[1]
        self.far = _station(far["guests"][0]) if far else None
        self.places: list[Place] = []
        self.attacker = self._man(self.one.name)
        self.victim = self._man(self.two.name)
        # Beside the one that takes part in attacks: it asks while they go on.
        self.honest = Place(self.two.name, client.enter(lab, self.two.name))
        self.bystander = self._man(self.three.name) if len(guests) > 2 else None
        self.node = self._man(near["name"])
        self.far_guest = self._man(self.far.name) if self.far else None
        self.far_node = self._man(far["name"]) if far else None
        self._far_bridge = ""
        self.bridge = ""
        self.port_macs: list[str] = []
        self.token = b""
        self.port = 20000
        self._log = client.log_file(lab).open(encoding="utf-8", errors="replace")

    def _man(self, target: str) -> Place:
        place = Place(target, client.enter(self.lab, target))
        self.places.append(place)
        return place

    def __enter__(self) -> Self:
        try:
            for place in (*self.places, self.honest):
                place.ready()
            for place in self.places:
                is_node = place in (self.node, self.far_node)
                place.post("listen", "br0" if is_node else "eth0", _ALL)
            macs = {place.name: place.result() for place in self.places}
            self.bridge = macs[self.node.name]
            if self.far_node is not None:
                self._far_bridge = macs[self.far_node.name]
            # What a bridge keeps to itself (LLDP's group address) comes up at the port, not at br0.
            for protocol in _BEHIND_THE_BRIDGE:
                self.node.call("listen", self.one.port, protocol)
            links = json.loads(self.on_node("ip", "-j", "link", "show", "master", "br0"))
            self.port_macs = [link["address"] for link in links][:3]
            self.node.call("run", ["ip", "address", "add", f"{ELSEWHERE}/32", "dev", "lo"], "")
            for family in (2, 10):
                self.node.call("serve", family, SERVICE)
        except BaseException:
            self.close()
            raise
        self.record()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.node.call("run", ["ip", "address", "del", f"{ELSEWHERE}/32", "dev", "lo"], "")
        except NotSo:
            pass
        self.close()

    def close(self) -> None:
        """End the processes."""
        for place in (*self.places, self.honest):
            place.close()
        self._log.close()

    # Who is who, in the catalogue's letters.

    @property
    def m1(self) -> str:
        """The attacker's MAC."""
        return self.one.mac

    @property
    def i1(self) -> str:
        """The attacker's address."""
        return self.one.address

    @property
    def m2(self) -> str:
        """The victim's MAC."""
        return self.two.mac

    @property
    def i2(self) -> str:
        """The victim's address."""
        return self.two.address

    @property
    def m3(self) -> str:
        """The MAC of a third guest of the node; the victim's if there is none."""
        return self.three.mac

    @property
    def i3(self) -> str:
        """The address of a third guest of the node; the victim's if there is none."""
        return self.three.address

    @property
    def mf(self) -> str:
        """The MAC of a guest of another node, or one that nobody has."""
        return self.far.mac if self.far else "02:00:5e:00:53:01"

    @property
    def if_(self) -> str:
        """The address of a guest of another node, or one that nobody has."""
        return self.far.address if self.far else "169.254.77.77"

    def begin(self, number: int) -> None:
        """A row begins: a token and a port of its own, and nothing heard yet."""
        self.token = b"\xc0\xfe" + os.urandom(8)
        self.port = 20000 + number % 10000
        self.sent: list[bytes] = []
        for place in self.places:
            place.post("drop")
        for place in self.places:
            place.result()

    # Attacking and watching.

    def watch(self, row: Row) -> Observed:
        """Send the row's recipe, and give what anybody saw of it."""
        assert row.recipe is not None
        return self.attack(row.recipe(self), row.trace)

    def attack(
        self,
        recipe: Iterable[Packet | bytes],
        trace: Callable[["Stage", Packet], bool] | None = None,
        *,
        enough: int = 1,
    ) -> Observed:
        """Send frames, each with the token behind it; stop when `enough` were seen.

        Dropped, or allowed: then the evidence says where, and the frames are there.
        """
        rest = iter(recipe)
        seen: list[Frame] = []
        while batch := [bytes(packet) + self.token for packet, _ in zip(rest, range(_BATCH))]:
            self.sent += batch
            self.attacker.call("send", "eth0", batch)
            seen += self.sightings(trace)
            if len(seen) >= enough:
                break
        return Observed(
            ALLOWED if seen else DROPPED,
            [f"seen {_where(frame)}: {summary(frame.data)}" for frame in seen[:5]],
            seen[:20],
        )

    def sightings(self, trace: Callable[["Stage", Packet], bool] | None = None) -> list[Frame]:
        """What was seen of this row since the last look: at everyone's, once a canary has passed.

        The attacker's own frames are no sighting; what comes back to him is, if `trace` says so.
        """
        seen = []
        for place, outgoing, frame in self.heard():
            mine = self.token in frame and not outgoing and place is not self.attacker
            if mine or (trace is not None and self._traced(place, outgoing, frame, trace)):
                seen.append(Frame(place.name, frame))
        return seen

    def _traced(
        self,
        place: Place,
        outgoing: bool,
        frame: bytes,
        trace: Callable[["Stage", Packet], bool],
    ) -> bool:
        if outgoing and place is not self.node:  # what a guest says itself came of nobody's attack
            return False
        return trace(self, Ether(frame))

    def heard(self) -> list[tuple[Place, bool, bytes]]:
        """Everything heard anywhere up to now: (place, whether it went out there, frame)."""
        canary = b"\xca\x9a" + os.urandom(8)
        honest = Ether(dst=self.bridge, src=self.m1) / ARP(
            op=1, hwsrc=self.m1, psrc=self.i1, hwdst=NOBODY, pdst=METADATA
        )
        found = self._until(self.node, self.attacker, "eth0", bytes(honest) + canary, canary)
        behind = b"\xca\x9b" + os.urandom(8)
        guests = [self.attacker, self.victim, *filter(None, [self.bystander])]
        self._say("br0", self.node, self.bridge, behind)
        if self.far_guest is not None and self.far_node is not None:
            self._say("br0", self.far_node, self._far_bridge, behind)
            guests.append(self.far_guest)
        for place in guests:
            place.post("take", behind, _CANARY_PATIENCE)
        told = [place.result() for place in guests]
        # A tap does not hear what it says itself: the nodes have heard all when the guests have.
        nodes = [self.node, *filter(None, [self.far_node])]
        told += [[True, place.call("heard")] for place in nodes]
        for place, (whole, heard) in zip([*guests, *nodes], told, strict=True):
            if not whole:
                raise NotSo(f"{place.name}: the node's own broadcast does not arrive there")
            found += [(place, outgoing, frame) for _, outgoing, frame in heard]
        return [one for one in found if not _is_canary(one[2])]

    def _say(self, interface: str, place: Place, mac: str, canary: bytes) -> None:
        announcement = Ether(dst=BROADCAST, src=mac) / ARP(
            op=1, hwsrc=mac, psrc=METADATA, hwdst=NOBODY, pdst=METADATA
        )
        place.call("send", interface, [bytes(announcement) + canary])

    def _until(
        self, listener: Place, sender: Place, interface: str, frame: bytes, canary: bytes
    ) -> list[tuple[Place, bool, bytes]]:
        """What `listener` heard until the canary came; it is sent again if a queue was full."""
        found: list[tuple[Place, bool, bytes]] = []
        for _ in range(int(_CANARY_PATIENCE / _CANARY_PATIENCE_AGAIN)):
            sender.call("send", interface, [frame])
            whole, heard = listener.call("take", canary, _CANARY_PATIENCE_AGAIN)
            found += [(listener, outgoing, data) for _, outgoing, data in heard]
            if whole:
                return found
        raise NotSo(f"{sender.name}: an honest frame of its own does not reach the node")

    # The honest guest, and the responder's record.

    def ask(self, request: bytes = INSTANCE_INFO, place: Place | None = None) -> tuple[bytes, str]:
        """Send a request as a guest (the attacker if none is named): answer, and how it ended."""
        answer, end, _ = (place or self.attacker).call(
            "get", request, METADATA, HTTP, CONTROL_PATIENCE
        )
        return answer, end

    def honest_get(self) -> tuple[bytes, str, float]:
        """The victim's honest question: the answer, how it ended, and the seconds it took."""
        answer, end, taken = self.honest.call(
            "get", INSTANCE_INFO, METADATA, HTTP, CONTROL_PATIENCE
        )
        return answer, end, taken

    def begin_control(self) -> None:
        """The victim asks who it is; `end_control` gives whether it was told."""
        self.honest.post("get", INSTANCE_INFO, METADATA, HTTP, CONTROL_PATIENCE)

    def end_control(self) -> bool:
        """Whether the victim was answered, as the one it is."""
        answer, _, _ = self.honest.result()
        return is_answered_as(answer, self.two.name)

    def control(self) -> bool:
        """Whether the victim is answered now, as the one it is."""
        self.begin_control()
        return self.end_control()

    def record(self) -> list[Access]:
        """What the responders have answered since the last look; empty if the lab keeps no log."""
        found = (_ACCESS.search(line) for line in self._log.readlines())
        return [
            Access(match[1], match[2], int(match[3]), match[4], match[5])
            for match in found
            if match is not None
        ]

    # The node's tables.

    def on_node(self, *command: str, text: str = "") -> str:
        """What a command prints on the node; raises NotSo if it fails."""
        code, out, err = self.node.call("run", list(command), text)
        if code:
            raise NotSo(f"{self.node.name}: {' '.join(command)}: {err.strip()}")
        return str(out)

    def stations(self) -> dict[str, str]:
        """The bridge's table: where it believes each MAC to be."""
        entries = json.loads(self.on_node("bridge", "-j", "fdb", "show", "br", "br0"))
        return {one["mac"]: one["ifname"] for one in entries if one.get("master") == "br0"}

    def neighbours(self) -> dict[str, str]:
        """The node's neighbours: the MAC it believes each address to have."""
        entries = json.loads(self.on_node("ip", "-j", "-4", "neighbour", "show", "dev", "br0"))
        return {one["dst"]: one.get("lladdr", "") for one in entries}

    def stations_of(self, port: str) -> list[str]:
        """The addresses that the guard holds bound to a port; none where there is no such guard."""
        code, out, _ = self.node.call("run", ["nft", "-j", "list", "set", *_BOUND], "")
        if code:
            return []
        (found,) = (one["set"] for one in json.loads(out)["nftables"] if "set" in one)
        parts = [one["concat"] for one in found.get("elem", [])]
        return [address for name, _, address in parts if name == port]

    def rules(self) -> str:
        """A transaction that replaces the node's guard by itself, bindings and all."""
        ports = [(f"p{one['port_mark']}", one["port_mark"], one["mac"]) for one in self._near]
        rendered = guard.render(
            bridge_mac=self.bridge,
            ports=ports,
            same_node=self.policy is Policy.SAME_NODE,
            time_scale=self.time_scale,
            without=[Protection(one) for one in self.without],
        )
        bound = ", ".join(
            f'"{port}" . {mac} . {address}'
            for port, _, mac in ports
            for address in self.stations_of(port)
        )
        elements = f"add element netdev guard bound {{ {bound} }}\n" if bound else ""
        return _WITHOUT_GUARD + rendered + "\n" + elements

    def management_sockets(self) -> list[str]:
        """Every path by which somebody steers this lab or one of its processes."""
        outside = client.log_file(self.lab).parent
        found = [str(path) for path in outside.parent.glob("*/*.sock")]
        inner = [f"/run/hostagent/feed-{number}.sock" for number in range(8)]
        return [*found, *inner, "/run/hostagent/command.sock", "/run/docker.sock"]

    @contextmanager
    def process_of_attacker(self) -> Iterator[Place]:
        """A process of the attacking guest's, like any that runs there."""
        place = Place(self.one.name, client.enter(self.lab, self.one.name), wire=False)
        try:
            place.ready()
            yield place
        finally:
            place.close()

    def received(self) -> int:
        """Frames that the node's bridge has taken up, ever."""
        for line in self.node.call("read", "/proc/net/dev").splitlines():
            name, _, numbers = line.partition(":")
            if name.strip() == "br0":
                return int(numbers.split()[1])
        raise NotSo(f"{self.node.name}: there is no br0")

    def connections(self, address: str) -> int:
        """The node's TCP connections with this peer that are established."""
        octets = "".join(f"{int(one):02X}" for one in reversed(address.split(".")))
        count = 0
        for line in self.node.call("read", "/proc/net/tcp").splitlines()[1:]:
            _, _, peer, state, *_ = line.split()
            count += peer.startswith(octets) and state == "01"
        return count

    # Guests.

    def reboot(self, guest: str) -> None:
        """Reboot a guest: it claims its address anew. `await_bound` waits for it."""
        client.reboot(self.lab, guest)

    def bound(self, guest: str) -> str | None:
        """The address that a guest holds, its node knowing of it; else None."""
        for node in client.status(self.lab)["nodes"]:
            for one in node["guests"]:
                if one["name"] == guest and one["state"] == "bound":
                    return str(one["address"])
        return None

    def await_bound(self, guest: str, patience: float = 0.0) -> bool:
        """Wait until a guest is bound, for no longer than claims take."""
        end = time.monotonic() + (patience or 20 * self.time_scale + 1)
        while time.monotonic() < end:
            address = self.bound(guest)
            if address is not None:
                self._moved(guest, address)
                return True
            time.sleep(0.02)
        return False

    def _moved(self, guest: str, address: str) -> None:
        for name in ("one", "two", "three", "far"):
            station: Station | None = getattr(self, name)
            if station is not None and station.name == guest:
                setattr(self, name, Station(guest, station.mac, address, station.port))

    def heal(self) -> bool:
        """Put right what an attack has left behind; whether the honest are served again."""
        for place in (self.attacker, self.victim, self.bystander, self.far_guest):
            if place is not None:
                place.call("run", ["ip", "neighbour", "flush", "dev", "eth0"], "")
        self.node.call("run", ["ip", "neighbour", "flush", "dev", "br0", "nud", "stale"], "")
        if self.control() and self.bound(self.one.name):
            return True
        for station in (self.one, self.two, self.three):
            if self.bound(station.name) is None or station is self.two:
                self.reboot(station.name)
        bound = [self.await_bound(one.name) for one in (self.one, self.two, self.three)]
        return all(bound) and self.control()


def is_answered_as(answer: bytes, guest: str) -> bool:
    """Whether it is a responder's answer to this guest."""
    return answer.startswith(b"HTTP/1.1 200 ") and f'"_{guest}"'.encode() in answer


def status_of(answer: bytes) -> int:
    """The status of an HTTP answer; 0 if there is none."""
    match = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
    return int(match[1]) if match else 0


def summary(frame: bytes) -> str:
    """One line on what a frame is."""
    return str(Ether(frame).summary())[:160]


def _station(guest: dict[str, Any]) -> Station:
    if not guest["address"]:
        raise NotSo(f"{guest['name']} holds no address; wait until the lab is up")
    return Station(guest["name"], guest["mac"], guest["address"], f"p{guest['port_mark']}")


def _where(frame: Frame) -> str:
    return f"at {frame.place}"


def _is_canary(frame: bytes) -> bool:
    return frame[42:44] in (b"\xca\x9a", b"\xca\x9b") and len(frame) == 52


Recipe = Sequence[Packet | bytes]
