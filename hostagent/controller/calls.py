"""What can be asked of an agent: each call's messages, and how their answers are read. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar
from uuid import uuid4

from msgspec import Struct

from hostagent.channel import requests
from hostagent.channel.frames import FrameError
from hostagent.channel.messages import (
    Answer,
    Clock,
    Done,
    Events,
    Guests,
    Left,
    Poll,
    Polls,
    Responders,
    Welcome,
    parts,
)
from hostagent.controller.conversation import CommandRefused
from hostagent.faults import Fault
from hostagent.model import Event, EventSource, EventType, Guest
from hostagent.verb import Verb

Answers: TypeAlias = Sequence[Answer | Welcome]
"""The parts of the answer to one question."""

NONE_BEFORE: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
"""No guest is adopted again."""

T = TypeVar("T")
_Item = TypeVar("_Item", bound=Struct)


class Call(NamedTuple, Generic[T]):
    """Questions to ask one after another, and what `read` makes of all their answers.

    `questions` raises CommandRefused if no frame can carry one. It returns the same each time.
    """

    questions: Callable[[], Iterable[requests.Command | requests.Query]]
    read: Callable[[Sequence[Answers]], T]


def place(guests: Iterable[Guest], command_id: str | None = None) -> Call[int]:
    """Put guests on the node, or change those already there.

    One command, unless the guests' properties are too much for one frame: then several. Returns
    the sequence number of the change; see `responders`.
    """
    placed, name = tuple(guests), _id(command_id)
    return Call(lambda: placements(placed, name), _sequence)


def withdraw(names: Iterable[str], command_id: str | None = None) -> Call[dict[str, Left]]:
    """Take guests off the node; unknown names are ignored.

    Returns what the node last knew of each, for the node that adopts it. One command, unless there
    are more than WITHDRAWN_AT_ONCE: then several.
    """
    leaving, name = tuple(names), _id(command_id)
    return Call(lambda: withdrawals(leaving, name), _left)


def adopt(
    guests: Iterable[requests.Placed],
    events: Iterable[Event],
    clock_offset: float,
    command_id: str | None = None,
    before: Mapping[str, tuple[str, ...]] = NONE_BEFORE,
) -> Call[int]:
    """Put guests from another node on this one, with that node's events and clock.

    Their incarnations continue above their last ones. Of an event known on both nodes the
    version further along stays. The clock is moved forward to `clock_offset` seconds ahead if
    it is behind. `before` is of guests that are adopted again, with what the other node was told
    last: the IDs of the faults that they were adopted with first. One command, unless that is too
    much for one frame: then several. Returns the sequence number of the change; see `responders`.
    """
    placed, known, name = tuple(guests), tuple(events), _id(command_id)
    return Call(lambda: adoptions(placed, known, clock_offset, name, before), _sequence)


def schedule(
    guests: Iterable[str],
    event_type: EventType,
    *,
    notice: float | None = None,
    duration: float | None = None,
    source: EventSource = EventSource.PLATFORM,
    description: str = "",
    event_id: str | None = None,
    command_id: str | None = None,
    elsewhere: Iterable[str] = (),
    sets_elsewhere: Iterable[str] = (),
    notice_only: bool = False,
) -> Call[Event]:
    """Plan an event in `notice` seconds (None: the type's least notice; 0: start it now).

    `elsewhere` are guests of other nodes that it concerns, `sets_elsewhere` their availability
    sets, whose members on this node see it. `notice_only`: announce it, and do nothing to the
    guests.
    """
    command = requests.Schedule(
        command_id=_id(command_id),
        event_id=_id(event_id),
        type=event_type,
        guests=tuple(guests),
        elsewhere=tuple(elsewhere),
        sets_elsewhere=tuple(sets_elsewhere),
        source=source,
        description=description,
        notice=notice,
        duration=duration,
        notice_only=notice_only,
    )
    return _one(command, _event)


def start(event_id: str, command_id: str | None = None) -> Call[Event]:
    """Start a scheduled event at once."""
    return _move(requests.Start, event_id, command_id)


def complete(event_id: str, command_id: str | None = None) -> Call[Event]:
    """End a started event."""
    return _move(requests.Complete, event_id, command_id)


def cancel(event_id: str, command_id: str | None = None) -> Call[Event]:
    """Cancel a scheduled event."""
    return _move(requests.Cancel, event_id, command_id)


def approve(event_id: str, command_id: str | None = None) -> Call[Event]:
    """Start a scheduled event on a guest's behalf; one that has started stays so."""
    return _move(requests.Approve, event_id, command_id)


def add_faults(
    guests: Iterable[str], faults: Iterable[Fault], command_id: str | None = None
) -> Call[None]:
    """Have the metadata service misbehave towards guests.

    `at` and `until` of the faults are seconds from now. `guests` returns what is left of them.
    """
    command = requests.AddFaults(
        command_id=_id(command_id), guests=tuple(guests), faults=tuple(faults)
    )
    return _one(command, lambda _: None)


def clear_faults(
    guests: Iterable[str] = (), ids: Iterable[str] = (), command_id: str | None = None
) -> Call[None]:
    """End faults: of these guests (none: of all) those with these IDs (none: all)."""
    command = requests.ClearFaults(command_id=_id(command_id), guests=tuple(guests), ids=tuple(ids))
    return _one(command, lambda _: None)


def advance(seconds: float, command_id: str | None = None) -> Call[float]:
    """Move the metadata plane's clock forward; returns its time then, epoch seconds."""
    command = requests.Advance(command_id=_id(command_id), seconds=seconds)
    return _one(command, lambda answers: _done(answers).now)


def advance_to(clock_offset: float, command_id: str | None = None) -> Call[float]:
    """Set the clock `clock_offset` seconds ahead of the machine's, unless it is ahead by more.

    Returns its time then. Unlike `advance`, it may be repeated, and sent to many nodes.
    """
    command = requests.Advance(command_id=_id(command_id), to=clock_offset)
    return _one(command, lambda answers: _done(answers).now)


def now() -> Call[Clock]:
    """Return the metadata plane's time, and how far it is ahead of the machine's."""
    return _one(requests.Now(), lambda answers: _only(answers, Clock))


def events(*, history: bool = False) -> Call[tuple[Event, ...]]:
    """Return the events that have not ended, with `history` also those that have."""
    return _one(
        requests.ListEvents(history=history),
        lambda parts: tuple(
            event for part in parts if isinstance(part, Events) for event in part.events
        ),
    )


def guests() -> Call[tuple[requests.Placed, ...]]:
    """Return the guests on the node with their incarnations."""
    return _one(
        requests.ListGuests(),
        lambda parts: tuple(
            guest for part in parts if isinstance(part, Guests) for guest in part.guests
        ),
    )


def responders() -> Call[Responders]:
    """Return the last sequence number of the agent and of each connected responder process.

    A guest that boots on a node where it was before may get old answers until every responder
    of the node has applied the sequence that `adopt` or `place` returned.
    """
    return _one(requests.ListResponders(), lambda answers: _only(answers, Responders))


def polls(guest: str) -> Call[tuple[Poll, ...]]:
    """Return what the guest has recently asked and been told, oldest first."""
    return _one(requests.ListPolls(guest=guest), lambda answers: _only(answers, Polls).polls)


class Verbs:
    """The calls, as methods of a controller."""

    place = Verb(place)
    withdraw = Verb(withdraw)
    adopt = Verb(adopt)
    schedule = Verb(schedule)
    start = Verb(start)
    complete = Verb(complete)
    cancel = Verb(cancel)
    approve = Verb(approve)
    add_faults = Verb(add_faults)
    clear_faults = Verb(clear_faults)
    advance = Verb(advance)
    advance_to = Verb(advance_to)
    now = Verb(now)
    events = Verb(events)
    guests = Verb(guests)
    responders = Verb(responders)
    polls = Verb(polls)


def placements(guests: Iterable[Guest], name: str) -> Iterator[requests.Place]:
    """Return the commands that place the guests: one, or several if they do not fit a frame.

    Each is all or nothing. The first has the id `name`, the others one derived from it.
    """
    for number, part in enumerate(_parts(guests)):
        if part or number == 0:
            yield requests.Place(command_id=f"{name}.{number}" if number else name, guests=part)


def adoptions(
    guests: Iterable[requests.Placed],
    events: Iterable[Event],
    clock_offset: float,
    name: str,
    before: Mapping[str, tuple[str, ...]] = NONE_BEFORE,
) -> Iterator[requests.Adopt]:
    """Return the commands that move guests here, like `placements`.

    The events come first, so that no guest is here without them.
    """
    for number, part in enumerate(_parts([*events, *guests])):
        if part or number == 0:
            placed = tuple(one for one in part if isinstance(one, requests.Placed))
            names = {one.guest.name for one in placed}
            yield requests.Adopt(
                command_id=f"{name}.{number}" if number else name,
                clock_offset=clock_offset,
                guests=placed,
                events=tuple(one for one in part if isinstance(one, Event)),
                before={guest: ids for guest, ids in before.items() if guest in names},
            )


def withdrawals(names: Sequence[str], name: str) -> Iterator[requests.Withdraw]:
    """Return the commands that withdraw the guests, like `placements`; none for none."""
    for first in range(0, len(names), requests.WITHDRAWN_AT_ONCE):
        part = tuple(names[first : first + requests.WITHDRAWN_AT_ONCE])
        yield requests.Withdraw(command_id=f"{name}.{first}" if first else name, names=part)


def _left(answers: Sequence[Answers]) -> dict[str, Left]:
    return {name: left for one in answers for name, left in _done(one).left.items()}


def _parts(items: Iterable[_Item]) -> Iterator[tuple[_Item, ...]]:
    """Cut items into parts that each fit a frame; raises CommandRefused if an item does not."""
    try:
        yield from parts(items)
    except FrameError as error:
        raise CommandRefused("bad-frame", str(error)) from error


def _id(given: str | None) -> str:
    return str(uuid4()) if given is None else given


def _move(kind: type[requests.Transition], event_id: str, command_id: str | None) -> Call[Event]:
    return _one(kind(command_id=_id(command_id), event_id=event_id), _event)


def _one(question: requests.Command | requests.Query, read: Callable[[Answers], T]) -> Call[T]:
    return Call(lambda: (question,), lambda answers: read(answers[0]))


def _only(answers: Answers, kind: type[T]) -> T:
    (answer,) = answers
    assert isinstance(answer, kind)
    return answer


def _done(answers: Answers) -> Done:
    return _only(answers, Done)


def _event(answers: Answers) -> Event:
    event = _done(answers).event
    assert event is not None
    return event


def _sequence(answers: Sequence[Answers]) -> int:
    return _done(answers[-1]).sequence
