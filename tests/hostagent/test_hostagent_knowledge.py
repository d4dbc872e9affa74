import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hostagent.channel.messages import Delta, Heartbeat, Snapshot, snapshot
from hostagent.channel.replica import Gap
from hostagent.channel.requests import Placed
from hostagent.commands import execute
from hostagent.model import (
    FINAL,
    Event,
    EventSource,
    EventType,
    Guest,
    Request,
    apply,
    sees,
)
from hostagent.repository import Repository
from hostagent.responder.knowledge import Knowledge
from tests.thorough import cases

ID = "6f0a13a3-dc0d-4bbe-ab24-df710a3917e6"


def placed(name, incarnation=1, **fields):
    return Placed(guest=Guest(name=name, **fields), incarnation=incarnation)


def event(number=1, **fields):
    values = {
        "id": f"{number:08x}{ID[8:]}",
        "type": EventType.REBOOT,
        "source": EventSource.PLATFORM,
        "description": "",
        "guests": ("web1",),
        "created": 0.0,
        "not_before": 900.0 - number,
    }
    return Event(**(values | fields))


def snap(sequence=5, **fields):
    return Snapshot(**({"sequence": sequence, "node": "n1", "clock_offset": 0.0} | fields))


@pytest.fixture
def knowledge():
    made = Knowledge(stale_after=60.0)
    made.apply(
        snap(
            guests=(
                placed("web1", port=1, address="127.0.0.1"),
                placed("web2", 7, port=2, address="127.0.0.2", availability_set="s"),
                placed("web3", port=3, availability_set="s"),
            )
        ),
        100.0,
    )
    return made


def test_identity(knowledge):
    assert knowledge.by_port(2).guest.name == "web2"
    assert knowledge.by_port(2).incarnation == 7
    assert knowledge.by_address("127.0.0.2").guest.name == "web2"
    for nobody in (0, 4, -1):
        assert knowledge.by_port(nobody) is None
    for nobody in ("", "127.0.0.3", "2"):
        assert knowledge.by_address(nobody) is None


def test_those_whom_a_change_concerns_are_told_in_an_order_of_their_own(knowledge):
    """A simulation runs again as it ran before, whatever Python's hashes are."""
    heard = []
    knowledge.watch = lambda names: heard.append(list(names))
    names = tuple(f"other{number}" for number in range(50))
    both = event(guests=(*names, "web2"), availability_sets=("s",))
    knowledge.apply(Delta(sequence=6, events=(both,)), 101.0)
    assert heard == [[*names, "web2", "web3"]]


def test_an_event_is_seen_by_its_own_and_their_set(knowledge):
    mine = event(guests=("web2",), availability_sets=("s",))
    assert knowledge.by_port(2).events == ()
    knowledge.apply(Delta(sequence=6, events=(mine,), incarnations={"web2": 8, "web3": 2}), 101.0)
    assert knowledge.by_port(1).events == ()
    assert knowledge.by_port(2).events == (mine,)
    assert knowledge.by_port(3).events == (mine,)
    assert (knowledge.by_port(2).incarnation, knowledge.by_port(3).incarnation) == (8, 2)


def test_events_in_order_and_the_ended_ones_apart(knowledge):
    first, second, third = event(3), event(2), event(1)
    knowledge.apply(Delta(sequence=6, events=(third, first, second)), 101.0)
    assert knowledge.by_port(1).events == (first, second, third)
    ended = [apply(one, Request.CANCEL, when) for one, when in ((first, 10.0), (third, 20.0))]
    knowledge.apply(Delta(sequence=7, events=tuple(ended)), 102.0)
    view = knowledge.by_port(1)
    assert view.events == (second,)
    assert view.history == (ended[1], ended[0])
    knowledge.apply(Delta(sequence=8, forgotten=(first.id, ID)), 103.0)
    assert knowledge.by_port(1).history == (ended[1],)


def test_guests_come_go_and_change(knowledge):
    knowledge.apply(Delta(sequence=6, withdrawn=("web1", "nobody")), 101.0)
    assert knowledge.by_port(1) is None
    assert knowledge.by_address("127.0.0.1") is None
    # web2 and web3 exchange their ports; web2 leaves the set and its address
    swap = (placed("web2", 8, port=3), placed("web3", 2, port=2, availability_set="s"))
    knowledge.apply(Delta(sequence=7, placed=swap), 102.0)
    assert knowledge.by_port(3).guest.name == "web2"
    assert knowledge.by_port(2).guest.name == "web3"
    assert knowledge.by_address("127.0.0.2") is None
    knowledge.apply(Delta(sequence=8, events=(event(availability_sets=("s",)),)), 103.0)
    assert knowledge.by_port(3).events == ()
    assert len(knowledge.by_port(2).events) == 1


def test_the_clock(knowledge):
    knowledge.apply(Delta(sequence=6, clock_offset=600.0), 101.0)
    assert knowledge.clock_offset == 600.0
    knowledge.apply(Delta(sequence=7), 101.0)
    assert knowledge.clock_offset == 600.0


@pytest.mark.parametrize(
    "message",
    [Delta(sequence=7), Delta(sequence=5), Heartbeat(sequence=6), Heartbeat(sequence=4)],
)
def test_gaps(knowledge, message):
    with pytest.raises(Gap):
        knowledge.apply(message, 500.0)
    assert knowledge.sequence == 5
    assert not knowledge.fresh(500.0)  # such a message is no news of the agent
    assert knowledge.by_port(1) is not None


def test_nothing_can_be_built_on_nothing():
    for message in (Delta(sequence=1), Heartbeat(sequence=1)):
        with pytest.raises(Gap):
            Knowledge().apply(message, 1.0)


def test_staleness(knowledge):
    assert not Knowledge().fresh(0.0)
    assert knowledge.fresh(160.0)
    assert not knowledge.fresh(160.1)
    knowledge.apply(Heartbeat(sequence=5), 161.0)
    assert knowledge.fresh(221.0)


def test_a_snapshot_in_parts_counts_when_it_is_whole(knowledge):
    knowledge.apply(snap(9, guests=(placed("new", port=9),), more=True), 101.0)
    assert knowledge.by_port(9) is None
    assert knowledge.by_port(1) is not None
    with pytest.raises(Gap):
        knowledge.apply(Delta(sequence=6), 101.0)
    knowledge.apply(snap(9, events=(event(guests=("new",)),)), 101.0)
    assert knowledge.by_port(1) is None
    assert len(knowledge.by_port(9).events) == 1
    assert knowledge.sequence == 9


def test_parts_of_two_snapshots_do_not_mix(knowledge):
    knowledge.apply(snap(9, guests=(placed("old", port=8),), more=True), 101.0)
    with pytest.raises(Gap):
        knowledge.apply(snap(10), 101.0)
    knowledge.apply(snap(9, guests=(placed("old", port=8),), more=True), 101.0)
    knowledge.interrupted()
    knowledge.apply(snap(9), 101.0)
    assert knowledge.by_port(8) is None


COMMANDS = st.sampled_from(
    ["place", "withdraw", "schedule", "start", "complete", "cancel", "advance"]
)


@settings(max_examples=cases(25, 60), deadline=None)
@given(steps=st.lists(st.tuples(COMMANDS, st.integers(0, 3), st.integers(0, 3)), max_size=25))
def test_deltas_lead_where_a_snapshot_would(steps):
    """Whatever is commanded, one who has followed knows what one who asks again is told."""
    from hostagent.channel import requests

    store = Repository.open(":memory:")
    follower = Knowledge()
    newest = {}

    def whole():
        return snapshot(
            sequence=store.sequence,
            node="n1",
            clock_offset=store.clock_offset,
            guests=store.guests(),
            events=store.events(),
        )

    for part in whole():
        follower.apply(part, 0.0)
    for number, (what, a, b) in enumerate(steps):
        kind = getattr(requests, what.capitalize())
        an_event = f"{a:08x}{ID[8:]}"
        fields = {
            "place": {"guests": (Guest(name=f"g{a}", port=1 + b, availability_set=f"s{b % 2}"),)},
            "withdraw": {"names": (f"g{a}",)},
            "schedule": {
                "event_id": an_event,
                "guests": (f"g{b}",),
                "type": EventType.FREEZE,
                "duration": 60.0,
            },
            "advance": {"seconds": 100.0 + 400.0 * a},
        }.get(what, {"event_id": an_event})
        with store.transaction():
            _, deltas = execute(store, kind(command_id=f"c{number}", **fields), 1000.0 + number)
        for delta in deltas:
            follower.apply(delta, 0.0)
        fresh = Knowledge()
        for part in whole():
            fresh.apply(part, 0.0)
        for port in range(1, 5):
            # When a guest came is known only to one who was there.
            was, new = follower.by_port(port), fresh.by_port(port)
            assert (was and replace(was, arrived=0)) == (new and replace(new, arrived=0))
        for one in store.guests():
            view = follower.by_port(one.guest.port)
            assert view.incarnation == one.incarnation >= newest.get(one.guest.name, 0)
            newest[one.guest.name] = one.incarnation
            visible = {e.id for e in store.events() if sees(one.guest, e)}
            assert {e.id for e in view.events + view.history} == visible
            assert not any(e.status in FINAL for e in view.events)
        assert follower.clock_offset == fresh.clock_offset == store.clock_offset
    store.close()


def test_who_watches_is_told_whose_view_has_changed(knowledge):
    told = []
    knowledge.watch = lambda names: told.append(names and sorted(names))
    knowledge.apply(Delta(sequence=6, events=(event(),), incarnations={"web1": 2}), 101.0)
    knowledge.apply(Heartbeat(sequence=6), 101.0)
    knowledge.apply(Delta(sequence=7, clock_offset=5.0), 101.0)
    again = Placed(guest=Guest(name="web2", port=2), incarnation=8, edits=3)
    knowledge.apply(Delta(sequence=8, placed=(again,), withdrawn=("web3",)), 101.0)
    knowledge.apply(snap(9, more=True), 101.0)
    knowledge.apply(snap(9), 101.0)
    assert told == [["web1"], None, ["web2", "web3"], None]


def test_a_revision_counts_both_kinds_of_changes(knowledge):
    again = Placed(guest=Guest(name="web2", port=2), incarnation=8, edits=3)
    knowledge.apply(Delta(sequence=6, placed=(again,)), 101.0)
    assert (knowledge.by_port(2).incarnation, knowledge.by_port(2).revision) == (8, 11)
    knowledge.apply(Delta(sequence=7, incarnations={"web2": 9}), 101.0)
    assert (knowledge.by_port(2).incarnation, knowledge.by_port(2).revision) == (9, 12)


def test_a_guest_has_arrived_when_it_came_to_this_node(knowledge):
    def arrived(name="web2"):
        return next(
            view.arrived
            for port in (1, 2, 4)
            if (view := knowledge.by_port(port)) and view.guest.name == name
        )

    assert arrived() == 7
    knowledge.apply(Delta(sequence=6, incarnations={"web2": 9}), 101.0)
    assert arrived() == 7
    knowledge.apply(Delta(sequence=7, placed=(placed("web2", 10, port=2),)), 101.0)  # edited
    assert arrived() == 7
    here = (placed("web1", port=1), placed("web2", 11, port=2), placed("web4", 3, port=4))
    knowledge.apply(snap(9, guests=here), 102.0)  # the agent was started again
    assert (arrived(), arrived("web4")) == (7, 3)
    knowledge.apply(Delta(sequence=10, withdrawn=("web2",)), 103.0)
    knowledge.apply(Delta(sequence=11, placed=(placed("web2", 15, port=2),)), 103.0)
    assert arrived() == 15
