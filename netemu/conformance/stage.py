"""Where rows are played: a process in each place, with taps open everywhere.

Waiting is bounded by canaries, not by the clock. Behind an attack's frames the attacker sends an
honest one; when the bridge has heard that, the node sends one to every guest. All places run on one
CPU, which has one queue of frames: a place that has heard the canary has heard everything before
it.
"""

import json
import os
import re
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final, Protocol, Self

from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from netemu.conformance.inside import Inside
from netemu.conformance.observed import ALLOWED, DROPPED, Frame, Observed
from netemu.conformance.probe import Place
from netemu.conformance.roles import BROADCAST, ELSEWHERE, METADATA, NOBODY, SERVICE, Cast, Letters
from netemu.conformance.signing import ATTACKERS, NODES, is_canary, is_signed, sign
from netemu.errors import NotSo
from netemu.topology import Policy

# linux/if_ether.h: all; and IPv4, ARP, IPv6, LLC, LLDP.
_ALL: Final = 3
_BEHIND_THE_BRIDGE: Final = (0x0800, 0x0806, 0x86DD, 0x0004, 0x88CC)

# Frames sent before the taps are emptied: they make some six times as many at all ports.
_BATCH: Final = 400
# Frames of a row that are kept for a capture.
_CAPTURED: Final = 500
# How long a canary may take, and after how long it is sent again because a tap was full. Normally
# it takes a millisecond.
_CANARY_PATIENCE: Final = 4.0
_CANARY_AGAIN: Final = 0.25
_TRIES: Final = int(_CANARY_PATIENCE / _CANARY_AGAIN)
# Two commands of ip(8) take some milliseconds, on a busy machine a second.
_GIVING_BACK: Final = 10.0
# For the honest control. An answer takes a millisecond, more on a busy machine; a lost SYN is sent
# again after one second, and after three.
CONTROL_PATIENCE: Final = 4.0

INSTANCE_INFO: Final = (
    f"GET /metadata/v1/InstanceInfo HTTP/1.1\r\nHost: {METADATA}\r\nConnection: close\r\n\r\n"
).encode()


Recipe = Callable[["Stage"], Iterable[Packet | bytes]]
"""Returns the attacker's frames."""

Trace = Callable[["Stage", Packet], bool]
"""Whether a frame that was seen somewhere results from the attack."""


class Attack(Protocol):
    """The part of a row that the stage plays."""

    @property
    def recipe(self) -> Recipe | None: ...
    @property
    def trace(self) -> Trace | None: ...
    def expected(self, policy: Policy) -> str: ...


class Stage(Letters):
    """The places with their processes; a context manager. `token` and `port` belong to one row."""

    def __init__(self, cast: Cast) -> None:
        super().__init__(cast)
        self.policy = cast.policy
        self.attacker, self.victim, self.node = cast.attacker.place, cast.victim.place, cast.node
        self.port_macs: list[str] = []
        self.token = b""
        self.port = 20000
        self.row: Attack
        self.sent: list[bytes] = []
        self.said: list[bytes] = []
        self.capture: list[Frame] = []
        self._macs: dict[Place, str] = {}

    @property
    def _places(self) -> list[Place]:
        return [*(guest.place for guest in self.cast.guests), *self.cast.nodes]

    def __enter__(self) -> Self:
        try:
            for place in (*self._places, *self.cast.others):
                place.ready()
            self._macs = {place: self.tap(place) for place in self._places}
            self.bridge = self._macs[self.node]
            self._prepare_node()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes. They return what they have borrowed also when this process dies."""
        # It is not asked: an answer may have been lost with a call that was interrupted.
        self.node.close(_GIVING_BACK)
        for place in (*self._places, *self.cast.others):
            place.close()

    def tap(self, place: Place) -> str:
        """Have a place listen on its interface. Returns the interface's MAC."""
        # A guest hears everything on its wire. A bridge in promiscuous mode would also accept
        # frames for others, which it does not do otherwise.
        promiscuous = place not in self.cast.nodes
        return str(place.call(Inside.listen, place.interface, _ALL, promiscuous))

    def _prepare_node(self) -> None:
        # Frames that a bridge does not forward (LLDP's group address) are seen at the port only.
        if self.one.port:
            for protocol in _BEHIND_THE_BRIDGE:
                self.node.call(Inside.listen, self.one.port, protocol, False)
        links = json.loads(
            self.on_node("ip", "-j", "link", "show", "master", self.node.interface) or "[]"
        )
        self.port_macs = [link["address"] for link in links][:3]
        self.node.call(Inside.borrow, f"{ELSEWHERE}/32", "lo")
        for family in (2, 10):
            self.node.call(Inside.serve, family, SERVICE)

    def begin(self, row: Attack, number: int) -> None:
        """Begin a row: with a new token and port, and empty taps."""
        self.row = row
        self.token = b"\xc0\xfe" + os.urandom(8)
        self.port = 20000 + number % 10000
        self.sent = []
        self.said = []
        self.capture = []
        for forgetting in [place.post(Inside.drop) for place in self._places]:
            forgetting.result()

    # Attacking and watching.

    def watch(self) -> Observed:
        """Send the row's recipe. Returns what anybody saw of it."""
        assert self.row.recipe is not None
        return self.attack(self.row.recipe(self), self.row.trace)

    def attack(
        self,
        recipe: Iterable[Packet | bytes],
        trace: Trace | None = None,
        *,
        enough: int = 1,
    ) -> Observed:
        """Send frames, each with the token behind it; stop when `enough` were seen.

        The verdict is dropped, or allowed with the places and the frames as evidence.
        """
        rest = iter(recipe)
        seen: list[Frame] = []
        while batch := [self.signed(packet) for packet in islice(rest, _BATCH)]:
            self.sent += batch
            self.attacker.send(batch)
            seen += self.sightings(trace)
            if len(seen) >= enough:
                break
        return Observed(
            ALLOWED if seen else DROPPED,
            [f"seen at {frame.place}: {summary(frame.data)}" for frame in seen[:5]],
            seen[:20],
        )

    def signed(self, packet: Packet | bytes) -> bytes:
        """The frame, marked so that it is recognised as this row's."""
        return sign(bytes(packet), self.token)

    def sightings(self, trace: Trace | None = None) -> list[Frame]:
        """What was seen of this row in any place since the last call, once a canary has passed.

        The attacker's own frames do not count; what returns to the attacker does, if `trace` says
        so.
        """
        seen = []
        for place, outgoing, frame in self.heard():
            mine = not outgoing and place is not self.attacker and is_signed(frame, self.token)
            if mine or (trace is not None and self._traced(place, outgoing, frame, trace)):
                seen.append(Frame(place.name, frame))
        return seen

    def _traced(
        self,
        place: Place,
        outgoing: bool,
        frame: bytes,
        trace: Trace,
    ) -> bool:
        if outgoing and place is not self.node:  # its own frames do not count
            return False
        return trace(self, Ether(frame))

    def heard(self) -> list[tuple[Place, bool, bytes]]:
        """Everything heard anywhere up to now: place, whether it was outgoing there, frame."""
        found = self._behind_attacker() + self._behind_nodes()
        found = [one for one in found if not is_canary(one[2])]
        room = _CAPTURED - len(self.capture)
        self.capture += [Frame(place.name, frame) for place, _, frame in found[:room]]
        return found

    def _behind_attacker(self) -> list[tuple[Place, bool, bytes]]:
        """What the node heard until an honest frame of the attacker arrived."""
        canary = ATTACKERS + os.urandom(8)
        asking = Ether(dst=self.bridge, src=self.m1) / ARP(
            op=1, hwsrc=self.m1, psrc=self.i1, hwdst=NOBODY, pdst=self.md
        )
        found: list[tuple[Place, bool, bytes]] = []
        for _ in range(_TRIES):
            self.attacker.send([bytes(asking) + canary])
            whole, heard = self.node.call(Inside.take, canary, _CANARY_AGAIN)
            found += [(self.node, outgoing, data) for _, outgoing, data in heard]
            if whole:
                return found
        raise NotSo(f"{self.one.name}: an honest frame of its own does not reach the node")

    def _behind_nodes(self) -> list[tuple[Place, bool, bytes]]:
        """What all places heard until a broadcast of their nodes arrived."""
        canary = NODES + os.urandom(8)
        waiting = [guest.place for guest in self.cast.guests]
        found: list[tuple[Place, bool, bytes]] = []
        for _ in range(_TRIES):
            for node in self.cast.nodes:
                self._announce(node, canary)
            taking = [(place, place.post(Inside.take, canary, _CANARY_AGAIN)) for place in waiting]
            told = [(place, *posted.result()) for place, posted in taking]
            for place, _, heard in told:
                found += [(place, outgoing, frame) for _, outgoing, frame in heard]
            waiting = [place for place, whole, _ in told if not whole]
            if not waiting:
                break
        else:
            raise NotSo(f"{waiting[0].name}: the node's own broadcast does not arrive there")
        # A tap does not hear its own frames: the nodes have heard everything once the guests have.
        for node in self.cast.nodes:
            found += [(node, outgoing, frame) for _, outgoing, frame in node.call(Inside.heard)]
        return found

    def _announce(self, node: Place, canary: bytes) -> None:
        mac = self._macs[node]
        announcement = Ether(dst=BROADCAST, src=mac) / ARP(
            op=1, hwsrc=mac, psrc=self.md, hwdst=NOBODY, pdst=self.md
        )
        node.send([bytes(announcement) + canary])

    # The honest guest. A stage without a responder has none to ask.

    def begin_control(self) -> None:
        """Let the honest guest ask while an attack goes on."""

    def end_control(self) -> bool:
        """Whether the honest guest was answered."""
        return True

    def control(self) -> bool:
        """Whether the honest guest is answered now."""
        self.begin_control()
        return self.end_control()

    def well(self) -> bool:
        """Whether the attacker may send at all: otherwise everything seems closed to it."""
        return True

    def heal(self) -> bool:
        """Repair what an attack has left. Returns whether the honest guests are served again."""
        for guest in self.cast.guests:
            guest.place.run("ip", "neighbour", "flush", "dev", guest.place.interface)
        self.node.run("ip", "neighbour", "flush", "dev", self.node.interface, "nud", "stale")
        return self.control()

    # The node's tables.

    def on_node(self, *command: str, text: str = "") -> str:
        """Run a command on the node. Returns its output; raises NotSo if it fails."""
        code, out, err = self.node.call(Inside.run, list(command), text)
        if code:
            raise NotSo(f"{self.node.name}: {' '.join(command)}: {err.strip()}")
        return str(out)

    def stations(self) -> dict[str, str]:
        """The bridge's table: the port behind which it has each MAC."""
        bridge = self.node.interface
        entries = json.loads(self.on_node("bridge", "-j", "fdb", "show", "br", bridge) or "[]")
        return {one["mac"]: one["ifname"] for one in entries if one.get("master") == bridge}

    def neighbours(self) -> dict[str, str]:
        """The node's neighbour table: the MAC of each address."""
        told = self.on_node("ip", "-j", "-4", "neighbour", "show", "dev", self.node.interface)
        return {one["dst"]: one.get("lladdr", "") for one in json.loads(told or "[]")}

    def addresses(self) -> list[str]:
        """The addresses of the node's bridge."""
        told = self.on_node("ip", "-j", "-4", "address", "show", "dev", self.node.interface)
        return [one["local"] for link in json.loads(told) for one in link.get("addr_info", [])]

    def received(self) -> int:
        """How many frames the node's bridge has received so far."""
        for line in self.node.call(Inside.read, "/proc/net/dev").splitlines():
            name, _, numbers = line.partition(":")
            if name.strip() == self.node.interface:
                return int(numbers.split()[1])
        raise NotSo(f"{self.node.name}: there is no {self.node.interface}")

    def connections(self, address: str) -> int:
        """The node's TCP connections with this peer that are established."""
        octets = "".join(f"{int(one):02X}" for one in reversed(address.split(".")))
        count = 0
        for line in self.node.call(Inside.read, "/proc/net/tcp").splitlines()[1:]:
            _, _, peer, state, *_ = line.split()
            count += peer.startswith(octets) and state == "01"
        return count


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
