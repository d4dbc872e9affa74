"""The typed message set. VERSION changes when a peer of the other version would misread a message.

Command connections: Hello → Welcome. Then each request is answered in order by Done or Failed; a
query by Clock, Responders, Polls, or parts of Events or Guests (`more`: another part follows).

Feed connections: Hello → Welcome, then a snapshot (in parts, `more`), then deltas whose sequence
numbers follow on from the snapshot's without a gap, and heartbeats that carry the latest number. A
subscriber that finds a gap connects again. A watcher may send nothing. A responder may send
Applied, with the last sequence that it has applied, and Used, with a fault's count, which are not
answered; Polls, in answer to AskPolls; and Approve for a guest, at a bounded rate. Done or Failed
answers an Approve, after the delta with its effect. An Approve sent again with the same command_id,
on any connection, is done once.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct

from hostagent.channel.frames import pack
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

VERSION: Final = 6

PART_BYTES: Final = 256 * 1024
"""Lists and snapshots are cut into parts of about this size: far from MAX_FRAME even when the item
that tips it over is an event with a thousand guests, and still few parts."""

HEARTBEAT_INTERVAL: Final = 2.0
"""Seconds. A responder tolerates several missing ones. A heartbeat is 30 bytes."""

CommandId = Annotated[str, Meta(min_length=1, max_length=64)]
Names = Annotated[tuple[GuestName, ...], Meta(min_length=1, max_length=MAX_GUESTS)]
Count = Annotated[int, Meta(ge=0, lt=1 << 62)]  # SQLite's integers have 64 bits
Sequence = Annotated[int, Meta(ge=0)]
ClockOffset = Annotated[float, Meta(ge=0)]  # the agent refuses more than MAX_CLOCK_OFFSET
Role = Literal["controller", "responder", "watcher"]
"""The latter two are for the feed; a watcher only reads."""


class MessageError(Exception):
    """A frame's map is not a message of this set; the text says where it is wrong."""


class _Base(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="message",
    tag=str.lower,
):
    """A message: a map whose member `message` is the type's name in lower case."""


class Hello(_Base, frozen=True):
    """The first message of every connection, from the side that connected."""

    version: int
    role: Role


class Welcome(_Base, frozen=True):
    """The agent's answer to Hello."""

    version: int
    node: str


class Place(_Base, frozen=True):
    """These guests are on this node now; a guest already placed is updated."""

    command_id: CommandId
    guests: Annotated[tuple[Guest, ...], Meta(min_length=1, max_length=MAX_GUESTS)]


WITHDRAWN_AT_ONCE: Final = 16
"""Guests that one command withdraws: its answer fits a frame, whatever faults they have."""


class Withdraw(_Base, frozen=True):
    """These guests are no longer on this node."""

    command_id: CommandId
    names: Annotated[tuple[GuestName, ...], Meta(min_length=1, max_length=WITHDRAWN_AT_ONCE)]


class Schedule(_Base, frozen=True):
    """Plan an event. The agent stamps it with its own clock, which may have been advanced.

    `notice` is the seconds until `not_before`, or None for the type's least notice; with 0 the
    event has started. The answer holds the event.

    An event may also concern guests of other nodes: `elsewhere` names them, and `sets_elsewhere`
    their availability sets, whose members here see the event. `guests` may then be none.
    """

    command_id: CommandId
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


class Start(_Base, frozen=True):
    """Start a scheduled event without waiting for its `not_before`."""

    command_id: CommandId
    event_id: EventId


class Complete(_Base, frozen=True):
    """End the activity of a started event."""

    command_id: CommandId
    event_id: EventId


class Cancel(_Base, frozen=True):
    """Cancel a scheduled event."""

    command_id: CommandId
    event_id: EventId


class Approve(_Base, frozen=True):
    """A guest agrees that the event may start.

    `guest` has agreed, and must be able to see the event. A responder must name it; a controller,
    which may approve anything, need not.
    """

    command_id: CommandId
    event_id: EventId
    guest: GuestName | None = None


class Advance(_Base, frozen=True):
    """Move the metadata plane's clock forward; it cannot be moved back.

    Give exactly one: `seconds` is by how much, `to` is how many seconds it is ahead of the
    machine's clock afterwards (a clock that is ahead by more stays). `to` may be sent to many
    nodes, and again, and moves none of them twice.
    """

    command_id: CommandId
    seconds: Annotated[float, Meta(gt=0)] | None = None
    to: ClockOffset | None = None

    def __post_init__(self) -> None:
        """Raise ValueError unless one of the two is given."""
        if (self.seconds is None) == (self.to is None):
            raise ValueError("give `seconds` or `to`, and not both")


class AddFaults(_Base, frozen=True):
    """From now on the metadata service misbehaves towards these guests.

    `at` and `until` of the faults are seconds from now. The faults follow those that the guests
    have already.
    """

    command_id: CommandId
    guests: Names
    faults: Annotated[tuple[Fault, ...], Meta(min_length=1, max_length=MAX_FAULTS)]


class ClearFaults(_Base, frozen=True):
    """End faults: of these guests (none named: of all) those with these IDs (none named: all)."""

    command_id: CommandId
    guests: Annotated[tuple[GuestName, ...], Meta(max_length=MAX_GUESTS)] = ()
    ids: Annotated[tuple[FaultId, ...], Meta(max_length=MAX_GUESTS)] = ()


class Placed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A guest, the incarnation of what it can see, the number of its own changes, and its faults.

    A part of messages, not a message itself.
    """

    guest: Guest
    incarnation: Count
    edits: Count = 0
    faults: Annotated[tuple[Fault, ...], Meta(max_length=MAX_FAULTS)] = ()


class Adopt(_Base, frozen=True):
    """These guests have moved here from another node, with what that node knew.

    The guests' incarnations continue above those on either node. Active and ended events come
    along; of an event known on both nodes the version further along stays. The clock is moved
    forward to `clock_offset` if it is behind.

    `before` is of guests that are adopted again, with what the other node was told last: the faults
    that each had when it was adopted first. Those of them that the other node has no more end here.
    """

    command_id: CommandId
    clock_offset: ClockOffset
    guests: Annotated[tuple[Placed, ...], Meta(max_length=MAX_GUESTS)] = ()
    before: dict[GuestName, tuple[FaultId, ...]] = {}
    events: tuple[Event, ...] = ()


class Now(_Base, frozen=True):
    """Ask for the metadata plane's time."""


class ListEvents(_Base, frozen=True):
    """Ask for the active events, with `history` also for those that have ended."""

    history: bool = False


class ListGuests(_Base, frozen=True):
    """Ask for the guests placed on this node."""


class ListResponders(_Base, frozen=True):
    """Ask for the last delta that each responder process has applied."""


class ListPolls(_Base, frozen=True):
    """Ask what a guest has asked, and been told, of late."""

    guest: GuestName


class Left(Struct, frozen=True, array_like=True):
    """What a node knew last of a guest that was withdrawn. A part of messages."""

    incarnation: Count
    edits: Count
    faults: Annotated[tuple[Fault, ...], Meta(max_length=MAX_FAULTS)] = ()


class Done(_Base, frozen=True):
    """The command is stored. `now` is the metadata plane's time at which it was applied.

    `sequence` is the number of the last delta then: a responder that has applied it knows the
    command's effect. `left` is of each guest withdrawn.
    """

    command_id: CommandId
    now: float
    sequence: Sequence = 0
    event: Event | None = None
    left: dict[GuestName, Left] = {}


class Failed(_Base, frozen=True):
    """The command was refused and changed nothing; `command_id` None: it was the connection."""

    code: str
    reason: str
    command_id: CommandId | None = None


class Clock(_Base, frozen=True):
    """The metadata plane's time, and how far it is ahead of the machine's; in seconds."""

    now: float
    clock_offset: float


class Events(_Base, frozen=True):
    """A part of the answer to ListEvents."""

    events: tuple[Event, ...]
    more: bool = False


class Guests(_Base, frozen=True):
    """A part of the answer to ListGuests."""

    guests: tuple[Placed, ...]
    more: bool = False


class Responders(_Base, frozen=True):
    """The number of the last delta, and of the last that each responder process has applied.

    A responder that is not connected is not listed; it may still answer from older knowledge.
    """

    sequence: Sequence
    applied: tuple[Sequence, ...] = ()


MAX_TOLD: Final = 16
"""Events that a row names at most."""


class Poll(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Equal answers of one second: a row of what a guest has asked. A part of messages.

    `at` is the first one's time, metadata plane's. `status` 0: there was no answer. `told`: the IDs
    of the events that it tells of, MAX_TOLD at most. `fault`: the ID of the fault that it met.
    """

    at: float
    method: str
    target: str
    status: int
    told: tuple[str, ...] = ()
    fault: str | None = None
    count: int = 1


class AskPolls(_Base, frozen=True):
    """To each responder: what has the guest asked? It answers Polls with the same number."""

    number: int
    guest: GuestName


class Polls(_Base, frozen=True):
    """What a guest has asked: one responder's rows, or in the answer to ListPolls all."""

    number: int = 0
    polls: tuple[Poll, ...] = ()


class Applied(_Base, frozen=True):
    """A responder has applied the delta `sequence`."""

    sequence: Sequence


class Used(_Base, frozen=True):
    """From a responder: a fault of a guest has met so many requests in all. It is not answered."""

    guest: GuestName
    fault_id: FaultId
    used: Annotated[int, Meta(ge=0)]


class Snapshot(_Base, frozen=True):
    """A part of all that is known, as of `sequence`."""

    sequence: Sequence
    node: str
    clock_offset: float
    guests: tuple[Placed, ...] = ()
    events: tuple[Event, ...] = ()
    more: bool = False


class Delta(_Base, frozen=True):
    """One change.

    `placed`: new or changed guests; `withdrawn`: names of guests that left; `events`: new or
    changed ones, including those that have ended; `forgotten`: ids of ended events that are no
    longer kept; `incarnations`: of the guests that can see the change; `clock_offset`: if it has
    changed.
    """

    sequence: Sequence
    placed: tuple[Placed, ...] = ()
    withdrawn: tuple[GuestName, ...] = ()
    events: tuple[Event, ...] = ()
    forgotten: tuple[EventId, ...] = ()
    incarnations: dict[GuestName, int] = {}
    clock_offset: float | None = None


class Heartbeat(_Base, frozen=True):
    """Nothing has changed since `sequence`, and the agent is alive."""

    sequence: Sequence


Transition: TypeAlias = Start | Complete | Cancel | Approve
Command: TypeAlias = (
    Place | Withdraw | Adopt | Schedule | Transition | Advance | AddFaults | ClearFaults
)
Query: TypeAlias = Now | ListEvents | ListGuests | ListResponders | ListPolls
Answer: TypeAlias = Done | Failed | Clock | Events | Guests | Responders | Polls
Feed: TypeAlias = Snapshot | Delta | Heartbeat
"""What a feed sends about the node. Its other messages concern the connection or an approval."""
Message: TypeAlias = Hello | Welcome | Command | Query | Answer | Applied | Used | AskPolls | Feed


def encode(message: Message) -> bytes:
    """Return the message's frame; raises FrameError if it is too long."""
    return pack(msgspec.to_builtins(message))


def decode(obj: dict[str, Any]) -> Message:
    """Return the message that a frame's map holds; raises MessageError with the path at fault."""
    try:
        message: Message = msgspec.convert(obj, Message)
    except msgspec.ValidationError as error:
        raise MessageError(str(error)) from error
    return message


_Item = TypeVar("_Item", bound=Struct)


def parts(items: Iterable[_Item]) -> Iterator[tuple[_Item, ...]]:
    """Cut a list into parts that each encode to about PART_BYTES; an empty list is one part."""
    part: list[_Item] = []
    size = 0
    for item in items:
        part.append(item)
        size += len(pack(msgspec.to_builtins(item)))
        if size >= PART_BYTES:
            yield tuple(part)
            part, size = [], 0
    yield tuple(part)


def snapshot(
    *,
    sequence: int,
    node: str,
    clock_offset: float,
    guests: Iterable[Placed],
    events: Iterable[Event],
) -> Iterator[Snapshot]:
    """Return the parts of a snapshot, the guests before the events that they can see."""
    for placed in parts(guests):
        yield Snapshot(
            sequence=sequence, node=node, clock_offset=clock_offset, guests=placed, more=True
        )
    last: tuple[Event, ...] | None = None
    for part in parts(events):
        if last is not None:
            yield Snapshot(
                sequence=sequence, node=node, clock_offset=clock_offset, events=last, more=True
            )
        last = part
    yield Snapshot(sequence=sequence, node=node, clock_offset=clock_offset, events=last or ())
