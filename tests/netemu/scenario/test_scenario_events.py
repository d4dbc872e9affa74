"""What befalls guests by name: the published times, and how a story is played."""

from typing import Any

import pytest

from hostagent.model import Event, EventSource, EventType, Request, apply, at
from netemu.cli import scenario as command
from netemu.client.maintenance import _word
from netemu.scenario.events import STORIES, Cloud, play

ID = "6f0a13a3-dc0d-4bbe-ab24-df710a3917e6"


class Fake:
    """A lab of one event, on a clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.event: Event | None = None

    def schedule(self, guests: Any, kind: Any, **given: Any) -> Event:
        self.event = Event(
            id=ID,
            type=_word(EventType, kind),
            source=_word(EventSource, given["source"]),
            description=given["description"],
            guests=tuple(guests),
            created=self.now,
            not_before=self.now + given["notice"],
            duration=given["duration"] or 3.0,  # the lab ends those of unknown duration
        )
        return self.event

    def events(self, *, history: bool = False) -> list[Event]:
        assert self.event is not None
        return [at(self.event, self.now)]

    def cancel(self, event_id: str) -> Event:
        assert self.event is not None
        self.event = apply(self.event, Request.CANCEL, self.now)
        return self.event

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def played(name: str, cloud: Cloud = "azure", speed: float = 1.0) -> list[tuple[str, float]]:
    lab = Fake()
    told: list[tuple[str, float]] = []
    play(
        STORIES[name],
        ["web1"],
        lab,
        cloud=cloud,
        speed=speed,
        tell=lambda event: told.append((event.status, lab.now - 1000.0)),
        sleep=lab.sleep,
        clock=lambda: lab.now,
    )
    return told


@pytest.mark.parametrize(
    ("name", "cloud", "notice"),
    [
        ("live-migration", "azure", 900),
        ("host-agent-maintenance", "azure", 900),
        ("redeploy", "azure", 600),
        ("hardware-failure", "azure", 0),
        ("preemption", "azure", 30),
        ("preemption", "ec2", 120),
        ("preemption", "gce", 30),
        ("scale-in", "gce", 300),
    ],
)
def test_a_story_begins_after_its_notice(name: str, cloud: Cloud, notice: float) -> None:
    told = played(name, cloud)
    assert [status for status, _ in told][-2:] == ["Started", "Completed"]
    began = dict(told)["Started"]
    assert notice <= began < notice + 1


def test_a_cancelled_event_never_starts() -> None:
    (first, began), (last, ended) = played("cancelled")
    assert (first, began, last) == ("Scheduled", 0.0, "Cancelled")
    assert 450 <= ended < 451


def test_time_is_compressed() -> None:
    told = dict(played("retirement", "ec2", speed=14 * 86400 / 10))
    assert 10 <= told["Started"] < 11


def test_every_story_is_a_command_and_says_where_its_times_are_from() -> None:
    assert list(command._STORIES) == list(STORIES)
    for story in STORIES.values():
        assert "azure" in story.notice
        assert "." in story.source
        assert story.about.endswith(".")
