"""The trials of a claimant, in the order in which they are made."""

import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Final

from netemu.conformance.inside import Inside
from netemu.conformance.rfc3927.claimants import OurClaimant
from netemu.conformance.rfc3927.rows import FAIL
from netemu.conformance.rfc3927.subject import START, Subject
from netemu.conformance.rfc3927.wire import (
    LATE,
    asks_for,
    frame_of,
    is_announcement,
    is_probe,
    is_reset,
    probe_after,
    probes_for_other,
    reacts,
    speaks_from,
    text,
    within,
)
from netemu.conformance.roles import HTTP, METADATA
from netemu.conformance.row import Observed
from netemu.conformance.stage import INSTANCE_INFO, is_answered_as
from netemu.errors import NotSo
from netemu.interfaces import BRIDGE, GUEST_WIRE, octets
from netemu.linklocal import addresses, arp
from netemu.linklocal.arp import Arp

_ROUTER, _ROUTABLE, _FAR_AWAY = "198.51.100.1", "198.51.100.7", "203.0.113.9"
# Attempts to cause a conflict while it probes.
_TRIES: Final = 3
_ROUTER_MAC: Final = "02:5e:10:00:00:99"
_NEIGHBOURS: Final = ("169.254.88.88", "169.254.88.89")


class Trial(Subject):
    """The trials of one claimant in one guest; `told` has the outcome of each row so far."""

    # Trials, in the order in which they are made.

    def run(self, trials: "Iterable[Callable[[Trial], None]]") -> None:
        """Run these trials, which are of PARTS. One that cannot be run fails its own rows only."""
        for trial in trials:
            try:
                trial(self)
            except NotSo as error:
                for row in _ROWS_OF[trial]:
                    self.told.setdefault(row, Observed(FAIL, [str(error)]))
        self._by_broadcast()

    def _a_clean_claim(self) -> None:
        timing = self._timing
        address = self._claimed()
        log = list(self._link.listen())
        probes = [one for one in log if is_probe(one)]
        announced = [one for one in log if is_announcement(one)]
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
        early = [one for one in log if one.at < announced[0].at and speaks_from(one, address)]
        self._settle("R05", not early, f"{len(early)} frames before the announcement")
        gaps = [after.at - one.at for one, after in pairwise(probes)]
        wait = announced[0].at - probes[-1].at
        well_timed = (
            len(probes) == timing.probe_num
            and all(within(gap, timing.probe_min, timing.probe_max) for gap in gaps)
            and within(wait, timing.announce_wait, timing.announce_wait)
        )
        spaced = ", ".join(f"{gap:.2f}" for gap in [*gaps, wait])
        self._settle("R06", well_timed, f"{len(probes)} probes; {spaced} s")
        between = [after.at - one.at for one, after in pairwise(announced)]
        interval = timing.announce_interval
        right = len(announced) == timing.announce_num and all(
            within(gap, interval, interval) for gap in between
        )
        self._settle("R12", right, f"{len(announced)} announcements, {between} s apart")
        length = self._prefix_length(text)
        self._settle("R21", length == 16, f"{text}/{length}")
        answer, end, _ = self._guest.call(Inside.get, INSTANCE_INFO, METADATA, HTTP, 2.0)
        answered = is_answered_as(answer, self._name)
        self._settle("R23", answered, end if answered else f"{end}: {answer[:60]!r}")
        self._link.fresh()
        # Two and a half defence intervals: a correct claimant sends nothing periodic meanwhile.
        quiet = max(0.5, timing.defend_interval / 2)
        time.sleep(quiet)
        unasked = [
            one for one in self._link.listen() if one.arp and one.arp.operation == arp.REQUEST
        ]
        unasked = [one for one in unasked if not asks_for(one, addresses.METADATA)]
        self._settle("R22", not unasked, f"{len(unasked)} requests within {quiet:.1f} s")

    def _answering(self) -> None:
        """Have the guest answer ARP. Whether by broadcast is judged at the end, over all frames."""
        address = self._bound()
        self._link.fresh()
        self._link.say(self._link.asking(address))
        if self._link.until(
            1.0, lambda one: one.arp is not None and one.arp.operation == arp.REPLY
        ):
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
            return arp.reply(self._link.other, address, self._mac, 0, self._mac)

        def request(address: int) -> bytes:
            asked = addresses.METADATA
            return frame_of(
                Arp(
                    arp.REQUEST,
                    self._link.other,
                    address,
                    bytes(6),
                    asked,
                    self._link.other,
                    arp.BROADCAST,
                )
            )

        def probe(address: int) -> bytes:
            return arp.probe(self._link.other, address)

        for row, conflict in (("R07", reply), ("R08", request), ("R09", probe)):
            # On a busy machine the conflict may come too late, when the address is claimed.
            for _ in range(_TRIES):
                told = self._chooses_anew(conflict)
                if told is None or told[0]:
                    break
            if told is not None:
                self._settle(row, *told)

    def _chooses_anew(self, conflict: Callable[[int], bytes]) -> tuple[bool, str] | None:
        """Whether it probes for another address after a conflict; None if none was possible."""
        self._restart()
        candidate = self._first_probe().target_ip
        self._link.fresh()
        try:
            self._link.say(conflict(candidate))
        except NotSo:
            return None  # the guard drops others' probes, and the node answers for the guest
        patience = self._timing.probe_wait + self._timing.probe_max + LATE
        after = self._link.until(patience, is_probe)
        following = None if after is None or after.arp is None else after.arp.target_ip
        shown = "nothing" if following is None else addresses.to_text(following)
        drawn = following is not None and following != candidate
        return drawn, f"after {addresses.to_text(candidate)}: {shown}"

    def _no_conflict(self) -> None:
        self._restart()
        candidate = self._first_probe().target_ip
        self._link.say(self._link.asking(candidate))
        claimed = self._await_claim()
        shown = f"{addresses.to_text(candidate)}, {addresses.to_text(claimed)}"
        self._settle("R10", claimed == candidate, shown)

    def _conflicts_when_bound(self) -> None:
        address = self._bound()
        self._guest.call(Inside.dial, "kept", METADATA, HTTP)
        self._link.fresh()
        self._link.say(self._link.claims(address))
        reaction = self._link.until(1.0, reacts(address))
        if reaction is None:
            self._settle("R13", False, "it is ignored")
            self._settle("R14", False, "the first was ignored")
            return
        defended = is_announcement(reaction)
        self._settle("R13", True, "defends" if defended else "moves")
        if not defended:
            self._settle("R14", True, "moved at the first")
            self._settle("R16", *self._was_reset())
            self._await_claim()
            return
        self._link.fresh()
        self._link.say(self._link.claims(address))
        moved = self._link.until(self._longest_claim, lambda one: probes_for_other(one, address))
        kept = [one for one in self._link.log if is_announcement(one) and speaks_from(one, address)]
        self._settle(
            "R14", moved is not None and not kept, "moves" if moved else "goes on as before"
        )
        self._settle("R16", *self._was_reset())
        self._guest.call(Inside.hang_up, "kept")
        if moved is not None:
            self._await_claim()

    def _was_reset(self) -> tuple[bool, str]:
        reset = [one for one in self._link.log if is_reset(one)]
        return bool(reset), f"{len(reset)} RSTs to the responder"

    def _late_conflict(self) -> None:
        address = self._claimed()
        for number in range(2):
            self._link.fresh()
            self._link.say(self._link.claims(address))
            reaction = self._link.until(1.0, reacts(address))
            if reaction is None:
                self._settle("R15", False, f"conflict {number + 1} is ignored")
                return
            if not is_announcement(reaction):
                self._settle("R15", True, "moves")
                self._await_claim()
                return
            if number == 0:
                time.sleep(self._timing.defend_interval * 1.1)
        self._settle("R15", True, "defends each")

    def _routes(self) -> None:
        """Give the guest a routable address and a default route as bait."""
        address = addresses.to_text(self._bound())
        for command in (
            ("address", "add", f"{_ROUTABLE}/24", "dev", GUEST_WIRE),
            ("neighbour", "replace", _ROUTER, "lladdr", _ROUTER_MAC, "dev", GUEST_WIRE),
            ("route", "replace", "default", "via", _ROUTER, "dev", GUEST_WIRE),
        ):
            self._guest.run("ip", *command)
        time.sleep(0.2)  # until routing daemons have seen it
        try:
            router = octets(_ROUTER_MAC)
            asked, through = self._send_from(address, _NEIGHBOURS[0], router)
            asked_too, through_too = self._send_from(_ROUTABLE, _NEIGHBOURS[1], router)
            asked, through = asked and asked_too, through or through_too
            said = f"asked for: {asked}; through the router: {through}"
            self._settle("R18", asked and not through, said)
            asked, through = self._send_from(address, _FAR_AWAY, router)
            self._settle(
                "R19", asked and not through, f"asked for: {asked}; through the router: {through}"
            )
            self._link.fresh()
            self._guest.call(Inside.datagram, "", _FAR_AWAY)
            sent = self._link.until(0.5, lambda one: one.frame[12:14] == b"\x08\x00")
            source = "nothing" if sent is None else text(sent.frame[26:30])
            self._settle("R20", source == _ROUTABLE, f"the source is {source}")
        finally:
            for command in (
                ("route", "del", "default", "via", _ROUTER),
                ("address", "del", f"{_ROUTABLE}/24", "dev", GUEST_WIRE),
                ("neighbour", "del", _ROUTER, "dev", GUEST_WIRE),
            ):
                self._guest.run("ip", *command)

    def _send_from(self, source: str, to: str, router: bytes) -> tuple[bool, bool]:
        """Send a datagram: whether ARP asked for `to` itself, and whether the router got it."""
        self._link.fresh()
        self._guest.call(Inside.datagram, source, to)
        wanted = addresses.from_text(to)
        asked = self._link.until(0.5, lambda one: asks_for(one, wanted)) is not None
        through = any(one.frame[:6] == router for one in self._link.listen())
        return asked, through

    def _many_conflicts(self) -> None:
        timing = self._timing
        self._restart()
        tried: list[int] = []
        last = 0.0
        # After a conflict a host waits PROBE_WAIT at most before its next probe.
        end = time.monotonic() + START + (timing.max_conflicts + 3) * (timing.probe_wait + 0.2)
        while time.monotonic() < end and len(tried) <= timing.max_conflicts + 2:
            heard = self._link.until(0.02, probe_after(last))
            if heard is None or heard.arp is None:
                continue
            last = heard.at
            if heard.arp.target_ip not in tried:
                tried.append(heard.arp.target_ip)
            self._link.say(self._link.claims(heard.arp.target_ip))
        self._link.fresh()
        window = timing.rate_limit_interval / 4
        end = time.monotonic() + window
        new: set[int] = set()
        while time.monotonic() < end:
            heard = self._link.until(0.05, probe_after(last))
            if heard is not None and heard.arp is not None:
                last = heard.at
                new.add(heard.arp.target_ip)
                self._link.say(self._link.claims(heard.arp.target_ip))
        self._settle(
            "R11", len(new - set(tried)) <= 1,
            f"{len(tried)} tried at first, {len(new - set(tried))} more within {window:.1f} s",
        )  # fmt: skip

    def _the_node(self) -> None:
        """The node's own behaviour: no answer for free addresses, defence of its own."""
        if not isinstance(self._claimant, OurClaimant):
            return
        own = self._bound()
        self._guest.call(Inside.listen, GUEST_WIRE, 3, True)
        taken = set(self._bindings())
        some = (addresses.FIRST + 977 * number for number in range(1, 51))
        free = [one for one in some if one not in taken]
        self._guest.send(
            [
                frame_of(Arp(arp.REQUEST, self._mac, own, bytes(6), one, self._mac, arp.BROADCAST))
                for one in free
            ]
        )
        answers = [one for one in self._said_to_guest() if one.sender_ip in free]
        said = f"{len(answers)} of {len(free)} free addresses answered for"
        self._settle("R24", not answers, said)
        claim = arp.announcement(self._mac, addresses.METADATA)
        self._guest.send([claim])
        defended = [one for one in self._said_to_guest() if one.sender_ip == addresses.METADATA]
        self._guest.send([claim])
        self._said_to_guest()
        _, out, _ = self._node.run("ip", "-4", "address", "show", "dev", BRIDGE)
        keeps = METADATA in out
        said = f"{len(defended)} defences; it keeps the address: {keeps}"
        self._settle("R25", bool(defended) and keeps, said)

    def _said_to_guest(self) -> list[Arp]:
        """ARP that the guest hears within a moment."""
        time.sleep(LATE)
        heard = [arp.parse(frame) for _, out, frame in self._guest.call(Inside.heard) if not out]
        return [one for one in heard if one is not None]

    def _by_broadcast(self) -> None:
        """Check all frames: no ARP with a link-local sender was unicast."""
        own = [one.arp for one in self._link.all if one.arp is not None and one.arp.sender_ip]
        narrow = [one for one in own if one.ether_destination != arp.BROADCAST]
        replies = [one for one in own if one.operation == arp.REPLY]
        said = f"{len(own)} packets, {len(replies)} replies, {len(narrow)} by unicast"
        if replies or narrow:
            self._settle("R17", not narrow, said)


_ROWS_OF: Final[dict[Callable[[Trial], None], tuple[str, ...]]] = {
    Trial._a_clean_claim: ("R01", "R02", "R05", "R06", "R12", "R21", "R22", "R23"),
    Trial._answering: ("R17",),
    Trial._remembering: ("R04",),
    Trial._routes: ("R18", "R19", "R20"),
    Trial._the_node: ("R24", "R25"),
    Trial._drawing: ("R03",),
    Trial._conflicts_while_probing: ("R07", "R08", "R09"),
    Trial._no_conflict: ("R10",),
    Trial._conflicts_when_bound: ("R13", "R14", "R16"),
    Trial._late_conflict: ("R15",),
    Trial._many_conflicts: ("R11",),
}

PARTS: Final = (
    (Trial._a_clean_claim, Trial._answering, Trial._remembering, Trial._routes, Trial._the_node),
    (
        Trial._drawing,
        Trial._conflicts_while_probing,
        Trial._no_conflict,
        Trial._conflicts_when_bound,
    ),
    (Trial._late_conflict,),
    (Trial._many_conflicts,),
)
"""The trials in parts that take about as long, at RFC 3927's own pace: half a minute."""
