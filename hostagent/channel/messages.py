"""The typed message set. VERSION changes when a peer of the other version would misread a message.

Command connections: Hello → Welcome. Then each request is answered in order by Done or Failed; a
query by Clock, Responders, Polls, or parts of Events or Guests (`more`: another part follows).

Feed connections: Hello → Welcome, then a snapshot (in parts, `more`), then deltas whose sequence
numbers follow on from the snapshot's without a gap, and heartbeats that carry the latest number. A
subscriber that finds a gap connects again. A watcher may send nothing. A responder may send
Applied, with the last sequence that it has applied, and Used, with a fault's count, which are not
answered; Polls, in answer to AskPolls; and Approve and Write for a guest, at a bounded rate. Done
or Failed answers these, after the delta with its effect. One that is sent again with the same
command_id, on any connection, is done once.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar, get_args

import msgspec
from msgspec import Meta, Struct, field

from hostagent.channel.frames import pack
from hostagent.channel.requests import (
    Command,
    CommandId,
    Count,
    Placed,
    Query,
    Tagged,
)
from hostagent.faults import MAX_FAULTS, Fault, FaultId
from hostagent.model import (
    Event,
    EventId,
    GuestName,
)

VERSION: Final = 7

PART_BYTES: Final = 256 * 1024
"""Lists and snapshots are cut into parts of about this size: far from MAX_FRAME even when the item
that tips it over is an event with a thousand guests, and still few parts."""

HEARTBEAT_INTERVAL: Final = 2.0
"""Seconds. A responder tolerates several missing ones. A heartbeat is 30 bytes."""

Sequence = Annotated[int, Meta(ge=0)]
Role = Literal["controller", "responder", "watcher"]
"""The latter two are for the feed; a watcher only reads."""


class MessageError(Exception):
    """A frame's map is not a message of this set; the text says where it is wrong."""


class Hello(Tagged, frozen=True):
    """The first message of every connection, from the side that connected."""

    version: int
    role: Role


class Welcome(Tagged, frozen=True):
    """The agent's answer to Hello."""

    version: int
    node: str


class Left(Struct, frozen=True, array_like=True):
    """What a node knew last of a guest that was withdrawn. A part of messages."""

    incarnation: Count
    edits: Count
    faults: Annotated[tuple[Fault, ...], Meta(max_length=MAX_FAULTS)] = ()


class Done(Tagged, frozen=True):
    """The command is stored. `now` is the metadata plane's time at which it was applied.

    `sequence` is the number of the last delta then: a responder that has applied it knows the
    command's effect. `left` is of each guest withdrawn.
    """

    command_id: CommandId
    now: float
    sequence: Sequence = 0
    event: Event | None = None
    left: dict[GuestName, Left] = field(default_factory=dict)


class Failed(Tagged, frozen=True):
    """The command was refused and changed nothing; `command_id` None: it was the connection."""

    code: str
    reason: str
    command_id: CommandId | None = None


class Clock(Tagged, frozen=True):
    """The metadata plane's time, and how far it is ahead of the machine's; in seconds."""

    now: float
    clock_offset: float


class Events(Tagged, frozen=True):
    """A part of the answer to ListEvents."""

    events: tuple[Event, ...]
    more: bool = False


class Guests(Tagged, frozen=True):
    """A part of the answer to ListGuests."""

    guests: tuple[Placed, ...]
    more: bool = False


class Responders(Tagged, frozen=True):
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


class AskPolls(Tagged, frozen=True):
    """To each responder: what has the guest asked? It answers Polls with the same number."""

    number: int
    guest: GuestName


class Polls(Tagged, frozen=True):
    """What a guest has asked: one responder's rows, or in the answer to ListPolls all."""

    number: int = 0
    polls: tuple[Poll, ...] = ()


class Applied(Tagged, frozen=True):
    """A responder has applied the delta `sequence`."""

    sequence: Sequence


class Used(Tagged, frozen=True):
    """From a responder: a fault of a guest has met so many requests in all. It is not answered."""

    guest: GuestName
    fault_id: FaultId
    used: Annotated[int, Meta(ge=0)]


class Snapshot(Tagged, frozen=True):
    """A part of all that is known, as of `sequence`."""

    sequence: Sequence
    node: str
    clock_offset: float
    guests: tuple[Placed, ...] = ()
    events: tuple[Event, ...] = ()
    more: bool = False


class Delta(Tagged, frozen=True):
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
    incarnations: dict[GuestName, int] = field(default_factory=dict)
    clock_offset: float | None = None


class Heartbeat(Tagged, frozen=True):
    """Nothing has changed since `sequence`, and the agent is alive."""

    sequence: Sequence


Answer: TypeAlias = Done | Failed | Clock | Events | Guests | Responders | Polls
Feed: TypeAlias = Snapshot | Delta | Heartbeat
"""What a feed sends about the node. Its other messages concern the connection or an approval."""
Message: TypeAlias = Hello | Welcome | Command | Query | Answer | Applied | Used | AskPolls | Feed


_KINDS: Final[dict[str, type[Tagged]]] = {kind.__name__.lower(): kind for kind in get_args(Message)}


def encode(message: Message) -> bytes:
    """Return the message's frame; raises FrameError if it is too long."""
    return pack(msgspec.to_builtins(message))


def decode(obj: dict[str, Any]) -> Message:
    """Return the message that a frame's map holds; raises MessageError with the path at fault."""
    # By its name, where it has one: to find the kind in the union takes msgspec 300 times as long.
    name = obj.get("message")
    kind: Any = _KINDS.get(name, Message) if isinstance(name, str) else Message
    try:
        message: Message = msgspec.convert(obj, kind)
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
