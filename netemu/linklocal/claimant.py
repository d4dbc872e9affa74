"""RFC 3927 for one interface: how a host claims an address, defends it and yields it. Pure.

The state machine is the table `TRANSITIONS`. A state acts when it is entered: PROBING sends one
probe each time it is entered, so three probes mean three entries. A received frame raises CONFLICT,
or is answered without a change of state (a defence, a reply), or is ignored.

    DOWN --> WAITING --> PROBING --> ANNOUNCE_WAIT --> ANNOUNCING --> BOUND
                ^           |              |               |            |
                +-----------+--- CONFLICT -+---------------+------------+
                RATE_LIMITED instead, once there were MAX_CONFLICTS

The inputs return effects, which the caller carries out, and set `deadline`. Nothing else happens.

The caller must keep the interface's kernel from answering ARP for the address
(net.ipv4.conf.*.arp_ignore=8): the kernel answers by unicast, and this state machine answers too.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from math import inf
from random import Random
from typing import Final

from msgspec import Struct

from netemu.linklocal import addresses, arp
from netemu.linklocal.arp import Arp
from netemu.linklocal.timing import Timing


class Send(Struct, frozen=True):
    """Send this Ethernet frame."""

    frame: bytes


class Listen(Struct, frozen=True):
    """From now on pass only ARP about this address to the claimant; None: pass no ARP."""

    address: int | None


class Use(Struct, frozen=True):
    """The address is claimed: configure it. Comes before the first announcement."""

    address: int


class Cease(Struct, frozen=True):
    """Reset this address's connections (RFC 3927 2.5) and remove it before the next effect."""

    address: int


Effect = Send | Listen | Use | Cease
Effects = tuple[Effect, ...]


class State(StrEnum):
    """The states of a claim."""

    DOWN = "down"  # the link is down
    RATE_LIMITED = "rate-limited"  # too many conflicts; ARP is ignored until the interval is over
    WAITING = "waiting"  # a random delay before the first probe spreads hosts that boot together
    PROBING = "probing"  # at least one probe is sent, at least one is still to be sent
    ANNOUNCE_WAIT = "announce-wait"  # all probes are sent; the last may still be answered
    ANNOUNCING = "announcing"  # the address is in use, an announcement is still to be sent
    BOUND = "bound"  # in use, and silent until another host asks or claims


class Event(StrEnum):
    """What may change the state."""

    LINK_UP = "link-up"
    LINK_DOWN = "link-down"
    DUE = "due"  # the deadline passed; more than one frame of the series is still to be sent
    LAST_DUE = "last-due"  # the deadline passed; the last frame of the series is to be sent
    CONFLICT = "conflict"  # another host has the address: try another candidate
    LIMITED = "limited"  # as LINK_UP or CONFLICT, but no new address may be tried yet


_ON_LOSS: Final = {
    Event.CONFLICT: State.WAITING,
    Event.LIMITED: State.RATE_LIMITED,
    Event.LINK_DOWN: State.DOWN,
}

# An event without an entry changes nothing: link notifications may come twice.
TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = {
    State.DOWN: {Event.LINK_UP: State.WAITING, Event.LIMITED: State.RATE_LIMITED},
    State.RATE_LIMITED: {Event.DUE: State.WAITING, Event.LINK_DOWN: State.DOWN},
    State.WAITING: {Event.DUE: State.PROBING, Event.LAST_DUE: State.ANNOUNCE_WAIT, **_ON_LOSS},
    State.PROBING: {Event.DUE: State.PROBING, Event.LAST_DUE: State.ANNOUNCE_WAIT, **_ON_LOSS},
    State.ANNOUNCE_WAIT: {Event.DUE: State.ANNOUNCING, Event.LAST_DUE: State.BOUND, **_ON_LOSS},
    State.ANNOUNCING: {Event.DUE: State.ANNOUNCING, Event.LAST_DUE: State.BOUND, **_ON_LOSS},
    State.BOUND: _ON_LOSS,
}

# In these states ARP about the candidate is a conflict.
_ON_TRIAL: Final = frozenset({State.WAITING, State.PROBING, State.ANNOUNCE_WAIT})


class Claimant:
    """One interface's claim. It is small: a process holds thousands of them.

    `candidate`   the address on trial or in use; while DOWN or RATE_LIMITED, the one to try next
    `address`     the address in use; None before it is claimed
    `remembered`  the last address in use that was not lost; keep it over a restart (2.1)
    `conflicts`   counted towards MAX_CONFLICTS, see `_cease`
    `deadline`    when to call `expire`, seconds; None: not at all
    """

    __slots__ = (
        "_draws",
        "_held_since",
        "_jitter",
        "_last_conflict",
        "_new_address_not_before",
        "_to_send",
        "address",
        "candidate",
        "conflicts",
        "deadline",
        "mac",
        "remembered",
        "state",
        "timing",
    )

    def __init__(
        self, mac: bytes, *, timing: Timing, jitter: Random, remembered: int | None = None
    ) -> None:
        """Raise ValueError if a host may not pick `remembered`."""
        if remembered is not None and not addresses.claimable(remembered):
            raise ValueError(
                f"remembered address {addresses.to_text(remembered)} cannot be claimed: it must be"
                f" {addresses.to_text(addresses.FIRST)} to {addresses.to_text(addresses.LAST)}"
            )
        self.mac = mac
        self.timing = timing
        self.remembered = remembered
        self.state = State.DOWN
        self.address: int | None = None
        self.conflicts = 0
        self.deadline: float | None = None
        self._jitter = jitter
        self._draws = 0
        self._to_send = 0  # frames of the current series
        self._held_since = 0.0
        self._last_conflict = -inf  # over the address in use
        self._new_address_not_before = -inf
        # RFC 3927 2.1: an address used before should be the first candidate.
        self.candidate = self._draw() if remembered is None else remembered

    # Inputs. Each returns its effects in the order in which they must be carried out.

    def link_up(self, now: float) -> Effects:
        """The link became active: claim, beginning with the previous candidate (2.2)."""
        limited = now < self._new_address_not_before  # toggling the link does not reset the limit
        return self._change(Event.LIMITED if limited else Event.LINK_UP, now)

    def link_down(self, now: float) -> Effects:
        """The link became inactive; the address is remembered for the next `link_up`."""
        return self._cease(now) + self._change(Event.LINK_DOWN, now)

    def expire(self, now: float) -> Effects:
        """Take one step if the deadline has passed."""
        if self.deadline is None or now < self.deadline:
            return ()
        return self._change(Event.LAST_DUE if self._to_send == 1 else Event.DUE, now)

    def receive(self, packet: Arp, now: float) -> Effects:
        """An ARP packet was heard on this interface."""
        if packet.sender_mac == self.mac:  # its own frame, echoed by a bridge or a tap
            return ()
        if self.address is None:
            if self.state not in _ON_TRIAL:
                return ()
            # RFC 3927 2.2.1: another host uses the candidate or probes for it. An ordinary request
            # for it is not a conflict.
            used = packet.sender_ip == self.candidate
            probed = packet.is_probe and packet.target_ip == self.candidate
            return self._lose(now) if used or probed else ()
        if packet.sender_ip == self.address:
            return self._contest(now)
        if packet.operation == arp.REQUEST and packet.target_ip == self.address:
            # A prober gets this reply too, and learns that the address is taken (2.2.1).
            reply = arp.reply(self.mac, self.address, packet.sender_mac, packet.sender_ip)
            return (Send(reply),)
        return ()

    # Conflicts and the loss of an address.

    def _contest(self, now: float) -> Effects:
        """Defend once; yield to a second conflict within DEFEND_INTERVAL (RFC 3927 2.5 (b))."""
        again = now - self._last_conflict < self.timing.defend_interval
        self._last_conflict = now
        if again:
            return self._lose(now)
        return (Send(arp.announcement(self.mac, self.candidate)),)

    def _lose(self, now: float) -> Effects:
        """Replace the candidate, at once or when the rate limit allows (2.2.1)."""
        ceased = self._cease(now)
        self.conflicts += 1
        if self.remembered == self.candidate:
            self.remembered = None
        self.candidate = self._draw(unlike=self.candidate)
        # RFC 3927 2.2.1 says "exceeds MAX_CONFLICTS", RFC 5227 2.1.1 "MAX_CONFLICTS or more". The
        # stricter rule satisfies both.
        if self.conflicts < self.timing.max_conflicts:
            return ceased + self._change(Event.CONFLICT, now)
        self._new_address_not_before = now + self.timing.rate_limit_interval
        return ceased + self._change(Event.LIMITED, now)

    def _cease(self, now: float) -> Effects:
        """Stop using the address, if there is one.

        The RFC does not say when conflicts are forgotten. Here they are forgotten once an address
        was in use for RATE_LIMIT_INTERVAL: such a host tries new addresses no faster than the limit
        allows. If they were forgotten at every claim, a rogue that contests each claim could drive
        the host through the whole range. The count matters only when an address is lost, so no
        timer is needed.
        """
        if self.address is None:
            return ()
        if now - self._held_since >= self.timing.rate_limit_interval:
            self.conflicts = 0
        ceased = Cease(self.address)
        self.address = None
        return (ceased,)

    def _draw(self, unlike: int | None = None) -> int:
        """Return this MAC's next candidate other than `unlike`."""
        while True:
            drawn = addresses.candidate(self.mac, self._draws)
            self._draws += 1
            if drawn != unlike:
                return drawn

    # States. `_change` is the only place that changes the state.

    def _change(self, event: Event, now: float) -> Effects:
        following = TRANSITIONS[self.state].get(event)
        if following is None:
            return ()
        self.state = following
        return _ENTER[following](self, now)

    def _enter_down(self, _now: float) -> Effects:
        self.deadline = None
        return (Listen(None),)

    def _enter_rate_limited(self, _now: float) -> Effects:
        self._to_send = 0
        self.deadline = self._new_address_not_before
        return (Listen(None),)

    def _enter_waiting(self, now: float) -> Effects:
        # From here on a conflict counts (RFC 3927 2.2.1, "during this period, from the beginning of
        # the probing process").
        self._to_send = self.timing.probe_num
        self.deadline = now + self._jitter.uniform(0, self.timing.probe_wait)
        return (Listen(self.candidate),)

    # Gaps are measured from the time a frame is sent: a late frame never shortens the next gap.

    def _enter_probing(self, now: float) -> Effects:
        self.deadline = now + self._jitter.uniform(self.timing.probe_min, self.timing.probe_max)
        return self._probe()

    def _enter_announce_wait(self, now: float) -> Effects:
        effects = self._probe()
        self._to_send = self.timing.announce_num
        self.deadline = now + self.timing.announce_wait
        return effects

    def _enter_announcing(self, now: float) -> Effects:
        self.deadline = now + self.timing.announce_interval
        return self._announce(now)

    def _enter_bound(self, now: float) -> Effects:
        self.deadline = None  # RFC 3927 2.2 and 4: nothing periodic
        return self._announce(now)

    def _probe(self) -> Effects:
        self._to_send -= 1
        return (Send(arp.probe(self.mac, self.candidate)),)

    def _announce(self, now: float) -> Effects:
        self._to_send -= 1
        announced = Send(arp.announcement(self.mac, self.candidate))
        if self.address is not None:
            return (announced,)
        self.address = self.remembered = self.candidate
        self._held_since = now
        self._last_conflict = -inf
        return (Use(self.address), announced)


_ENTER: Final[Mapping[State, Callable[[Claimant, float], Effects]]] = {
    State.DOWN: Claimant._enter_down,
    State.RATE_LIMITED: Claimant._enter_rate_limited,
    State.WAITING: Claimant._enter_waiting,
    State.PROBING: Claimant._enter_probing,
    State.ANNOUNCE_WAIT: Claimant._enter_announce_wait,
    State.ANNOUNCING: Claimant._enter_announcing,
    State.BOUND: Claimant._enter_bound,
}
