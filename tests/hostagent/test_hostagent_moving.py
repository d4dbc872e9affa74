"""A guest moves from node to node: what it has been told goes with it."""

import contextlib
import shutil
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hostagent import commands
from hostagent.channel.messages import Done, Failed, Left, MessageError, decode, encode
from hostagent.channel.replica import Replica
from hostagent.channel.requests import (
    Adopt,
    Advance,
    Approve,
    Cancel,
    Complete,
    Place,
    Placed,
    Schedule,
    Start,
    Withdraw,
    Write,
)
from hostagent.commands import MAX_CLOCK_OFFSET, MAX_COUNT, execute
from hostagent.controller.calls import adoptions
from hostagent.model import (
    FINAL,
    MAX_GUESTS,
    Event,
    EventSource,
    EventStatus,
    EventType,
    Guest,
    joined,
    sees,
)
from hostagent.repository import FLOORS, Repository
from hostagent.written import MAX_BYTES
from tests.thorough import cases

NOW = 1_700_000_000.0


def event_id(number):
    return f"{number:08x}-0000-4000-8000-000000000000"


def event(number=1, **fields):
    values = {
        "id": event_id(number),
        "type": EventType.REBOOT,
        "source": EventSource.PLATFORM,
        "description": "",
        "guests": ("a",),
        "created": NOW - 100,
        "not_before": NOW + 800,
    }
    return Event(**(values | fields))


class Store:
    """A repository that can be killed, and what it has published."""

    def __init__(self, path):
        self.path = path
        self.number = 0
        self.deltas = []
        self.repository = Repository.open(path)

    def __call__(self, kind, wall=NOW, command_id=None, **fields):
        self.number += 1
        command = kind(command_id=command_id or f"{self.path.name}{self.number}", **fields)
        with self.repository.transaction():
            answer, deltas = execute(self.repository, command, wall)
        self.deltas += deltas
        return answer

    def kill(self):
        self.repository.close()
        self.repository = Repository.open(self.path)

    def placed(self):
        return {one.guest.name: one for one in self.repository.guests()}

    def events(self):
        return {one.id: one for one in self.repository.events()}


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "here")
    yield made
    made.repository.close()


def moved(name="a", incarnation=7, edits=2, **fields):
    return Placed(guest=Guest(name=name, **fields), incarnation=incarnation, edits=edits)


def test_a_guest_comes_with_what_it_knew(store):
    store(Place, guests=(Guest(name="b"),))
    active, ended = (
        event(1),
        event(2, status=EventStatus.CANCELLED, ended=NOW - 5),
    )
    answer = store(Adopt, guests=(moved(port=9),), events=(active, ended), clock_offset=30.0)
    assert answer == Done(command_id="here2", now=NOW + 30, sequence=store.repository.sequence)
    assert store.placed()["a"] == moved(incarnation=8, edits=3, port=9)
    assert store.placed()["b"].incarnation == 1
    assert store.events() == {active.id: active, ended.id: ended}
    assert store.repository.clock_offset == 30


def test_it_is_published_so_that_a_subscriber_knows_the_same(store):
    replica = Replica()
    replica.sequence = 0
    store(Place, guests=(Guest(name="b", availability_set="s"),))
    theirs = event(1, availability_sets=("s",))
    store(Adopt, guests=(moved(),), events=(theirs, event(2)), clock_offset=30.0)
    store(Withdraw, names=("b",))
    for delta in store.deltas:
        replica.take(delta)
    assert replica.guests == store.placed()
    assert replica.events == store.events()
    assert replica.clock_offset == 30
    assert replica.sequence == store.repository.sequence


def test_the_members_of_its_set_see_its_events(store):
    store(Place, guests=(Guest(name="b", availability_set="s"), Guest(name="c")))
    theirs = event(availability_sets=("s",))
    store(Adopt, guests=(moved(availability_set="s"),), events=(theirs,), clock_offset=0.0)
    assert [store.placed()[name].incarnation for name in "abc"] == [8, 2, 1]


def test_the_clock_is_moved_forward_only_and_what_falls_due_settles(store):
    store(Advance, seconds=1000.0)
    done = store(Adopt, guests=(moved(),), events=(event(),), clock_offset=100.0)
    assert done.now == NOW + 1000
    known = store.events()[event_id(1)]
    assert (known.status, known.started) == (EventStatus.STARTED, NOW + 800)
    store(Schedule, event_id=event_id(2), guests=("a",), type=EventType.REBOOT)
    assert store(Adopt, clock_offset=2000.0).now == NOW + 2000
    assert store.events()[event_id(2)].status is EventStatus.STARTED


STATES = {
    "Scheduled": {},
    "Started": {"started": NOW + 1},
    "Cancelled": {"ended": NOW + 2},
    "Completed": {"started": NOW + 1, "ended": NOW + 2},
}


@pytest.mark.parametrize("known", STATES)
@pytest.mark.parametrize("carried", STATES)
def test_of_an_event_known_on_both_nodes_the_further_state_stays(store, known, carried):
    here, there = (
        event(guests=(name,), status=EventStatus(state), **STATES[state])
        for name, state in (("b", known), ("a", carried))
    )
    store(Place, guests=(Guest(name="b"),))
    store(Adopt, events=(here,), clock_offset=0.0)
    store(Adopt, guests=(moved(),), events=(there,), clock_offset=0.0)
    (after,) = store.events().values()
    rank = {"Scheduled": 0, "Started": 1}
    further = there if rank.get(carried, 2) > rank.get(known, 2) else here
    assert after == msgspec.structs.replace(further, guests=("b", "a"))
    # Again: nothing is doubled, and nothing is new.
    incarnations = {name: one.incarnation for name, one in store.placed().items()}
    store(Adopt, events=(there,), clock_offset=0.0)
    assert {name: one.incarnation for name, one in store.placed().items()} == incarnations


def test_a_joined_event_has_room_for_who_is_here():
    far = tuple(f"far{number}" for number in range(MAX_GUESTS))
    known = event(guests=(*far[1:], "b"))
    both = joined(known, event(guests=("gone", "a")), {"a", "b"})
    assert len(both.guests) == MAX_GUESTS
    assert {"a", "b"} < set(both.guests)
    assert "gone" not in both.guests


def test_the_same_command_again_is_applied_once(store):
    fields = {"guests": (moved(),), "events": (event(),), "clock_offset": 5.0}
    first = store(Adopt, command_id="x", **fields)
    store(Cancel, event_id=event_id(1))
    placed = store.placed()
    store.kill()
    assert store(Adopt, command_id="x", **fields) == first
    assert store.placed() == placed
    assert store.events()[event_id(1)].status is EventStatus.CANCELLED


def test_its_numbers_go_on_above_those_of_both_nodes(store):
    store(Place, guests=(Guest(name="a"),))
    for number in range(5):
        store(Schedule, event_id=event_id(number), guests=("a",), type=EventType.REBOOT)
    left = store(Withdraw, names=("a", "nobody")).left
    assert left == {"a": Left(6, 0)}
    store(Adopt, guests=(moved(incarnation=2, edits=1),), clock_offset=0.0)
    assert store.placed()["a"] == moved(incarnation=7, edits=2)
    # One that is here already, and was somewhere else meanwhile.
    store(Adopt, guests=(moved(incarnation=20, edits=0),), clock_offset=0.0)
    assert store.placed()["a"] == moved(incarnation=21, edits=2)
    store(Adopt, guests=(moved(incarnation=3, edits=0, port=5),), clock_offset=0.0)
    assert store.placed()["a"] == moved(incarnation=22, edits=3, port=5)


def test_who_leaves_changes_nothing_for_others(store):
    store(
        Place, guests=(Guest(name="a", availability_set="s"), Guest(name="b", availability_set="s"))
    )
    store(Schedule, event_id=event_id(1), guests=("a",), type=EventType.REBOOT)
    before, events = store.placed()["b"], store.events()
    store(Withdraw, names=("a",))
    assert store.placed() == {"b": before}
    assert store.events() == events  # it is the set's, and `a` may come back
    store(Place, guests=(Guest(name="new"),))
    assert store.placed()["new"].incarnation == 1


def test_numbers_of_those_who_left_are_kept_for_many(store, monkeypatch):
    monkeypatch.setattr("hostagent.repository.FLOORS", 3)
    assert FLOORS > 4000
    store(Adopt, guests=(moved("old", 50, 0),), clock_offset=0.0)
    store(Withdraw, names=("old",))
    for name in ("x", "y", "z"):
        store(Place, guests=(Guest(name=name),))
        store(Withdraw, names=(name,))
    store(Place, guests=(Guest(name="old"), Guest(name="z")))
    # What is not remembered of one counts for all.
    assert [store.placed()[name].incarnation for name in ("old", "z")] == [53, 53]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"guests": (moved(port=1), moved(port=2))}, "conflict"),
        ({"guests": (moved(port=3),)}, "conflict"),
        ({"guests": (moved(properties={"colour": "red"}),)}, "bad-property"),
        ({"guests": (moved(incarnation=MAX_COUNT + 1),)}, "count"),
        ({"guests": (moved(edits=MAX_COUNT + 1),)}, "count"),
        ({"clock_offset": MAX_CLOCK_OFFSET + 1}, "clock"),
        ({"events": (event(status=EventStatus.COMPLETED),)}, "bad-event"),
        ({"events": (event(status=EventStatus.STARTED),)}, "bad-event"),
        ({"events": (event(ended=NOW),)}, "bad-event"),
        ({"events": (event(2), event(3), event(4))}, "too-many"),
    ],
)
def test_what_cannot_be_adopted_is_refused_whole(store, fields, code, monkeypatch):
    monkeypatch.setattr(commands, "MAX_ACTIVE_EVENTS", 2)
    store(Place, guests=(Guest(name="b", port=3),))
    sequence = store.repository.sequence
    answer = store(Adopt, **({"clock_offset": 0.0} | fields))
    assert isinstance(answer, Failed)
    assert answer.code == code
    assert store.repository.sequence == sequence
    assert list(store.placed()) == ["b"]
    assert store.events() == {}


def test_what_is_too_much_for_a_frame_goes_in_several_commands(store):
    guests = [
        Placed(guest=Guest(name=f"g{n}", properties={"user_data": "x" * 100_000}), incarnation=1)
        for n in range(7)
    ]
    events = [event(n, guests=(f"g{n}",)) for n in range(7)]
    made = list(adoptions(guests, events, 9.0, "m"))
    assert [one.command_id for one in made] == ["m", "m.1", "m.2"]
    assert made[0].events == tuple(events)
    for command in made:
        assert len(encode(command)) < 1 << 20
        fields = {"guests": command.guests, "events": command.events, "clock_offset": 9.0}
        assert isinstance(store(Adopt, command_id=command.command_id, **fields), Done)
    assert len(store.placed()) == len(store.events()) == 7
    assert [one.command_id for one in adoptions([], [], 9.0, "m")] == ["m"]


NAMES = ("a", "b", "c", "d")
SETS = {"a": "s", "b": "s", "c": None, "d": None}
name_of = st.sampled_from(NAMES)
nodes = st.sampled_from((0, 1))


class Moves(RuleBasedStateMachine):
    """Four guests on two nodes, moved about in the middle of everything."""

    def __init__(self):
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="moves-"))
        self.stores = [Store(self.directory / f"n{number}") for number in (0, 1)]
        self.home = {"a": 0, "b": 0, "c": 1, "d": 0}
        for name, node in self.home.items():
            self.stores[node](Place, guests=(self.guest(name, node),))
        self.wall = NOW
        self.events = self.adopted = 0
        self.told = {name: {} for name in NAMES}  # the events that each has seen, as it saw them
        self.revisions = dict.fromkeys(NAMES, (0, 0))
        self.stale = []  # moves that a confused controller may send again

    def teardown(self):
        for one in self.stores:
            one.repository.close()
        shutil.rmtree(self.directory)

    def guest(self, name, node):
        return Guest(name=name, port=10 * node + NAMES.index(name) + 1, availability_set=SETS[name])

    @rule(concerned=st.sets(name_of, min_size=1), killed=st.booleans())
    def schedule(self, concerned, killed):
        self.events += 1
        sets = tuple(sorted({SETS[name] for name in concerned} - {None}))
        for node, store in enumerate(self.stores):
            here = tuple(sorted(name for name in concerned if self.home[name] == node))
            members = [name for name in NAMES if self.home[name] == node and SETS[name] in sets]
            if not here and not members:
                continue
            elsewhere = tuple(sorted(concerned - set(here)))
            fields = {"event_id": event_id(self.events), "type": EventType.REBOOT, "guests": here}
            if sets:
                fields |= {"elsewhere": elsewhere, "sets_elsewhere": sets}
            name = f"s{self.events}"
            assert isinstance(store(Schedule, self.wall, name, **fields), Done)
            if killed:  # the acknowledgement is lost, and the controller asks again
                store.kill()
                assert isinstance(store(Schedule, self.wall, name, **fields), Done)

    @precondition(lambda self: self.events)
    @rule(
        node=nodes,
        number=st.integers(0, 10),
        what=st.sampled_from((Start, Approve, Complete, Cancel)),
    )
    def change(self, node, number, what):
        self.stores[node](what, self.wall, event_id=event_id(number % self.events + 1))

    @rule(node=nodes, seconds=st.floats(1, 2000))
    def advance(self, node, seconds):
        self.stores[node](Advance, self.wall, seconds=seconds)

    @rule(seconds=st.floats(1, 500))
    def time_passes(self, seconds):
        self.wall += seconds

    @rule(node=nodes)
    def kill(self, node):
        self.stores[node].kill()

    @rule(
        name=name_of,
        killed=st.sampled_from(("no", "before", "after")),
        meanwhile=st.sampled_from((None, Start, Cancel, Schedule)),
    )
    def move(self, name, killed, meanwhile):
        """It is adopted, its wire is plugged over, and it is withdrawn. What has been commanded on
        the old node meanwhile comes after it.
        """
        source = self.home[name]
        self.adopt(name, source, killed)
        if meanwhile is Schedule:
            self.schedule({name}, killed == "after")
        elif meanwhile is not None and self.events:
            self.change(source, self.events - 1, meanwhile)
        self.home[name] = 1 - source
        left = self.stores[source](Withdraw, self.wall, names=(name,)).left
        self.adopt(name, source, numbers=(left[name].incarnation, left[name].edits))

    def adopt(self, name, source, killed="no", numbers=None):
        there, here = self.stores[source], self.stores[1 - source]
        with there.repository.transaction():
            there.repository.settle(self.wall)
        placed = there.placed().get(name)
        incarnation, edits = numbers or (placed.incarnation, placed.edits)
        guest = self.guest(name, 1 - source)
        known = [one for one in there.events().values() if sees(guest, one)]
        self.adopted += 1
        (command,) = adoptions(
            [Placed(guest=guest, incarnation=incarnation, edits=edits)],
            known,
            there.repository.clock_offset,
            f"a{self.adopted}",
        )
        fields = {
            "guests": command.guests,
            "events": command.events,
            "clock_offset": command.clock_offset,
        }
        if killed == "before":
            with contextlib.suppress(ZeroDivisionError), here.repository.transaction():
                execute(here.repository, command, self.wall)
                raise ZeroDivisionError
            here.kill()
        first = here(Adopt, self.wall, command.command_id, **fields)
        assert isinstance(first, Done)
        if killed == "after":
            here.kill()
            assert here(Adopt, self.wall, command.command_id, **fields) == first
        self.stale.append((1 - source, fields))

    @precondition(lambda self: self.stale)
    @rule(which=st.integers(0, 20))
    def an_old_move_is_sent_again(self, which):
        node, fields = self.stale[which % len(self.stale)]
        (placed,) = fields["guests"]
        if self.home[placed.guest.name] == node:
            self.stores[node](Adopt, self.wall, **fields)

    @invariant()
    def what_a_guest_was_told_stands(self):
        for name in NAMES:
            store = self.stores[self.home[name]]
            placed = store.placed()[name]
            seen = {one.id: one for one in store.events().values() if sees(placed.guest, one)}
            before = self.told[name]
            revision = placed.incarnation, placed.incarnation + placed.edits
            assert all(new >= old for new, old in zip(revision, self.revisions[name], strict=True))
            if seen != before:
                assert revision[0] > self.revisions[name][0], "a change, and the same incarnation"
            for known in before.values():
                assert known.id in seen, "an acknowledged event was lost"
                after = seen[known.id]
                assert progress(after) >= progress(known), "an event has gone back"
                assert set(after.guests) >= set(known.guests)
            self.told[name], self.revisions[name] = seen, revision

    @invariant()
    def each_event_of_a_guest_is_known_where_it_is(self):
        for number in range(1, self.events + 1):
            for store in self.stores:
                known = store.events().get(event_id(number))
                for name in known.guests if known else ():
                    home = self.stores[self.home[name]]
                    assert event_id(number) in home.events()


def progress(one):
    return 2 if one.status in FINAL else int(one.status is EventStatus.STARTED)


TestMoves = Moves.TestCase
TestMoves.settings = settings(
    max_examples=cases(15, 60),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_what_a_guest_has_written_is_kept_and_moves_with_it(store, tmp_path):
    store(Place, guests=(Guest(name="a"), Guest(name="b")))
    assert isinstance(store(Write, guest="a", name="boot/state", text="done"), Done)
    store(Write, guest="a", name="boot/key", text="")
    store(Write, guest="a", name="x/y", text="1")
    store(Write, guest="a", name="boot/key", text=None)
    store.kill()
    kept = store.placed()["a"]
    assert (kept.written, kept.edits) == ({"boot/state": "done", "x/y": "1"}, 4)
    assert store.placed()["b"].written == {}
    store(Place, guests=(Guest(name="a", properties={"hostname": "x"}),))  # as by `set`
    assert store.placed()["a"].written == kept.written
    new = Store(tmp_path / "new")
    new(Adopt, guests=(store.placed()["a"],), clock_offset=0.0)
    assert new.placed()["a"].written == kept.written
    new(Write, guest="a", name="boot", text=None)
    # It is adopted again, with what the old node was told last: it has written here since.
    new(Adopt, guests=(store.placed()["a"],), clock_offset=0.0, before={"a": ()})
    assert new.placed()["a"].written == {"x/y": "1"}
    new(Withdraw, names=("a",))
    new(Place, guests=(Guest(name="a"),))  # another one of that name
    assert new.placed()["a"].written == {}
    new.repository.close()


def test_what_a_guest_may_not_write(store):
    store(Place, guests=(Guest(name="a"),))
    for fields, code in (
        ({"guest": "z", "name": "n/k", "text": "x"}, "unknown-guest"),
        ({"guest": "a", "name": "n", "text": "x"}, "bad-name"),
        ({"guest": "a", "name": "n/k", "text": "\u00e4" * (MAX_BYTES // 2)}, "too-much"),
    ):
        assert store(Write, **fields).code == code
    deltas = len(store.deltas)
    assert isinstance(store(Write, guest="a", name="n/k", text=None), Done)
    assert len(store.deltas) == deltas
    assert store.repository.commands.find("here5") is None  # a guest may repeat that without end


@pytest.mark.parametrize("name", ["", "a/b/c", "/a", "a/", "a b/c", "k" * 129, "\u00e4/b"])
def test_a_name_that_nothing_is_written_under(name):
    message = msgspec.to_builtins(Write(command_id="1", guest="a", name=name, text="x"))
    with pytest.raises(MessageError):
        decode(message)
