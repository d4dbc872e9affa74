"""What a controller asks of an agent: commands, which change something, and queries.

The agent carries out a command with one `command_id` once; sent again, it gets the same answer.
"""

from typing import Annotated, Final, TypeAlias

from msgspec import Meta, Struct, field

from hostagent.faults import MAX_FAULTS, Fault, FaultId
from hostagent.model import (
    LONGEST,
    MAX_GUESTS,
    Description,
    Event,
    EventId,
    EventSource,
    EventType,
    Guest,
    GuestName,
    Seconds,
    SetName,
)
from hostagent.written import Written, WrittenName, WrittenText

CommandId = Annotated[str, Meta(min_length=1, max_length=64)]
Names = Annotated[tuple[GuestName, ...], Meta(min_length=1, max_length=MAX_GUESTS)]
Count = Annotated[int, Meta(ge=0, lt=1 << 62)]  # SQLite's integers have 64 bits
ClockOffset = Annotated[float, Meta(ge=0)]  # the agent refuses more than MAX_CLOCK_OFFSET


class Tagged(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="message",
    tag=str.lower,
):
    """A message: a map whose member `message` is the type's name in lower case."""


class _Command(Tagged, frozen=True):
    command_id: CommandId


class _OfEvent(_Command, frozen=True):
    event_id: EventId


class Place(_Command, frozen=True):
    """These guests are on this node now; a guest already placed is updated."""

    guests: Annotated[tuple[Guest, ...], Meta(min_length=1, max_length=MAX_GUESTS)]


WITHDRAWN_AT_ONCE: Final = 16
"""Guests that one command withdraws: its answer fits a frame, whatever faults they have."""


class Withdraw(_Command, frozen=True):
    """These guests are no longer on this node."""

    names: Annotated[tuple[GuestName, ...], Meta(min_length=1, max_length=WITHDRAWN_AT_ONCE)]


class Schedule(_Command, frozen=True):
    """Plan an event. The agent stamps it with its own clock, which may have been advanced.

    `notice` is the seconds until `not_before`, or None for the type's least notice; with 0 the
    event has started. The answer holds the event.

    An event may also concern guests of other nodes: `elsewhere` names them, and `sets_elsewhere`
    their availability sets, whose members here see the event. `guests` may then be none.
    """

    event_id: EventId
    type: EventType
    guests: Annotated[tuple[GuestName, ...], Meta(max_length=MAX_GUESTS)]
    elsewhere: Annotated[tuple[GuestName, ...], Meta(max_length=MAX_GUESTS)] = ()
    sets_elsewhere: Annotated[tuple[SetName, ...], Meta(max_length=MAX_GUESTS)] = ()
    source: EventSource = EventSource.PLATFORM
    description: Description = ""
    notice: Annotated[float, Meta(ge=0, le=LONGEST)] | None = None
    duration: Seconds | None = None
    notice_only: bool = False


class Start(_OfEvent, frozen=True):
    """Start a scheduled event without waiting for its `not_before`."""


class Complete(_OfEvent, frozen=True):
    """End the activity of a started event."""


class Cancel(_OfEvent, frozen=True):
    """Cancel a scheduled event."""


class Approve(_OfEvent, frozen=True):
    """A guest agrees that the event may start.

    `guest` has agreed, and must be able to see the event. A responder must name it; a controller,
    which may approve anything, need not.
    """

    guest: GuestName | None = None


class Write(_Command, frozen=True):
    """A guest writes for itself, or deletes (`text` None) what it has written."""

    guest: GuestName
    name: WrittenName
    text: WrittenText | None = None


class Advance(_Command, frozen=True):
    """Move the metadata plane's clock forward; it cannot be moved back.

    Give exactly one: `seconds` is by how much, `to` is how many seconds it is ahead of the
    machine's clock afterwards (a clock that is ahead by more stays). `to` may be sent to many
    nodes, and again, and moves none of them twice.
    """

    seconds: Annotated[float, Meta(gt=0)] | None = None
    to: ClockOffset | None = None

    def __post_init__(self) -> None:
        """Raise ValueError unless one of the two is given."""
        if (self.seconds is None) == (self.to is None):
            raise ValueError("give `seconds` or `to`, and not both")


class AddFaults(_Command, frozen=True):
    """From now on the metadata service misbehaves towards these guests.

    `at` and `until` of the faults are seconds from now. The faults follow those that the guests
    have already.
    """

    guests: Names
    faults: Annotated[tuple[Fault, ...], Meta(min_length=1, max_length=MAX_FAULTS)]


class ClearFaults(_Command, frozen=True):
    """End faults: of these guests (none named: of all) those with these IDs (none named: all)."""

    guests: Annotated[tuple[GuestName, ...], Meta(max_length=MAX_GUESTS)] = ()
    ids: Annotated[tuple[FaultId, ...], Meta(max_length=MAX_GUESTS)] = ()


class Placed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A guest, the incarnation of what it can see, the number of its own changes, its faults, and
    what it has written.

    A part of messages, not a message itself.
    """

    guest: Guest
    incarnation: Count
    edits: Count = 0
    faults: Annotated[tuple[Fault, ...], Meta(max_length=MAX_FAULTS)] = ()
    written: Written = field(default_factory=dict)


class Adopt(_Command, frozen=True):
    """These guests have moved here from another node, with what that node knew.

    The guests' incarnations continue above those on either node. Active and ended events come
    along; of an event known on both nodes the version further along stays. The clock is moved
    forward to `clock_offset` if it is behind.

    `before` is of guests that are adopted again, with what the other node was told last: the faults
    that each had when it was adopted first. Those of them that the other node has no more end here.
    """

    clock_offset: ClockOffset
    guests: Annotated[tuple[Placed, ...], Meta(max_length=MAX_GUESTS)] = ()
    before: dict[GuestName, tuple[FaultId, ...]] = field(default_factory=dict)
    events: tuple[Event, ...] = ()


class Now(Tagged, frozen=True):
    """Ask for the metadata plane's time."""


class ListEvents(Tagged, frozen=True):
    """Ask for the active events, with `history` also for those that have ended."""

    history: bool = False


class ListGuests(Tagged, frozen=True):
    """Ask for the guests placed on this node."""


class ListResponders(Tagged, frozen=True):
    """Ask for the last delta that each responder process has applied."""


class ListPolls(Tagged, frozen=True):
    """Ask what a guest has recently asked and been told."""

    guest: GuestName


Transition: TypeAlias = Start | Complete | Cancel | Approve
Command: TypeAlias = (
    Place | Withdraw | Adopt | Schedule | Transition | Write | Advance | AddFaults | ClearFaults
)
Query: TypeAlias = Now | ListEvents | ListGuests | ListResponders | ListPolls
