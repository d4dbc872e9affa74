"""The lab's events out of the nodes': what is kept up to date is what a look at all would give."""

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hostagent.model import FINAL, Event, EventSource, EventStatus, EventType, joined
from netemu.supervisor.control import lab_events
from netemu.supervisor.control.carried_out import CarriedOut
from netemu.supervisor.control.lab_events import LabEvents

NODES = ("n1", "n2", "n3")


def event(
    name: str, status: EventStatus = EventStatus.SCHEDULED, guests: tuple[str, ...] = ("a",)
) -> Event:
    started = 20.0 if status in (EventStatus.STARTED, EventStatus.COMPLETED) else None
    return Event(
        id=f"{name * 8}-0000-4000-8000-000000000000",
        type=EventType.REBOOT,
        source=EventSource.PLATFORM,
        description="",
        guests=guests,
        created=1.0,
        not_before=10.0,
        status=status,
        started=started,
        ended=30.0 if status in FINAL else None,
    )


class Told:
    """What `changed` was called with."""

    def __init__(self) -> None:
        self.changes: list[tuple[Event | None, Event | None]] = []
        self.lab = LabEvents(lambda before, after: self.changes.append((before, after)))


def test_an_event_is_as_far_as_it_is_anywhere_with_the_guests_of_all() -> None:
    told = Told()
    one, other = event("1"), event("1", EventStatus.STARTED, ("b",))
    told.lab.take("n1", one)
    told.lab.take("n2", other)
    merged = replace(other, guests=("a", "b"))
    assert told.lab.all == told.lab.open == {one.id: merged}
    assert told.changes == [(None, one), (one, merged)]
    told.lab.take("n1", one)  # as it was
    assert len(told.changes) == 2


def test_where_it_has_not_come_as_far_is_behind_until_it_has() -> None:
    lab = Told().lab
    one, other = event("1"), event("1", EventStatus.STARTED)
    lab.take("n1", one)
    lab.take("n2", other)
    lab.take("n3", event("2"))
    assert list(lab.behind(set(NODES))) == [("n1", one, EventStatus.STARTED)]
    assert list(lab.behind({"n2", "n3"})) == []
    lab.take("n1", other)
    assert list(lab.behind(set(NODES))) == []


def test_what_no_agent_has_any_more_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab_events, "MOST_GONE", 0)
    told = Told()
    one = event("1")
    for node in NODES:
        told.lab.take(node, one)
    for node in NODES[:2]:
        told.lab.forget(node, one.id)
        assert one.id in told.lab.all
    told.lab.forget("n3", one.id)
    told.lab.forget("n3", one.id)
    assert not told.lab.all
    assert not told.lab.open
    assert told.changes == [(None, one), (one, None)]


def test_an_event_does_not_go_back_when_the_node_that_had_it_furthest_forgets_it() -> None:
    """A node that has failed comes back with nothing; another still has to be told of the end."""
    told = Told()
    ended, started = event("1", EventStatus.COMPLETED), event("1", EventStatus.STARTED)
    told.lab.take("n1", ended)
    told.lab.take("n2", started)
    told.lab.forget("n1", ended.id)
    assert told.lab.all == {ended.id: ended}
    assert list(told.lab.behind(set(NODES))) == [("n2", started, EventStatus.COMPLETED)]
    told.lab.take("n2", ended)
    assert told.changes == [(None, ended)]


def test_an_event_that_is_gone_and_comes_back_is_no_other_one() -> None:
    """A guest moves, and its old node forgets the event before the new one has told of it."""
    told = Told()
    ended = event("1", EventStatus.COMPLETED)
    told.lab.take("n1", ended)
    told.lab.forget("n1", ended.id)
    assert not told.lab.all
    told.lab.take("n2", event("1", EventStatus.STARTED))
    assert told.lab.all == told.lab.open == {ended.id: ended}
    assert told.changes == [(None, ended)]


def test_an_answer_takes_nothing_back_that_a_feed_has_told() -> None:
    lab = Told().lab
    one, further = event("1"), event("1", EventStatus.STARTED)
    lab.acknowledged("n1", one)
    assert lab.all == {one.id: one}
    lab.take("n1", further)
    lab.acknowledged("n1", one)
    assert lab.all == {one.id: further}


def test_what_is_settled_is_open_again_only_when_it_changes() -> None:
    lab = Told().lab
    one = event("1", EventStatus.COMPLETED)
    lab.take("n1", one)
    lab.settled(one.id)
    lab.take("n2", one)
    assert not lab.open
    lab.take("n2", replace(one, guests=("a", "b")))
    assert list(lab.open) == [one.id]


steps = st.lists(
    st.tuples(
        st.sampled_from(NODES),
        st.sampled_from("12"),
        st.sampled_from([*EventStatus, None]),
        st.sampled_from([("a",), ("b",), ("a", "b")]),
    ),
    max_size=30,
)


@given(steps)
def test_kept_up_to_date_it_is_what_a_look_at_all_would_give(
    steps: list[tuple[str, str, EventStatus | None, tuple[str, ...]]],
) -> None:
    told = Told()
    copies: dict[str, dict[str, Event]] = {}
    furthest: dict[str, Event] = {}
    for node, name, status, guests in steps:
        made = event(name, status or EventStatus.SCHEDULED, guests)
        if status is None:
            told.lab.forget(node, made.id)
            copies.get(made.id, {}).pop(node, None)
        else:
            told.lab.take(node, made)
            copies.setdefault(made.id, {})[node] = made
        expected = {}
        for event_id, of in copies.items():
            known = [furthest[event_id]] if event_id in furthest else []
            if of:
                every = [*of.values(), *known]
                furthest[event_id] = one = reduce(lambda one, other: joined(one, other, ()), every)
                expected[event_id] = (one.status, set(one.guests))
        found = {one.id: (one.status, set(one.guests)) for one in told.lab.all.values()}
        assert found == expected
        assert set(told.lab.open) == set(found)
        behind = {(node, one.id) for node, one, _ in told.lab.behind(set(NODES))}
        assert behind == {
            (node, event_id)
            for event_id, of in copies.items()
            for node, one in of.items()
            if one.status not in FINAL and one.status is not expected[event_id][0]
        }


def test_what_was_carried_out_is_known_by_guest_until_the_event_is_gone() -> None:
    record, one = CarriedOut(), event("1")
    record.note("a", (one.id,))
    assert record.on("a", one.id)
    assert not record.on("b", one.id)
    record.forget(one)
    assert not record.on("a", one.id)
