"""Events whose node changes while a feed is late: the lab forgets none that a node still has."""

from math import inf
from typing import Any, cast

import pytest

from hostagent.channel.messages import Delta, Snapshot
from hostagent.model import Event, EventSource, EventType
from netemu.supervisor.control import lab_events
from netemu.supervisor.control.agent_feeds import AgentFeeds
from netemu.supervisor.control.event_log import EventLog

EVENT = Event(
    id="00000000-0000-0000-0000-000000000001",
    type=EventType.REBOOT,
    source=EventSource.PLATFORM,
    description="",
    guests=("a",),
    created=0.0,
    not_before=0.0,
)


class Stage:
    """Two nodes, each with a feed that has told all; the event is on `old`."""

    def __init__(self) -> None:
        self.forgotten: list[Event] = []
        self.log = EventLog()
        nothing: Any = None
        self.feeds = AgentFeeds(nothing, ["old", "new"], self.log, self.forgotten.append)
        self.snapshot("old", EVENT)
        self.snapshot("new")

    def snapshot(self, node: str, *events: Event, sequence: int = 1) -> None:
        part = Snapshot(node=node, sequence=sequence, clock_offset=0.0, guests=(), events=events)
        cast(Any, self.feeds)._feeds[node].received(part)

    def delta(self, node: str, sequence: int, **news: Any) -> None:
        cast(Any, self.feeds)._feeds[node].received(Delta(sequence=sequence, **news))

    @property
    def homes(self) -> list[str]:
        return sorted(self.feeds.lab.at(EVENT.id))


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.mark.parametrize("since", [2, inf])
def test_an_event_that_has_moved_outlives_its_old_node(
    stage: Stage, since: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab_events, "MOST_GONE", 0)
    stage.feeds.adopted("new", [EVENT], since)
    stage.snapshot("old")  # it comes back as a new one
    assert (stage.homes, stage.forgotten) == (["new"], [])
    stage.delta("new", 2, events=(EVENT,))
    stage.delta("new", 3, forgotten=(EVENT.id,))
    assert (stage.homes, stage.forgotten) == ([], [EVENT])
    told = [one["status"] for one in stage.log.entries() if one["what"] == "event"]
    assert told == ["Scheduled"]  # once


def test_a_node_that_fails_and_has_forgotten_what_it_took_over_is_believed(stage: Stage) -> None:
    stage.feeds.adopted("new", [EVENT], 2)
    stage.snapshot("new")
    assert stage.homes == ["old"]


def test_what_a_feed_has_told_is_newer_than_the_answer(stage: Stage) -> None:
    """The agent took it over, and had no room for so many that have ended."""
    stage.delta("new", 2, events=(EVENT,))
    stage.delta("new", 3, forgotten=(EVENT.id,))
    stage.feeds.adopted("new", [EVENT], 3)
    assert stage.homes == ["old"]
