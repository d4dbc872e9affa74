from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostagent.model import (
    FINAL,
    LEAST_NOTICE,
    MAX_ACTIVITY,
    TRANSITIONS,
    Event,
    EventSource,
    EventStatus,
    EventType,
    Guest,
    IllegalTransition,
    Request,
    View,
    apply,
    at,
    boundary,
    due,
    joined,
    next_change,
    sees,
    unfold,
)

ID = "6f0a13a3-dc0d-4bbe-ab24-df710a3917e6"


def event(**fields):
    values = {
        "id": ID,
        "type": EventType.REBOOT,
        "source": EventSource.PLATFORM,
        "description": "",
        "guests": ("web1",),
        "created": 1000.0,
        "not_before": 1900.0,
    }
    return Event(**(values | fields))


def test_least_notice_is_azures():
    assert LEAST_NOTICE == {
        "Freeze": 900,
        "Reboot": 900,
        "Redeploy": 600,
        "Preempt": 30,
        "Terminate": 300,
    }


@pytest.mark.parametrize("status", EventStatus)
@pytest.mark.parametrize("request_", Request)
def test_the_table_is_the_whole_truth(status, request_):
    before = event(status=status)
    expected = TRANSITIONS.get((status, request_))
    if expected is None:
        with pytest.raises(IllegalTransition) as caught:
            apply(before, request_, 5.0)
        assert status in str(caught.value)
        assert request_ in str(caught.value)
        return
    after = apply(before, request_, 5.0)
    assert after.status is expected
    assert (after.id, after.created, after.not_before) == (ID, 1000.0, 1900.0)


def test_legal_and_illegal_by_name():
    scheduled = event()
    started = apply(scheduled, Request.START, 1500.0)
    assert (started.status, started.started, started.ended) == (EventStatus.STARTED, 1500.0, None)
    assert apply(scheduled, Request.APPROVE, 1500.0).status is EventStatus.STARTED
    completed = apply(started, Request.COMPLETE, 1600.0)
    assert (completed.status, completed.started, completed.ended) == ("Completed", 1500.0, 1600.0)
    with pytest.raises(IllegalTransition, match="is Started: cannot cancel it"):
        apply(started, Request.CANCEL, 1600.0)
    with pytest.raises(IllegalTransition, match="is Scheduled: cannot complete it"):
        apply(scheduled, Request.COMPLETE, 1600.0)


def test_nothing_leaves_a_final_status():
    assert not [pair for pair in TRANSITIONS if pair[0] in FINAL]


def test_approving_a_started_event_changes_nothing():
    started = apply(event(), Request.APPROVE, 1500.0)
    assert apply(started, Request.APPROVE, 1550.0) is started


def test_what_falls_due():
    scheduled = event(duration=60.0)
    assert next_change(scheduled) == 1900.0
    assert due(scheduled, 1899.999) is None
    assert due(scheduled, 1900.0) is Request.START
    started = apply(scheduled, Request.START, 1900.0)
    assert due(started, 1959.9) is None
    assert due(started, 1960.0) is Request.COMPLETE
    assert next_change(apply(started, Request.COMPLETE, 1960.0)) is None


def test_an_unknown_duration_expires():
    started = apply(event(), Request.START, 2000.0)
    assert due(started, 2000.0 + MAX_ACTIVITY - 1) is None
    assert due(started, 2000.0 + MAX_ACTIVITY) is Request.EXPIRE


def test_unfold_stamps_each_state_with_its_own_time():
    states = list(unfold(event(duration=60.0), 99999.0))
    assert [state.status for state in states] == ["Started", "Completed"]
    assert (states[1].started, states[1].ended) == (1900.0, 1960.0)
    assert list(unfold(event(duration=60.0), 1000.0)) == []


def test_who_sees_an_event():
    mine = event(guests=("web1", "web2"), availability_sets=("front",))
    assert sees(Guest(name="web1"), mine)
    assert sees(Guest(name="db1", availability_set="front"), mine)
    assert not sees(Guest(name="db1", availability_set="back"), mine)
    assert not sees(Guest(name="db1"), mine)
    assert not sees(Guest(name="db1"), event(availability_sets=()))


@settings(deadline=None)
@given(
    requests=st.lists(st.tuples(st.sampled_from(Request), st.floats(0, 1e6))),
    duration=st.none() | st.floats(1, 1e5),
)
def test_any_sequence_of_requests_keeps_the_invariants(requests, duration):
    current = event(duration=duration)
    now = current.created
    for request, step in requests:
        now += step
        current = [current, *unfold(current, now)][-1]
        assert due(current, now) is None
        before = current
        try:
            current = apply(current, request, now)
        except IllegalTransition:
            assert (before.status, request) not in TRANSITIONS
        assert (current.ended is not None) == (current.status in FINAL)
        assert (current.started is not None) == (
            current.status is EventStatus.STARTED
            or (current.status in FINAL and current.status is not EventStatus.CANCELLED)
        )
        if before.status in FINAL:
            assert current is before


def test_when_time_alone_changes_what_is_told():
    mine = Event(
        id="6f0a13a3-dc0d-4bbe-ab24-df710a3917e6",
        type=EventType.REBOOT,
        source=EventSource.PLATFORM,
        description="",
        guests=("web1",),
        created=0.0,
        not_before=900.0,
        duration=60.0,
    )
    view = View(guest=Guest(name="web1"), incarnation=1, events=(mine,))
    moments, now = [], 0.0
    while (now := boundary(view, now, 300.0)) != inf:
        moments.append(now)
    assert moments == [600.0, 900.0, 960.0]
    assert boundary(view, 599.9, 300.0) == 600.0
    assert boundary(View(guest=view.guest, incarnation=1), 0.0, 300.0) == inf
    assert [at(mine, t).status for t in (899.9, 900.0, 960.0)] == [
        "Scheduled", "Started", "Completed",
    ]  # fmt: skip


def test_an_approval_says_when_and_by_whom_and_a_start_says_neither():
    approved = apply(event(), Request.APPROVE, 1200.0, "web1")
    assert (approved.approved, approved.approved_by, approved.started) == (1200.0, "web1", 1200.0)
    assert apply(approved, Request.APPROVE, 1300.0, "web2") is approved  # the first counts
    started = apply(event(), Request.START, 1200.0)
    assert (started.approved, started.approved_by) == (None, None)


def test_who_has_approved_is_known_wherever_the_event_is_told():
    approved = apply(event(), Request.APPROVE, 1200.0, "web1")
    elsewhere = apply(event(), Request.START, 1201.0)  # another node has caught up
    for one, other in ((approved, elsewhere), (elsewhere, approved)):
        assert joined(one, other, ()).approved_by == "web1"
    ended = apply(elsewhere, Request.COMPLETE, 1300.0)
    assert joined(approved, ended, ()).approved_by == "web1"
    assert joined(approved, ended, ()).status is EventStatus.COMPLETED
