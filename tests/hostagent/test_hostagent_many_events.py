"""What a guest may see of its node's events, held against looking through them all."""

from hypothesis import given, settings
from hypothesis import strategies as st

from hostagent.channel.messages import Delta, Snapshot
from hostagent.channel.requests import Placed
from hostagent.model import FINAL, Event, EventSource, EventStatus, EventType, Guest, concerns, sees
from hostagent.responder.knowledge import Knowledge

SETS = (None, "web1", "front")  # a set may have a guest's name
GUESTS = tuple(Guest(name=f"web{i}", port=i, availability_set=SETS[i % 3]) for i in range(1, 7))
IDS = tuple(f"6f0a13a3-dc0d-4bbe-ab24-df710a3917e{i}" for i in range(4))

NAMES = tuple(guest.name for guest in GUESTS)
WHOSE = dict(
    zip(
        IDS,
        [(NAMES, ()), (NAMES[:2], SETS[1:]), (NAMES[3:5], SETS[2:]), (("x",), SETS[1:2])],
        strict=True,
    )
)  # an event's guests and sets stay what they are

events = st.builds(
    lambda id_, status: Event(
        id=id_,
        type=EventType.REBOOT,
        source=EventSource.PLATFORM,
        description="",
        guests=WHOSE[id_][0],
        availability_sets=WHOSE[id_][1],
        created=0.0,
        not_before=float(id_[-1]),
        status=status,
        ended=1.0 if status in FINAL else None,
        started=0.5 if status is EventStatus.STARTED else None,
    ),
    st.sampled_from(IDS),
    st.sampled_from(EventStatus),
)
deltas = st.builds(
    lambda events, forgotten, placed, withdrawn: {
        "events": tuple(events),
        "forgotten": tuple(forgotten),
        "placed": tuple(Placed(guest=guest, incarnation=1) for guest in placed),
        "withdrawn": tuple(withdrawn),
    },
    st.lists(events, max_size=3),
    st.lists(st.sampled_from(IDS), max_size=1),
    st.lists(st.sampled_from(GUESTS), max_size=1),
    st.lists(st.sampled_from(NAMES), max_size=1),
)


@settings(deadline=None)
@given(st.lists(st.one_of(deltas, st.lists(events, max_size=4)), max_size=8))
def test_a_view_has_the_events_that_the_guest_sees(script):
    knowledge = Knowledge()
    placed = tuple(Placed(guest=guest, incarnation=1) for guest in GUESTS)
    for step in [[], *script]:
        if isinstance(step, list):  # told everything again
            told = {event.id: event for event in step}
            knowledge.apply(
                Snapshot(
                    sequence=knowledge.sequence + 7,
                    node="n1",
                    clock_offset=0.0,
                    guests=placed,
                    events=tuple(told.values()),
                ),
                0.0,
            )
        else:
            knowledge.apply(Delta(sequence=knowledge.sequence + 1, **step), 0.0)
        for guest in GUESTS:
            view = knowledge.by_port(guest.port)
            if guest.name not in knowledge.guests:
                assert view is None
                continue
            mine = {one.id: one for one in knowledge.events.values() if sees(guest, one)}
            shown = (*view.events, *view.history)
            assert {one.id: one for one in shown} == mine
            assert len(shown) == len(mine)
            assert all(one.status not in FINAL for one in view.events)


@given(st.integers(1, 40), st.integers(0, 50))
def test_whom_an_event_concerns(count, number):
    event = Event(
        id=IDS[0],
        type=EventType.FREEZE,
        source=EventSource.USER,
        description="",
        guests=tuple(f"web{i}" for i in range(count)),
        created=0.0,
        not_before=0.0,
    )
    assert concerns(event, f"web{number}") is (number < count)
