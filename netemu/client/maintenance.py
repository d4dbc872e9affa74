"""Verbs of events and of the clock, to a running lab. Runs in the user's process.

Each is written once: `Maintenance` and `netemu.Lab` block, `AsyncMaintenance` is awaited. The lab
carries them out, at the agents of all nodes concerned: `supervisor.control.maintenance`.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from hostagent.channel.messages import Poll
from hostagent.faults import Fault
from hostagent.model import Event, EventSource, EventType
from hostagent.verb import Blocking, Verb
from netemu.errors import BadInput
from netemu.wire import event_questions, runtime_dir
from netemu.wire.control import ask
from netemu.wire.event_questions import Action
from netemu.wire.faults import planned
from netemu.wire.questions import Question

T = TypeVar("T")
Word = TypeVar("Word", EventType, EventSource)
# What can happen to guests, and who wants it.
Kind = Literal["freeze", "reboot", "redeploy", "preempt", "terminate"] | EventType
Source = Literal["platform", "user"] | EventSource
# A length of time: seconds, or a text as on the command line, "4m".
Duration = float | str


class Call(NamedTuple, Generic[T]):
    """A question to the lab, and what `read` makes of the answer."""

    question: Question[Any]
    read: Callable[[Any], T]


def just(question: Question[T]) -> Call[T]:
    """Ask the question, and return the answer as it is."""
    return Call(question, lambda answer: answer)


def schedule(
    guests: str | Iterable[str],
    kind: Kind,
    *,
    notice: Duration | None = None,
    duration: Duration | None = None,
    impact: bool = True,
    source: Source = "platform",
    description: str = "",
) -> Call[Event]:
    """Plan an event of a kind (freeze, reboot, redeploy, preempt, terminate) for guests.

    It starts in `notice` seconds (None: the least that the kind is due; 0: at once, as a hardware
    failure would), and lasts `duration` seconds (None: unknown); "4m" is a length, too. Without
    `impact` the guests are told, and nothing else happens to them. If one of several nodes refuses,
    it is taken back from the others. Raises BadInput for an unknown guest or kind.
    """
    wanted = event_questions.Schedule(
        guests=_several(guests),
        kind=_word(EventType, kind),
        notice=_seconds(notice),
        duration=_seconds(duration),
        source=_word(EventSource, source),
        description=description,
        notice_only=not impact,
    )
    return just(wanted)


def events(*, history: bool = False) -> Call[list[Event]]:
    """The events that have not ended, with `history` also the others; earliest first."""
    return just(event_questions.Planned(history))


def approve(event_id: str) -> Call[Event]:
    """Start a scheduled event as its guests would; one that has started stays so."""
    return _transition("approve", event_id)


def start(event_id: str) -> Call[Event]:
    """Start a scheduled event now."""
    return _transition("start", event_id)


def complete(event_id: str) -> Call[Event]:
    """End a started event."""
    return _transition("complete", event_id)


def cancel(event_id: str) -> Call[Event]:
    """Take back a scheduled event."""
    return _transition("cancel", event_id)


def add_fault(
    guests: str | Iterable[str],
    *,
    path: str = "*",
    method: str | Iterable[str] = (),
    at: Duration = 0.0,
    lasting: Duration | None = None,
    times: int | None = None,
    playbook: bool = False,
    status: int | None = None,
    throttle: float | str | None = None,
    stale: bool = False,
    expired: bool = False,
    clock: Duration | None = None,
    garble: bool = False,
    truncate: int | None = None,
    delay: Duration | None = None,
    reset: bool = False,
    hang: bool = False,
) -> Call[list[str]]:
    """Have the metadata service misbehave towards guests. Returns the IDs of the faults.

    A fault meets requests whose path matches `path` (as a shell's pattern) and whose method is
    given (none: any), from `at` seconds on, for `lasting` seconds, and at most `times` for each
    guest. Of several faults a request meets the first. See `hostagent.faults.Effect` for what each
    does; `playbook` adds the eight that a client has to ride out, one after another.
    """
    faults = planned(
        path=path,
        method=[method] if isinstance(method, str) else list(method),
        at=at,
        **{"for": lasting},
        times=times,
        playbook=playbook,
        status=status,
        throttle=throttle,
        stale=stale,
        expired=expired,
        clock=clock,
        garble=garble,
        truncate=truncate,
        delay=delay,
        reset=reset,
        hang=hang,
    )
    told = event_questions.AddFaults(_several(guests), faults)
    return Call(told, lambda _: [fault.id for fault in faults])


def faults() -> Call[list[tuple[str, Fault]]]:
    """The faults that are not over, each with its guest; times are of the metadata clock."""
    return Call(event_questions.Faults(), lambda known: [(one.guest, one.fault) for one in known])


def clear_faults(guests: str | Iterable[str] = (), ids: str | Iterable[str] = ()) -> Call[None]:
    """End faults: of these guests (none: of all) those with these IDs (none: all)."""
    told = event_questions.ClearFaults(_several(guests), _several(ids))
    return just(told)


def polls(guest: str) -> Call[list[Poll]]:
    """What a guest has recently asked and been told, oldest first."""
    return just(event_questions.Polls(guest))


def advance(seconds: Duration) -> Call[float]:
    """Move the metadata plane's clock forward on all nodes. Returns its time then, since 1970.

    Notices begin, events start and end, tokens expire; TCP and RFC 3927 take their time as before.
    If a node does not move its clock, the others have moved theirs: the error says which.
    """
    return just(event_questions.Advance(_seconds(seconds) or 0.0))


def now() -> Call[dict[str, float]]:
    """The metadata plane's time at each node, in seconds since 1970.

    If no node runs it is the lab's, under the name "".
    """
    return just(event_questions.Times())


class EventVerbs:
    """The verbs, as methods. All raise NetemuError."""

    schedule = Verb(schedule)
    events = Verb(events)
    approve = Verb(approve)
    start = Verb(start)
    complete = Verb(complete)
    cancel = Verb(cancel)
    add_fault = Verb(add_fault)
    faults = Verb(faults)
    clear_faults = Verb(clear_faults)
    polls = Verb(polls)
    advance = Verb(advance)


class Maintenance(EventVerbs, Blocking):
    """The events and the clock of the running lab of that name."""

    now = Verb(now)

    def __init__(self, lab: str) -> None:
        self._lab = runtime_dir.root() / lab

    def make(self, call: Call[T]) -> T:
        """Ask the lab. Returns what the call reads from the answer."""
        answer, _ = ask(self._lab, call.question)
        return call.read(answer)


def _transition(action: Action, event_id: str) -> Call[Event]:
    return just(event_questions.Transition(action, event_id))


def _several(names: str | Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _word(kind: type[Word], text: str) -> Word:
    """The member of that name, in any case of letters."""
    try:
        return kind(text.capitalize())
    except ValueError:
        known = ", ".join(one.value.lower() for one in kind)
        raise BadInput(f"{text!r}: not one of {known}") from None


def _seconds(length: Duration | None) -> float | None:
    if length is None or not isinstance(length, str):
        if length is not None and not math.isfinite(length):
            raise BadInput(f"{length} is not a length of time")
        return length
    from hostagent.times import seconds

    try:
        return seconds(length)
    except ValueError as error:
        raise BadInput(str(error)) from None
