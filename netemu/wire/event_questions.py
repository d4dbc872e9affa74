"""Questions to a lab's control socket about events, faults and the metadata plane's clock."""

from typing import Literal

from msgspec import Struct

from hostagent.channel.messages import Poll
from hostagent.faults import Fault
from hostagent.model import Event, EventSource, EventType
from netemu.wire.questions import Question

Action = Literal["approve", "start", "complete", "cancel"]


class Schedule(Question[Event], tag="schedule"):
    """Plan an event in `notice` seconds (None: the least of its kind), of `duration` seconds.

    `notice_only`: tell the guests, and do nothing to them.
    """

    guests: list[str]
    kind: EventType
    notice: float | None
    duration: float | None
    source: EventSource
    description: str
    notice_only: bool


class Transition(Question[Event], tag="transition"):
    """Move an event on."""

    action: Action
    event_id: str


class Planned(Question[list[Event]], tag="planned"):
    """The events that have not ended; with `history` all."""

    history: bool


class AddFaults(Question[None], tag="add_faults"):
    """Have the metadata service misbehave towards these guests."""

    guests: list[str]
    faults: list[Fault]


class ClearFaults(Question[None], tag="clear_faults"):
    """End faults: of these guests (none: of all) those with these IDs (none: all)."""

    guests: list[str]
    ids: list[str]


class FaultOfGuest(Struct):
    """A fault that is not over, with times of the metadata clock."""

    guest: str
    fault: Fault


class Faults(Question[list[FaultOfGuest]], tag="faults"):
    """The faults that are not over."""


class Polls(Question[list[Poll]], tag="polls"):
    """What a guest has asked the metadata service."""

    guest: str


class Advance(Question[float], tag="advance"):
    """Move the metadata plane's clock forward; answered with its time then."""

    seconds: float


class Times(Question[dict[str, float]], tag="times"):
    """The metadata plane's time, by node."""
