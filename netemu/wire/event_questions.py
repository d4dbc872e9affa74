"""Questions to a lab's control socket about events, faults and the metadata plane's clock."""

from typing import Literal

from hostagent.faults import Fault
from hostagent.model import EventSource, EventType
from netemu.wire.questions import Question

Action = Literal["approve", "start", "complete", "cancel"]


class Schedule(Question, tag="schedule"):
    """Plan an event; times are in seconds, None as in `netemu.client.maintenance.schedule`."""

    guests: list[str]
    kind: EventType
    notice: float | None
    duration: float | None
    source: EventSource
    description: str
    notice_only: bool


class Transition(Question, tag="transition"):
    """Move an event on."""

    action: Action
    event_id: str


class Planned(Question, tag="planned"):
    """The events that have not ended; with `history` all."""

    history: bool


class AddFaults(Question, tag="add_faults"):
    """Have the metadata service misbehave towards these guests."""

    guests: list[str]
    faults: list[Fault]


class ClearFaults(Question, tag="clear_faults"):
    """End faults: of these guests (none: of all) those with these IDs (none: all)."""

    guests: list[str]
    ids: list[str]


class Faults(Question, tag="faults"):
    """The faults that are not over."""


class Polls(Question, tag="polls"):
    """What a guest has asked the metadata service."""

    guest: str


class Advance(Question, tag="advance"):
    """Move the metadata plane's clock forward."""

    seconds: float


class Times(Question, tag="times"):
    """The metadata plane's time, by node."""
