"""Guests, maintenance events, and the life of an event. Pure: no I/O, and time is an argument.

All times are seconds since the epoch, UTC, on the metadata plane's clock (see `Repository`);
all lengths of time are seconds.
"""

from collections.abc import Container, Iterator
from enum import StrEnum
from math import inf
from typing import Annotated, Final

from msgspec import Meta, Struct, field
from msgspec.structs import replace

from hostagent import times

MAX_GUESTS: Final = 1023
"""Guests on one node: a Linux bridge has 1,023 usable ports."""

MAX_ACTIVITY: Final = 24 * 3600.0
"""An activity of unknown duration that nobody completes expires after a day, so that a dead
controller leaves nothing for good. The longest host maintenance takes hours."""

LONGEST: Final = 366 * 24 * 3600.0
"""A notice or duration of more than a year is taken for a mistake of units."""

MAX_CLOCK_OFFSET: Final = 10 * 366 * 24 * 3600.0
"""The metadata plane's clock is at most ten years ahead of the machine's: dates must stay valid."""

# `\Z`, not `$`: the latter also matches before a trailing newline.
GuestName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")]
SetName = GuestName
EventId = Annotated[str, Meta(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")]
LONGEST_DESCRIPTION: Final = 1024
Description = Annotated[str, Meta(max_length=LONGEST_DESCRIPTION)]
Domain = Annotated[int, Meta(ge=0, le=1023)]
Seconds = Annotated[float, Meta(gt=0, le=LONGEST)]
Epoch = Annotated[float, Meta(ge=0, le=times.LAST)]

_OCTET: Final = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
Address = Annotated[str, Meta(pattern=rf"^{_OCTET}(\.{_OCTET}){{3}}\Z")]


PropertyKey = Annotated[str, Meta(min_length=1, max_length=192)]
PropertyValue = Annotated[str, Meta(max_length=131072)]
Properties = Annotated[dict[PropertyKey, PropertyValue], Meta(max_length=256)]


class Guest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A guest as it is placed on this node.

    `port` is the number that its frames are marked with at the node's ingress port, which is the
    SO_MARK of the connections it makes. `address` (IPv4, dotted) is its identity only in the
    responder's plain mode. That identity is weaker, as a guest can claim any address.
    """

    name: GuestName
    port: Annotated[int, Meta(ge=1, le=0xFFFFFFFF)] | None = None
    address: Address | None = None
    update_domain: Domain = 0
    fault_domain: Domain = 0
    availability_set: SetName | None = None
    properties: Properties = {}  # see `hostagent.properties`


class EventType(StrEnum):
    """What will happen to the guest."""

    FREEZE = "Freeze"
    REBOOT = "Reboot"
    REDEPLOY = "Redeploy"
    PREEMPT = "Preempt"
    TERMINATE = "Terminate"


LEAST_NOTICE: Final = {
    EventType.FREEZE: 900.0,
    EventType.REBOOT: 900.0,
    EventType.REDEPLOY: 600.0,
    EventType.PREEMPT: 30.0,
    EventType.TERMINATE: 300.0,
}
"""Seconds between an event's creation and its `not_before`, unless the command says otherwise."""


class EventSource(StrEnum):
    """Who asked for the event: the platform, or the guest's own user."""

    PLATFORM = "Platform"
    USER = "User"


class EventStatus(StrEnum):
    """Where an event stands in its life."""

    SCHEDULED = "Scheduled"
    STARTED = "Started"
    COMPLETED = "Completed"
    CANCELLED = "Cancelled"
    EXPIRED = "Expired"


FINAL: Final = frozenset({EventStatus.COMPLETED, EventStatus.CANCELLED, EventStatus.EXPIRED})


class Request(StrEnum):
    """What moves an event from one status to the next."""

    START = "start"
    APPROVE = "approve"  # by a guest: starts it without waiting for `not_before`
    COMPLETE = "complete"
    CANCEL = "cancel"
    EXPIRE = "expire"


TRANSITIONS: Final = {
    (EventStatus.SCHEDULED, Request.START): EventStatus.STARTED,
    (EventStatus.SCHEDULED, Request.APPROVE): EventStatus.STARTED,
    (EventStatus.SCHEDULED, Request.CANCEL): EventStatus.CANCELLED,
    # Of several guests that see an event, a second may approve what the first has started.
    (EventStatus.STARTED, Request.APPROVE): EventStatus.STARTED,
    (EventStatus.STARTED, Request.COMPLETE): EventStatus.COMPLETED,
    (EventStatus.STARTED, Request.EXPIRE): EventStatus.EXPIRED,
}
"""The whole life of an event. Nothing else is legal: a started activity can be completed but not
cancelled, and an ended event does not change."""


class IllegalTransition(Exception):
    """The event's status does not allow the request."""

    def __init__(self, event_id: str, status: EventStatus, request: Request) -> None:
        # Only the agent itself expires events.
        legal = [r for (s, r) in TRANSITIONS if s is status and r is not Request.EXPIRE]
        hint = f"possible now: {', '.join(legal)}" if legal else "it has ended"
        super().__init__(f"event {event_id} is {status}: cannot {request} it; {hint}")
        self.event_id = event_id
        self.status = status
        self.request = request


class Event(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One maintenance activity.

    `guests` may be on other nodes, too. `availability_sets` are the sets of its guests at the time
    it was scheduled: their members see it too. `duration` None is unknown. `started` and `ended`
    stay None until they have happened. `notice_only`: the event is announced, but nothing is done
    to the guest. `approved` is when it was started before its time by an approval, and
    `approved_by` the guest that gave it; None: a controller.
    """

    id: EventId
    type: EventType
    source: EventSource
    description: Description
    guests: Annotated[tuple[GuestName, ...], Meta(min_length=1, max_length=MAX_GUESTS)]
    created: Epoch
    not_before: Epoch
    availability_sets: Annotated[tuple[SetName, ...], Meta(max_length=MAX_GUESTS)] = ()
    duration: Seconds | None = None
    status: EventStatus = EventStatus.SCHEDULED
    started: Epoch | None = None
    ended: Epoch | None = None
    notice_only: bool = False
    approved: Epoch | None = None
    approved_by: GuestName | None = None


class View(Struct, frozen=True):
    """What is known of one guest, and nothing of any other: a dialect sees only this.

    `events` are those not ended, by `not_before`, earliest first; `history` those that have ended,
    latest first. `incarnation` grows with every change of the events that this guest can see,
    `edits` with every change of the guest itself: their sum, `revision`, with every change at all.
    `arrived` is the incarnation with which the guest came to this node. `written` is what it has
    written for itself.
    """

    guest: Guest
    incarnation: int
    events: tuple[Event, ...] = ()
    history: tuple[Event, ...] = ()
    edits: int = 0
    arrived: int = 1
    written: dict[str, str] = field(default_factory=dict)

    @property
    def revision(self) -> int:
        """The number of changes to anything in this view. It never goes back."""
        return self.incarnation + self.edits

    def own(self, now: float) -> "list[Event]":
        """Return the guest's own events of `events`, as they are at `now`."""
        return [at(known, now) for known in self.events if concerns(known, self.guest.name)]

    def own_history(self) -> "list[Event]":
        """Return the guest's own events that have ended, of `history`."""
        return [event for event in self.history if concerns(event, self.guest.name)]


def concerns(event: Event, name: str) -> bool:
    """Whether the event is the named guest's own."""
    return name in event.guests


def sees(guest: Guest, event: Event) -> bool:
    """Whether the guest can see the event: it is its own, or one of its availability set's."""
    return concerns(event, guest.name) or (
        guest.availability_set is not None and guest.availability_set in event.availability_sets
    )


def apply(event: Event, request: Request, now: float, by: str | None = None) -> Event:
    """Return the event as it is after the request, `by` a guest; raises IllegalTransition."""
    status = TRANSITIONS.get((event.status, request))
    if status is None:
        raise IllegalTransition(event.id, event.status, request)
    if status is event.status:
        return event
    if request is Request.APPROVE:
        event = replace(event, approved=now, approved_by=by)
    if status is EventStatus.STARTED:
        return replace(event, status=status, started=now)
    return replace(event, status=status, ended=now)


def consistent(event: Event) -> bool:
    """Whether the event's times match its status."""
    return (event.ended is not None) == (event.status in FINAL) and (
        event.started is not None or event.status is not EventStatus.STARTED
    )


_PROGRESS: Final = {EventStatus.SCHEDULED: 0, EventStatus.STARTED: 1}


def joined(known: Event, carried: Event, here: Container[str]) -> Event:
    """Merge two nodes' versions of an event: the one further along (`known` if equal), with the
    guests and sets of both. If those are too many, guests that are not `here` are left out.
    """
    last = len(EventStatus)
    ahead = _PROGRESS.get(carried.status, last) > _PROGRESS.get(known.status, last)
    guests = tuple(dict.fromkeys((*known.guests, *carried.guests)))
    if len(guests) > MAX_GUESTS:
        guests = tuple(sorted(guests, key=lambda name: name not in here))[:MAX_GUESTS]
    approval = known if known.approved is not None else carried
    return replace(
        carried if ahead else known,
        approved=approval.approved,
        approved_by=approval.approved_by,
        guests=guests,
        availability_sets=tuple(sorted({*known.availability_sets, *carried.availability_sets})),
    )


def next_change(event: Event) -> float | None:
    """Return when the event will change by itself; None once it has ended."""
    if event.status is EventStatus.SCHEDULED:
        return event.not_before
    if event.status is EventStatus.STARTED and event.started is not None:
        return event.started + (MAX_ACTIVITY if event.duration is None else event.duration)
    return None


def due(event: Event, now: float) -> Request | None:
    """Return the request that has fallen due by `now`, if any."""
    when = next_change(event)
    if when is None or when > now:
        return None
    if event.status is EventStatus.SCHEDULED:
        return Request.START
    return Request.EXPIRE if event.duration is None else Request.COMPLETE


def at(event: Event, now: float) -> Event:
    """Return the event as it is at `now`, with all that has fallen due."""
    when = next_change(event)
    if when is None or when > now:  # the common case, on every answer's path
        return event
    for event in unfold(event, now):  # noqa: B007, B020
        pass
    return event


def boundary(view: View, now: float, lead: float) -> float:
    """Return when, after `now`, time alone next changes what a dialect tells of the view's events,
    if it tells them from `lead` seconds before their `not_before` on. Infinity if never.
    """
    times = [inf]
    for known in view.events:
        event = at(known, now)
        if event.status is EventStatus.SCHEDULED:
            notice = event.not_before - lead
            times.append(notice if notice > now else event.not_before)
        elif (when := next_change(event)) is not None:
            times.append(when)
    return min(times)


def unfold(event: Event, now: float) -> Iterator[Event]:
    """Return each state that the event has passed through by itself up to `now`, in order.

    Each is stamped with the time at which it fell due, so that an agent that was not running at a
    start tells the same as one that was.
    """
    while (request := due(event, now)) is not None:
        when = next_change(event)
        assert when is not None  # or nothing would be due
        event = apply(event, request, when)
        yield event
