"""What events do to a guest's power: the table, and every way through it."""

from itertools import pairwise
from math import inf

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.model import Event, EventSource, EventStatus, EventType
from netemu.supervisor.guests.power import (
    DEMANDS,
    HOLDS,
    LINGERS,
    SEVERITY,
    TRANSITIONS,
    Action,
    Power,
    demand,
    demands_until,
    held_back,
    plan,
    severest,
)

# What each action takes a guest from, and brings it to.
EFFECTS = {
    Action.FREEZE: ({Power.RUNNING}, Power.FROZEN),
    Action.THAW: ({Power.FROZEN}, Power.RUNNING),
    Action.SHUT_DOWN: ({Power.RUNNING, Power.FROZEN}, Power.OFF),
    Action.BOOT: ({Power.OFF}, Power.RUNNING),
    Action.REMOVE: ({Power.OFF}, Power.GONE),
    Action.MOVE: ({Power.OFF}, Power.OFF),
}
powers = st.sampled_from(Power)
kinds = st.lists(st.sampled_from(EventType), max_size=6)


def passed(power: Power, actions: list[Action]) -> list[Power]:
    """The states that a guest passes through; each action finds it in one that allows it."""
    states = [power]
    for action in actions:
        allowed, after = EFFECTS[action]
        assert states[-1] in allowed, f"{action} while {states[-1]}"
        states.append(after)
    return states


def event(
    kind: EventType,
    *,
    started: float | None = 100.0,
    duration: float | None = None,
    status: EventStatus = EventStatus.STARTED,
    notice_only: bool = False,
) -> Event:
    return Event(
        id="00000000-0000-0000-0000-000000000001",
        type=kind,
        source=EventSource.PLATFORM,
        description="",
        guests=("a",),
        created=0.0,
        not_before=100.0,
        duration=duration,
        status=status,
        started=started,
        notice_only=notice_only,
    )


def test_who_approves_has_a_moment_to_read_the_answer() -> None:
    """An event that starts before its time has its effect a second later, and lasts as long."""
    approved = msgspec.structs.replace(event(EventType.FREEZE, duration=5.0), not_before=400.0)
    seen = [demand(approved, now) for now in (100.0, 100.9, 101.0, 105.9, 106.0)]
    frozen = [Power.RUNNING, Power.RUNNING, Power.FROZEN, Power.FROZEN, Power.RUNNING]
    assert seen == frozen
    assert [held_back(approved, now) for now in (100.0, 100.9, 101.0)] == [True, True, False]
    # Somebody has set the clock back: it begins at once, and not in an hour.
    assert demand(approved, 99.0) is Power.FROZEN
    due = event(EventType.FREEZE)
    assert not held_back(due, 100.0)
    assert demand(due, 100.0) is Power.FROZEN


def test_the_table_is_complete() -> None:
    ways = {(before, after) for before in Power for after in Power if before is not after}
    assert set(TRANSITIONS) == {way for way in ways if way[0] is not Power.GONE}
    for (before, after), actions in TRANSITIONS.items():
        states = passed(before, list(actions))
        assert states[-1] is after
        assert len(set(states)) == len(states)  # no detour


def test_every_type_of_event_has_its_row() -> None:
    for table in (DEMANDS, HOLDS, LINGERS):
        assert set(table) == set(EventType)
    assert sorted(Power, key=SEVERITY.__getitem__) == [
        Power.RUNNING,
        Power.FROZEN,
        Power.OFF,
        Power.GONE,
    ]


@given(powers, kinds, powers)
def test_every_plan_ends_where_it_has_to(
    power: Power, begun: list[EventType], wanted: Power
) -> None:
    last = passed(power, plan(power, begun, wanted))[-1]
    gone = power is Power.GONE or any(DEMANDS[kind] is Power.GONE for kind in begun)
    assert last is (Power.GONE if gone else wanted)


@given(powers, kinds, powers)
def test_a_guest_boots_once_at_most_and_only_when_it_is_wanted(
    power: Power, begun: list[EventType], wanted: Power
) -> None:
    actions = plan(power, begun, wanted)
    assert actions.count(Action.BOOT) <= 1
    if Action.BOOT in actions:
        assert SEVERITY[wanted] < SEVERITY[Power.OFF]
        assert set(actions[actions.index(Action.BOOT) + 1 :]) <= {Action.FREEZE}
    assert actions.count(Action.SHUT_DOWN) <= 1


@given(powers, kinds, powers)
def test_each_event_that_has_begun_is_carried_out(
    power: Power, begun: list[EventType], wanted: Power
) -> None:
    states = passed(power, plan(power, begun, wanted))
    worst = max((SEVERITY[state] for state in states), default=0)
    for kind in begun:
        assert worst >= SEVERITY[DEMANDS[kind]]


@given(powers, kinds, powers)
def test_a_guest_moves_once_for_each_redeploy_and_only_while_it_is_off(
    power: Power, begun: list[EventType], wanted: Power
) -> None:
    actions = plan(power, begun, wanted)
    until = next(
        (place for place, kind in enumerate(begun) if DEMANDS[kind] is Power.GONE), len(begun)
    )
    expected = 0 if power is Power.GONE else begun[:until].count(EventType.REDEPLOY)
    assert actions.count(Action.MOVE) == expected
    # `passed` has seen that it is off then; and it has been moved before it boots.
    passed(power, actions)
    assert (Action.BOOT, Action.MOVE) not in set(pairwise(actions))


@pytest.mark.parametrize(
    ("power", "begun", "wanted", "actions"),
    [
        ("running", ["Reboot"], "running", ["shut-down", "boot"]),
        ("running", ["Reboot"], "off", ["shut-down"]),
        ("off", [], "running", ["boot"]),
        ("running", ["Freeze"], "frozen", ["freeze"]),
        ("running", ["Freeze"], "running", ["freeze", "thaw"]),
        ("frozen", ["Reboot"], "frozen", ["shut-down", "boot", "freeze"]),
        ("off", ["Freeze"], "running", ["boot"]),
        ("running", ["Redeploy"], "running", ["shut-down", "move", "boot"]),
        ("off", ["Redeploy"], "off", ["move"]),
        ("running", ["Preempt"], "gone", ["shut-down", "remove"]),
        ("running", ["Preempt", "Redeploy"], "gone", ["shut-down", "remove"]),
        ("gone", ["Reboot", "Redeploy"], "running", []),
        ("running", ["Reboot", "Reboot"], "running", ["shut-down", "boot"]),
    ],
)
def test_the_plans_that_matter(
    power: str, begun: list[str], wanted: str, actions: list[str]
) -> None:
    assert plan(Power(power), map(EventType, begun), Power(wanted)) == actions


@pytest.mark.parametrize("kind", EventType)
def test_an_event_demands_nothing_before_it_starts_and_after_it_ends(kind: EventType) -> None:
    lasting = event(kind, duration=30.0)
    assert demand(lasting, 100.0) is demand(lasting, 129.9) is DEMANDS[kind]
    assert demand(lasting, 130.0) is Power.RUNNING
    planned = event(kind, started=None, status=EventStatus.SCHEDULED)
    assert demand(planned, 1e9) is Power.RUNNING
    assert demands_until(planned) == inf
    for status in (EventStatus.COMPLETED, EventStatus.EXPIRED):
        assert demand(event(kind, duration=30.0, status=status), 110.0) is Power.RUNNING


@pytest.mark.parametrize("kind", EventType)
def test_an_event_of_unknown_duration_demands_for_as_long_as_its_type(kind: EventType) -> None:
    until = demands_until(event(kind))
    assert until == 100.0 + HOLDS[kind]
    if until < inf:
        assert demand(event(kind), until) is Power.RUNNING


@given(st.sampled_from(EventType), st.floats(0, 1e9), st.none() | st.floats(1, 1e6))
def test_a_notice_alone_never_demands_anything(
    kind: EventType, now: float, duration: float | None
) -> None:
    assert demand(event(kind, duration=duration, notice_only=True), now) is Power.RUNNING


@given(st.lists(powers))
def test_the_severest_demand_is_met(demands: list[Power]) -> None:
    met = severest(demands)
    assert met in (demands or [Power.RUNNING])
    assert all(SEVERITY[one] <= SEVERITY[met] for one in demands)
