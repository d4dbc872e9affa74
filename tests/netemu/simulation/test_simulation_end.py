"""A run is judged once events are over: a guest that has just booted is not stuck."""

from types import SimpleNamespace
from typing import Any

import pytest

from hostagent.model import Event, EventSource, EventStatus, EventType
from netemu.simulation.checkers import COMES_BACK, LIVELY_WITHIN, OneClock
from netemu.simulation.faults import Faults
from netemu.simulation.loop import Loop
from netemu.simulation.run import events_over
from netemu.simulation.stand_ins import Clock
from netemu.supervisor.guests.power import READING

BEGAN = 1_800_000_000.0


def event(kind: EventType, started: float | None, *, notice: float = 0.0, **more: Any) -> Event:
    """One that has started at BEGAN + `started`, that much earlier than its time."""
    return Event(
        id="e",
        type=kind,
        source=EventSource.PLATFORM,
        description="",
        guests=("a",),
        created=BEGAN - 100.0,
        not_before=BEGAN + (100.0 if started is None else started + notice),
        started=None if started is None else BEGAN + started,
        status=EventStatus.SCHEDULED if started is None else EventStatus.STARTED,
        **more,
    )


def waited(*events: Event) -> float:
    """Virtual seconds until the run is judged."""
    loop = Loop()
    began = loop.time()
    feeds: Any = SimpleNamespace(
        now=lambda: BEGAN + loop.time() - began, events=lambda: dict(enumerate(events))
    )
    loop.run_until_complete(events_over(feeds))
    return loop.time() - began


@pytest.mark.parametrize(
    ("last", "seconds"),
    [
        # It demands nothing once the guest boots, and the guest has to claim its address yet.
        (event(EventType.REBOOT, -0.3), COMES_BACK),
        (event(EventType.REDEPLOY, -0.3), COMES_BACK),
        (event(EventType.FREEZE, -0.3), 5.0 + COMES_BACK),
        (event(EventType.FREEZE, -0.3, duration=2.0), 2.0 + COMES_BACK),
        # One that is approved takes effect a moment later.
        (event(EventType.REBOOT, -0.3, notice=60.0), READING + COMES_BACK),
    ],
)
def test_guests_come_back_from_the_last_event(last: Event, seconds: float) -> None:
    assert seconds - 0.3 <= waited(last) <= seconds + 1.0


def test_what_does_nothing_to_a_guest_is_not_waited_for() -> None:
    announced = event(EventType.REBOOT, -0.3, notice_only=True)
    long_past = event(EventType.REBOOT, -COMES_BACK - 1.0)
    to_come = event(EventType.REBOOT, None)
    assert waited(announced, long_past, to_come) == 0.0


def test_an_event_without_end_is_not_waited_for_forever() -> None:
    assert waited(event(EventType.TERMINATE, -0.3)) == LIVELY_WITHIN


def test_a_clock_that_is_set_back_twice_moves_the_agents_on_twice() -> None:
    wall = Clock(Loop())
    for step in (-27.0, 20.0, -28.0):
        wall.set(step)
    host = SimpleNamespace(name="n1", opened=SimpleNamespace(clock_offset=55.0))
    cluster: Any = SimpleNamespace(wall=wall, hosts={"n1": host}, loop=Loop())
    checker = OneClock(cluster)
    checker.end()
    assert checker.breaches == []
    host.opened.clock_offset = 57.0
    checker.end()
    assert checker.breaches


def test_the_time_is_noted_before_the_clock_is_set_back() -> None:
    done: list[str] = []
    wall = SimpleNamespace(set=lambda _step: done.append("set"))
    latest = lambda: done.append("noted")  # noqa: E731
    cluster: Any = SimpleNamespace(loop=Loop(), wall=wall, latest=latest, on_shut_down=[])
    Faults(cluster, [], 1)._set_clock()
    assert done == ["noted", "set"]
