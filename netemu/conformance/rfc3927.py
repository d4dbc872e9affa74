"""RFC 3927 as frames on the wire: each requirement against whoever claims in a guest.

A trial plays another host of the link: it hears the port of the guest before the guard does, and
puts frames on its wire, as another guest of the node under same-node, else as the node itself, as
the guard lets it. It judges by what the guest sends and when; nothing is asked of the claimant but
to begin anew.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from netemu.conformance.claimants import Claimant, Foreign, ForeignClaimant, OurClaimant
from netemu.conformance.places import Place
from netemu.conformance.row import Observed, Result, Row
from netemu.conformance.stage import HTTP, INSTANCE_INFO, METADATA, is_answered_as
from netemu.errors import NotSo
from netemu.lab import client
from netemu.linklocal import addresses, arp
from netemu.linklocal.arp import Arp
from netemu.linklocal.timing import Timing
from netemu.topology import Policy

PASS, FAIL = "pass", "fail"
# A program may take this long to start before it begins to wait; a machine that is busy delays a
# frame by so much. Neither depends on the time scale.
_START: Final = 2.0
_LATE: Final = 0.3
_EARLY: Final = 0.01
_ROUTER, _ROUTABLE, _FAR_AWAY = "198.51.100.1", "198.51.100.7", "203.0.113.9"
_ROUTER_MAC: Final = "02:5e:10:00:00:99"
_NEIGHBOURS: Final = ("169.254.88.88", "169.254.88.89")


def _row(row_id: str, section: str, title: str) -> Row:
    return Row(id=row_id, title=title, reference=section, strict=PASS, same_node=PASS)


ROWS: Final = tuple(
    ("RFC 3927", row)
    for row in (
        _row("R01", "2.2.1", "A probe is a broadcast request from 0.0.0.0 with its own MAC"),
        _row("R02", "2.1", "The candidate is in 169.254.1.0 - 169.254.254.255"),
        _row("R03", "2.1", "The same MAC draws the same address first (SHOULD)"),
        _row("R04", "2.1", "An address used before is the first candidate (SHOULD)"),
        _row("R05", "2.2", "Nothing is sent from the address before it is claimed"),
        _row("R06", "2.2.1", "PROBE_NUM probes, PROBE_MIN to PROBE_MAX apart, then ANNOUNCE_WAIT"),
        _row("R07", "2.2.1", "While probing: a reply from the candidate makes it choose anew"),
        _row("R08", "2.2.1", "While probing: a request from the candidate makes it choose anew"),
        _row("R09", "2.2.1", "While probing: another's probe for it makes it choose anew"),
        _row("R10", "2.2.1", "While probing: an ordinary request for it is no conflict"),
        _row("R11", "2.2.1", "After MAX_CONFLICTS: at most one new address a RATE_LIMIT_INTERVAL"),
        _row("R12", "2.4", "ANNOUNCE_NUM announcements, ANNOUNCE_INTERVAL apart"),
        _row("R13", "2.5", "A conflict is not ignored: it defends, or it moves"),
        _row("R14", "2.5", "A second one within DEFEND_INTERVAL makes it cease"),
        _row("R15", "2.5, 1.5", "One after DEFEND_INTERVAL is not ignored either"),
        _row("R16", "2.5", "Connections are reset before it moves (SHOULD)"),
        _row("R17", "2.5", "ARP with a link-local sender is sent by broadcast, replies too"),
        _row("R18", "2.6.2", "A link-local destination is asked for and sent to directly"),
        _row("R19", "2.6.2", "A link-local source is never sent through a router"),
        _row("R20", "1.9", "A routable address, where there is one, is used for new flows"),
        _row("R21", "2.8", "The prefix is 16 bits long"),
        _row("R22", "2.2, 4", "Nothing is sent periodically"),
        _row("R23", "2.7", "Its responder answers it: the node has its address for its port"),
        _row("R24", "2.7", "The node answers ARP for no address that nobody has"),
        _row("R25", "RFC 5227 2.4 c", "The node defends 169.254.169.254, and keeps it"),
    )
)


@dataclass(frozen=True, slots=True)
class Heard:
    """A frame of the guest's: when, whole, and as ARP if it is any."""

    at: float
    frame: bytes
    arp: Arp | None


class Trial:
    """One claimant in one guest; `told` has what came of each row so far."""

    def __init__(
        self,
        node: Place,
        wire: Place,
        guest: dict[str, Any],
        claimant: Claimant,
        timing: Timing,
        other: str,
    ) -> None:
        self.told: dict[str, Observed] = {}
        self._node = node
        self._wire = wire
        self._name = guest["name"]
        self._mac = bytes.fromhex(guest["mac"].replace(":", ""))
        self._port = f"p{guest['port_mark']}"
        self._other = bytes.fromhex(other.replace(":", ""))
        self._claimant = claimant
        self._timing = timing
        self._log: list[Heard] = []
        self._all: list[Heard] = []
        node.call("watch_port", self._port)

    # The wire.

    def _listen(self) -> list[Heard]:
        """Everything since the last `_fresh`."""
        for at, frame in self._node.call("at_port", self._port):
            heard = Heard(at, frame, arp.parse(frame))
            self._log.append(heard)
            self._all.append(heard)
        return self._log

    def _fresh(self) -> float:
        """Forget what was heard; the time by the wire's clock."""
        self._listen()
        self._log = []
        return time.time()

    def _until(self, patience: float, wanted: Callable[[Heard], bool]) -> Heard | None:
        """The first frame heard since `_fresh` that is wanted."""
        end = time.monotonic() + patience
        while True:
            found = next((one for one in self._listen() if wanted(one)), None)
            if found is not None or time.monotonic() > end:
                return found
            time.sleep(0.01)

    def _say(self, *frames: bytes) -> None:
        self._node.call("inject", self._port, list(frames))

    def _claims(self, address: int) -> bytes:
        """Another host's announcement of the address."""
        return arp.announcement(self._other, address)

    def _asking(self, address: int) -> bytes:
        """An ordinary question for the address, by a host that has another."""
        asker = addresses.METADATA
        return _frame_of(
            Arp(arp.REQUEST, self._other, asker, bytes(6), address, self._other, arp.BROADCAST)
        )

    def _settle(self, row: str, good: bool, *evidence: str) -> None:
        self.told[row] = Observed(PASS if good else FAIL, list(evidence))

    # What a claim takes.

    @property
    def _longest_claim(self) -> float:
        """Seconds until a claim that meets no conflict is announced."""
        timing = self._timing
        probing = timing.probe_wait + (timing.probe_num - 1) * timing.probe_max
        return _START + probing + timing.announce_wait + _LATE

    def _restart(self) -> float:
        self._claimant.restart()
        return self._fresh()

    def _first_probe(self) -> Arp:
        heard = self._until(_START + self._timing.probe_wait + _LATE, _is_probe)
        if heard is None or heard.arp is None:
            raise NotSo(f"{self._claimant.name}: does not probe")
        return heard.arp

    def _claimed(self) -> int:
        """Begin anew, and wait until an address is announced: that address."""
        self._restart()
        return self._await_claim()

    def _await_claim(self) -> int:
        heard = self._until(self._longest_claim, _is_announcement)
        if heard is None or heard.arp is None:
            raise NotSo(f"{self._claimant.name}: announces nothing")
        # Its second announcement, so that what follows is not taken for it.
        both = self._timing.announce_interval + _LATE
        self._until(both, lambda one: _is_announcement(one) and one.at > heard.at)
        return heard.arp.sender_ip

    # Trials, in the order in which they are made.

    def run(self) -> None:
        """Make all trials; what one of them cannot do fails its own rows only."""
        for trial in (
            self._a_clean_claim,
            self._answering,
            self._remembering,
            self._drawing,
            self._conflicts_while_probing,
            self._no_conflict,
            self._conflicts_when_bound,
            self._late_conflict,
            self._routes,
            self._the_node,
            self._many_conflicts,
        ):
            try:
                trial()
            except NotSo as error:
                for row in _ROWS_OF[trial.__name__]:
                    self.told.setdefault(row, Observed(FAIL, [str(error)]))
        self._by_broadcast()

    def _a_clean_claim(self) -> None:
        timing = self._timing
        address = self._claimed()
        log = list(self._listen())
        probes = [one for one in log if _is_probe(one)]
        announced = [one for one in log if _is_announcement(one)]
        fields = [one.arp for one in probes if one.arp is not None]
        well_formed = all(
            one.ether_destination == arp.BROADCAST
            and one.sender_mac == one.ether_source == self._mac
            and one.target_mac in (arp.UNKNOWN_MAC, arp.BROADCAST)
            for one in fields
        )
        self._settle("R01", well_formed and bool(fields), f"{len(fields)} probes")
        text = addresses.to_text(address)
        self._settle("R02", addresses.claimable(address), text)
        early = [one for one in log if one.at < announced[0].at and _speaks_from(one, address)]
        self._settle("R05", not early, f"{len(early)} frames before the announcement")
        gaps = [after.at - one.at for one, after in pairwise(probes)]
        wait = announced[0].at - probes[-1].at
        well_timed = (
            len(probes) == timing.probe_num
            and all(_within(gap, timing.probe_min, timing.probe_max) for gap in gaps)
            and _within(wait, timing.announce_wait, timing.announce_wait)
        )
        spaced = ", ".join(f"{gap:.2f}" for gap in [*gaps, wait])
        self._settle("R06", well_timed, f"{len(probes)} probes; {spaced} s")
        between = [after.at - one.at for one, after in pairwise(announced)]
        interval = timing.announce_interval
        right = len(announced) == timing.announce_num and all(
            _within(gap, interval, interval) for gap in between
        )
        self._settle("R12", right, f"{len(announced)} announcements, {between} s apart")
        length = self._prefix_length(text)
        self._settle("R21", length == 16, f"{text}/{length}")
        answer, end, _ = self._wire.call("get", INSTANCE_INFO, METADATA, HTTP, 2.0)
        answered = is_answered_as(answer, self._name)
        self._settle("R23", answered, end if answered else f"{end}: {answer[:60]!r}")
        self._fresh()
        # As long as five defence intervals' half: nothing here is periodic but what is wrong.
        quiet = max(0.5, timing.defend_interval / 2)
        time.sleep(quiet)
        unasked = [one for one in self._listen() if one.arp and one.arp.operation == arp.REQUEST]
        unasked = [one for one in unasked if not _asks_for(one, addresses.METADATA)]
        self._settle("R22", not unasked, f"{len(unasked)} requests within {quiet:.1f} s")

    def _answering(self) -> None:
        """Have the guest answer ARP; whether by broadcast is judged in the end, over all."""
        address = self._bound()
        self._fresh()
        self._say(self._asking(address))
        if self._until(1.0, lambda one: one.arp is not None and one.arp.operation == arp.REPLY):
            return
        raise NotSo("it does not answer ARP for its address")

    def _remembering(self) -> None:
        before = self._bound()
        self._restart()
        first = self._first_probe().target_ip
        self._settle(
            "R04", first == before, f"{addresses.to_text(before)}, {addresses.to_text(first)}"
        )
        self._await_claim()

    def _drawing(self) -> None:
        if not self._claimant.forget():
            drawn = addresses.candidate(self._mac, 0)
            other = addresses.candidate(self._mac[:-1] + bytes((self._mac[-1] ^ 1,)), 0)
            self._settle("R03", drawn != other, f"drawn from the MAC: {addresses.to_text(drawn)}")
            return
        firsts = []
        for _ in range(2):
            self._claimant.forget()
            self._restart()
            firsts.append(self._first_probe().target_ip)
        self._settle(
            "R03", firsts[0] == firsts[1], " and ".join(addresses.to_text(one) for one in firsts)
        )

    def _conflicts_while_probing(self) -> None:
        def reply(address: int) -> bytes:
            return arp.reply(self._other, address, self._mac, 0, self._mac)

        def request(address: int) -> bytes:
            asked = addresses.METADATA
            return _frame_of(
                Arp(arp.REQUEST, self._other, address, bytes(6), asked, self._other, arp.BROADCAST)
            )

        def probe(address: int) -> bytes:
            return arp.probe(self._other, address)

        for row, conflict in (("R07", reply), ("R08", request), ("R09", probe)):
            self._restart()
            candidate = self._first_probe().target_ip
            self._fresh()
            try:
                self._say(conflict(candidate))
            except NotSo:
                continue  # the guard keeps others' probes from it: the node answers in their stead
            patience = self._timing.probe_wait + self._timing.probe_max + _LATE
            after = self._until(patience, _is_probe)
            following = None if after is None or after.arp is None else after.arp.target_ip
            anew = following is not None and following != candidate
            shown = "nothing" if following is None else addresses.to_text(following)
            self._settle(row, anew, f"after {addresses.to_text(candidate)}: {shown}")

    def _no_conflict(self) -> None:
        self._restart()
        candidate = self._first_probe().target_ip
        self._say(self._asking(candidate))
        claimed = self._await_claim()
        shown = f"{addresses.to_text(candidate)}, {addresses.to_text(claimed)}"
        self._settle("R10", claimed == candidate, shown)

    def _conflicts_when_bound(self) -> None:
        address = self._bound()
        self._wire.call("dial", "kept", METADATA, HTTP, {})
        self._fresh()
        self._say(self._claims(address))
        reaction = self._until(1.0, _reacts(address))
        if reaction is None:
            self._settle("R13", False, "it is ignored")
            self._settle("R14", False, "the first was ignored")
            return
        defended = _is_announcement(reaction)
        self._settle("R13", True, "defends" if defended else "moves")
        if not defended:
            self._settle("R14", True, "moved at the first")
            self._settle("R16", *self._was_reset())
            self._await_claim()
            return
        self._fresh()
        self._say(self._claims(address))
        moved = self._until(self._longest_claim, lambda one: _probes_for_other(one, address))
        kept = [one for one in self._log if _is_announcement(one) and _speaks_from(one, address)]
        self._settle(
            "R14", moved is not None and not kept, "moves" if moved else "goes on as before"
        )
        self._settle("R16", *self._was_reset())
        self._wire.call("hang_up", "kept")
        if moved is not None:
            self._await_claim()

    def _was_reset(self) -> tuple[bool, str]:
        reset = [one for one in self._log if _is_reset(one)]
        return bool(reset), f"{len(reset)} RSTs to the responder"

    def _late_conflict(self) -> None:
        address = self._claimed()
        for number in range(2):
            self._fresh()
            self._say(self._claims(address))
            reaction = self._until(1.0, _reacts(address))
            if reaction is None:
                self._settle("R15", False, f"conflict {number + 1} is ignored")
                return
            if not _is_announcement(reaction):
                self._settle("R15", True, "moves")
                self._await_claim()
                return
            if number == 0:
                time.sleep(self._timing.defend_interval * 1.1)
        self._settle("R15", True, "defends each")

    def _routes(self) -> None:
        """With a routable address and a default route as a bait."""
        address = addresses.to_text(self._bound())
        for command in (
            ("address", "add", f"{_ROUTABLE}/24", "dev", "eth0"),
            ("neighbour", "replace", _ROUTER, "lladdr", _ROUTER_MAC, "dev", "eth0"),
            ("route", "replace", "default", "via", _ROUTER, "dev", "eth0"),
        ):
            self._wire.run("ip", *command)
        time.sleep(0.2)  # for whoever follows the routes
        try:
            router = bytes.fromhex(_ROUTER_MAC.replace(":", ""))
            asked, through = self._send_from(address, _NEIGHBOURS[0], router)
            asked_too, through_too = self._send_from(_ROUTABLE, _NEIGHBOURS[1], router)
            asked, through = asked and asked_too, through or through_too
            said = f"asked for: {asked}; through the router: {through}"
            self._settle("R18", asked and not through, said)
            asked, through = self._send_from(address, _FAR_AWAY, router)
            self._settle(
                "R19", asked and not through, f"asked for: {asked}; through the router: {through}"
            )
            self._fresh()
            self._wire.call("datagram", "", _FAR_AWAY)
            sent = self._until(0.5, lambda one: one.frame[12:14] == b"\x08\x00")
            source = "nothing" if sent is None else _text(sent.frame[26:30])
            self._settle("R20", source == _ROUTABLE, f"the source is {source}")
        finally:
            for command in (
                ("route", "del", "default", "via", _ROUTER),
                ("address", "del", f"{_ROUTABLE}/24", "dev", "eth0"),
                ("neighbour", "del", _ROUTER, "dev", "eth0"),
            ):
                self._wire.run("ip", *command)

    def _send_from(self, source: str, to: str, router: bytes) -> tuple[bool, bool]:
        """Send a datagram: whether ARP asked for `to` itself, and whether the router got it."""
        self._fresh()
        self._wire.call("datagram", source, to)
        wanted = addresses.from_text(to)
        asked = self._until(0.5, lambda one: _asks_for(one, wanted)) is not None
        through = any(one.frame[:6] == router for one in self._listen())
        return asked, through

    def _many_conflicts(self) -> None:
        timing = self._timing
        self._restart()
        tried: list[int] = []
        last = 0.0
        # A conflict takes a host PROBE_WAIT at most to its next probe.
        end = time.monotonic() + _START + (timing.max_conflicts + 3) * (timing.probe_wait + 0.2)
        while time.monotonic() < end and len(tried) <= timing.max_conflicts + 2:
            heard = self._until(0.02, _probe_after(last))
            if heard is None or heard.arp is None:
                continue
            last = heard.at
            if heard.arp.target_ip not in tried:
                tried.append(heard.arp.target_ip)
            self._say(self._claims(heard.arp.target_ip))
        self._fresh()
        window = timing.rate_limit_interval / 4
        end = time.monotonic() + window
        new: set[int] = set()
        while time.monotonic() < end:
            heard = self._until(0.05, _probe_after(last))
            if heard is not None and heard.arp is not None:
                last = heard.at
                new.add(heard.arp.target_ip)
                self._say(self._claims(heard.arp.target_ip))
        self._settle(
            "R11", len(new - set(tried)) <= 1,
            f"{len(tried)} tried at first, {len(new - set(tried))} more within {window:.1f} s",
        )  # fmt: skip

    def _the_node(self) -> None:
        """The node's own part: silent for what nobody has, stubborn for what it has itself."""
        if not isinstance(self._claimant, OurClaimant):
            return
        own = self._bound()
        self._wire.call("listen", "eth0", 3, True)
        taken = set(self._bindings())
        some = (addresses.FIRST + 977 * number for number in range(1, 51))
        free = [one for one in some if one not in taken]
        self._wire.send(
            [
                _frame_of(Arp(arp.REQUEST, self._mac, own, bytes(6), one, self._mac, arp.BROADCAST))
                for one in free
            ]
        )
        answers = [one for one in self._said_to_guest() if one.sender_ip in free]
        said = f"{len(answers)} of {len(free)} free addresses answered for"
        self._settle("R24", not answers, said)
        claim = arp.announcement(self._mac, addresses.METADATA)
        self._wire.send([claim])
        defended = [one for one in self._said_to_guest() if one.sender_ip == addresses.METADATA]
        self._wire.send([claim])
        self._said_to_guest()
        _, out, _ = self._node.run("ip", "-4", "address", "show", "dev", "br0")
        keeps = METADATA in out
        said = f"{len(defended)} defences; it keeps the address: {keeps}"
        self._settle("R25", bool(defended) and keeps, said)

    def _said_to_guest(self) -> list[Arp]:
        """ARP that the guest hears within a moment."""
        time.sleep(_LATE)
        heard = [arp.parse(frame) for _, out, frame in self._wire.call("heard") if not out]
        return [one for one in heard if one is not None]

    def _by_broadcast(self) -> None:
        """Over everything that was heard: no ARP with a link-local sender went to one host only."""
        own = [one.arp for one in self._all if one.arp is not None and one.arp.sender_ip]
        narrow = [one for one in own if one.ether_destination != arp.BROADCAST]
        replies = [one for one in own if one.operation == arp.REPLY]
        said = f"{len(own)} packets, {len(replies)} replies, {len(narrow)} by unicast"
        self._settle("R17", bool(replies) and not narrow, said)

    # The guest, and what its node has given out.

    def _bindings(self) -> list[int]:
        _, out, _ = self._node.run("ip", "-j", "-4", "neighbour", "show", "dev", "br0")
        return [addresses.from_text(one["dst"]) for one in json.loads(out or "[]")]

    def _bound(self) -> int:
        """The link-local address that the guest's interface has now."""
        for one in self._addresses():
            if one["local"].startswith("169.254."):
                return addresses.from_text(one["local"])
        return self._claimed()

    def _prefix_length(self, address: str) -> int:
        return next((one["prefixlen"] for one in self._addresses() if one["local"] == address), 0)

    def _addresses(self) -> list[dict[str, Any]]:
        _, out, _ = self._wire.run("ip", "-j", "-4", "address", "show", "dev", "eth0")
        return [one for link in json.loads(out or "[]") for one in link.get("addr_info", [])]


_ROWS_OF: Final = {
    "_a_clean_claim": ("R01", "R02", "R05", "R06", "R12", "R21", "R22", "R23"),
    "_answering": ("R17",),
    "_remembering": ("R04",),
    "_drawing": ("R03",),
    "_conflicts_while_probing": ("R07", "R08", "R09"),
    "_no_conflict": ("R10",),
    "_conflicts_when_bound": ("R13", "R14", "R16"),
    "_late_conflict": ("R15",),
    "_routes": ("R18", "R19", "R20"),
    "_the_node": ("R24", "R25"),
    "_many_conflicts": ("R11",),
}


def _is_probe(heard: Heard) -> bool:
    return heard.arp is not None and heard.arp.is_probe


def _probe_after(moment: float) -> Callable[[Heard], bool]:
    return lambda heard: heard.at > moment and _is_probe(heard)


def _is_announcement(heard: Heard) -> bool:
    """A gratuitous request or reply: sender and target are one address."""
    return heard.arp is not None and 0 < heard.arp.sender_ip == heard.arp.target_ip


def _asks_for(heard: Heard, address: int) -> bool:
    return (
        heard.arp is not None
        and heard.arp.operation == arp.REQUEST
        and heard.arp.target_ip == address
    )


def _speaks_from(heard: Heard, address: int) -> bool:
    if heard.arp is not None:
        return heard.arp.sender_ip == address
    is_ip = heard.frame[12:14] == b"\x08\x00"
    return is_ip and heard.frame[26:30] == address.to_bytes(4, "big")


def _probes_for_other(heard: Heard, address: int) -> bool:
    return _is_probe(heard) and heard.arp is not None and heard.arp.target_ip != address


def _reacts(address: int) -> Callable[[Heard], bool]:
    return lambda heard: (
        (_is_announcement(heard) and _speaks_from(heard, address))
        or _probes_for_other(heard, address)
    )


def _is_reset(heard: Heard) -> bool:
    frame = heard.frame
    return frame[12:14] == b"\x08\x00" and frame[23] == 6 and bool(frame[47] & 4)


def _within(seconds: float, least: float, most: float) -> bool:
    return least - _EARLY <= seconds <= most + _LATE


def _text(octets: bytes) -> str:
    return ".".join(str(one) for one in octets)


def _frame_of(packet: Arp) -> bytes:
    return (
        packet.ether_destination
        + packet.ether_source
        + bytes.fromhex("0806000108000604")
        + packet.operation.to_bytes(2, "big")
        + packet.sender_mac
        + packet.sender_ip.to_bytes(4, "big")
        + packet.target_mac
        + packet.target_ip.to_bytes(4, "big")
    )


def judge(
    lab: str, foreign: Sequence[Foreign], on_done: Callable[[str], None] = lambda _: None
) -> dict[str, dict[str, Result]]:
    """Try our claimant and the foreign ones on a running lab, side by side on one bridge.

    Where the lab's guard keeps from a guest what a row has to say to it, the row is not tried.
    By the claimant's name, then by the row's number. The lab's first node needs a guest for each.
    """
    told = client.status(lab)
    near = told["nodes"][0]
    if len(near["guests"]) < 1 + len(foreign):
        raise NotSo(f"{lab}: {near['name']} needs {1 + len(foreign)} guests, one a claimant")
    timing = Timing().scaled(float(told["time_scale"]))
    policy = Policy(told["policy"])
    time.sleep(timing.announce_interval + _LATE)  # the last word of the claims before these

    def attempt(number: int) -> tuple[str, dict[str, Result]]:
        guest = near["guests"][number]
        chosen = None if number == 0 else foreign[number - 1]
        begun = time.monotonic()
        peers = policy is Policy.SAME_NODE
        with _manned(lab, near["name"], guest, chosen) as (node, wire, claimant):
            other = near["guests"][number - 1]["mac"] if peers else _mac_of_bridge(node)
            trial = Trial(node, wire, guest, claimant, timing, other)
            trial.run()
        on_done(claimant.name)
        taken = time.monotonic() - begun
        told = trial.told
        # What was not tried is left out: for the node's own rows one claimant is enough.
        return claimant.name, {
            row.id: _result(row, told[row.id], policy, taken) for _, row in ROWS if row.id in told
        }

    with ThreadPoolExecutor(max_workers=1 + len(foreign)) as pool:
        return dict(pool.map(attempt, range(1 + len(foreign))))


def _result(row: Row, seen: Observed, policy: Policy, taken: float) -> Result:
    return Result(
        row=row,
        family="RFC 3927",
        policy=policy,
        expected=PASS,
        observed=seen.verdict,
        control=True,
        evidence=tuple(seen.evidence),
        sent=(),
        said=(),
        frames=(),
        capture=(),
        seconds=taken / len(ROWS),
    )


@contextmanager
def _manned(
    lab: str, node_name: str, guest: dict[str, Any], foreign: Foreign | None
) -> Iterator[tuple[Place, Place, Claimant]]:
    node = Place(node_name, client.enter(lab, node_name), "br0")
    wire = Place(guest["name"], client.enter(lab, guest["name"]), "eth0")
    claimant: Claimant | None = None
    try:
        node.ready()
        wire.ready()
        if foreign is None:
            claimant = OurClaimant(lab, guest["name"])
        else:
            claimant = ForeignClaimant(lab, guest["name"], wire, foreign)
        yield node, wire, claimant
    finally:
        if claimant is not None:
            claimant.close()
        node.close()
        wire.close()


def _mac_of_bridge(node: Place) -> str:
    _, out, _ = node.run("ip", "-j", "link", "show", "dev", node.interface)
    return str(json.loads(out)[0]["address"])
