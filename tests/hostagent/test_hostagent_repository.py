import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hostagent import repository as repository_module
from hostagent.channel.messages import Clock, Done
from hostagent.channel.requests import (
    Advance,
    Approve,
    Cancel,
    Complete,
    ListEvents,
    ListGuests,
    Now,
    Place,
    Schedule,
    Start,
    Withdraw,
)
from hostagent.commands import MAX_CLOCK_OFFSET, execute, look_up
from hostagent.model import FINAL, MAX_GUESTS, EventSource, EventType, Guest
from hostagent.repository import (
    HISTORY_AGE,
    Repository,
    RepositoryError,
    RepositoryInUse,
    UnknownSchema,
)

NOW = 1_700_000_000.0


def event_id(number):
    return f"{number:08x}-0000-4000-8000-000000000000"


@pytest.fixture
def store(tmp_path):
    made = Repository.open(tmp_path / "r.sqlite")
    yield made
    made.close()


class Commander:
    """Gives commands with new ids, and keeps what they have published."""

    def __init__(self, store):
        self.store = store
        self.number = 0
        self.deltas = []

    def __call__(self, kind, now=NOW, command_id=None, **fields):
        self.number += 1
        command = kind(command_id=command_id or f"c{self.number}", **fields)
        with self.store.transaction():
            answer, deltas = execute(self.store, command, now)
        self.deltas += deltas
        return answer

    def place(self, *names, **fields):
        return self(Place, guests=tuple(Guest(name=name, **fields) for name in names))

    def schedule(self, *guests, now=NOW, number=1, **fields):
        fields = {"type": EventType.REBOOT} | fields
        return self(Schedule, now, event_id=event_id(number), guests=guests, **fields)

    def incarnations(self):
        return {placed.guest.name: placed.incarnation for placed in self.store.guests()}


@pytest.fixture
def do(store):
    return Commander(store)


def test_what_is_committed_is_there_after_reopening(store, do, tmp_path):
    do.place("web1", "web2")
    event = do.schedule("web1", duration=60.0, source=EventSource.USER).event
    do(Advance, seconds=5.0)
    guests, sequence = store.guests(), store.sequence
    store.close()
    again = Repository.open(tmp_path / "r.sqlite")
    assert (again.guests(), again.events()) == (guests, [event])
    assert (again.sequence, again.clock_offset) == (sequence, 5.0)
    assert again.next_change() == NOW + 900
    again.close()


def test_a_commit_is_on_the_disk(store):
    """SQLite's words for: synced at each commit. The loss of power cannot be tried here."""
    assert store._db.number("PRAGMA synchronous") == 2
    assert store._db.number("PRAGMA journal_mode") == "wal"


def test_a_transaction_is_all_or_nothing(store, do):
    do.place("web1")

    def fail(*names):
        with store.transaction():
            store.place([Guest(name=names[0])])
            if len(names) > 1:
                with store.transaction():
                    store.place([Guest(name=names[1])])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail("web2", "web3")
    assert [placed.guest.name for placed in store.guests()] == ["web1"]
    with store.transaction():
        store.place([Guest(name="web2")])
        with pytest.raises(ZeroDivisionError):
            fail("web3")
    assert [placed.guest.name for placed in store.guests()] == ["web1", "web2"]


def test_a_transaction_that_cannot_even_be_rolled_back_swallows_none_that_follows(tmp_path):
    class Connection(sqlite3.Connection):
        failing = False

        def execute(self, sql, *arguments):
            if self.failing and sql == "ROLLBACK":
                self.failing = False
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(sql, *arguments)

    made = []

    def connect(*arguments, **options):
        made.append(sqlite3.connect(*arguments, factory=Connection, **options))
        return made[0]

    store = Repository.open(tmp_path / "r", connect)
    do = Commander(store)
    made[0].failing = True

    def fail():
        with store.transaction():
            store.place([Guest(name="a")])
            raise ZeroDivisionError

    with pytest.raises(sqlite3.OperationalError):
        fail()
    do.place("b")
    store.close()
    again = Repository.open(tmp_path / "r")
    assert [one.guest.name for one in again.guests()] == ["b"]
    again.close()


def test_a_file_that_cannot_be_opened_to_the_end_is_let_go(tmp_path):
    """Whatever fails on the way, the next attempt is not refused for the first one's lock."""

    class Connection(sqlite3.Connection):
        left = 0

        def execute(self, *arguments):
            Connection.left -= 1
            if Connection.left == 0:
                raise MemoryError
            return super().execute(*arguments)

    def connect(*arguments, **options):
        return sqlite3.connect(*arguments, factory=Connection, **options)

    path = tmp_path / "r"
    statements = 0
    refused = True
    while refused:
        statements += 1
        Connection.left = statements
        try:
            Repository.open(path, connect).close()
            refused = False
        except RepositoryError as error:
            assert str(error) == f"{path}: out of memory"
        Connection.left = 0
        Repository.open(path).close()
    assert statements > 10


def test_the_sequence_has_no_gap_and_the_deltas_tell_everything(store, do):
    do.place("a", "b", availability_set="s")
    do.schedule("a", duration=60.0)
    do(Start, event_id=event_id(1))
    do(Advance, seconds=120.0)
    do(Withdraw, names=("b", "nobody"))
    numbers = [delta.sequence for delta in do.deltas]
    assert numbers == list(range(1, len(numbers) + 1))
    assert store.sequence == numbers[-1]
    told = [event.status for delta in do.deltas for event in delta.events]
    assert told == ["Scheduled", "Started", "Completed"]
    assert [delta.withdrawn for delta in do.deltas if delta.withdrawn] == [("b",)]
    assert [delta.clock_offset for delta in do.deltas if delta.clock_offset] == [120.0]


def test_incarnations_rise_for_those_who_can_see_and_for_no_others(store, do):
    do.place("a", "b", availability_set="s")
    do.place("c", availability_set="t")
    do.place("d")
    assert do.incarnations() == {"a": 1, "b": 1, "c": 1, "d": 1}
    do.schedule("a", "d")
    assert do.incarnations() == {"a": 2, "b": 2, "c": 1, "d": 2}
    assert do.deltas[-1].incarnations == {"a": 2, "b": 2, "d": 2}
    assert do.deltas[-1].events[0].availability_sets == ("s",)
    do(Approve, event_id=event_id(1))
    do(Approve, event_id=event_id(1))  # changes nothing
    assert do.incarnations() == {"a": 3, "b": 3, "c": 1, "d": 3}
    do(Complete, event_id=event_id(1))
    assert do.incarnations() == {"a": 4, "b": 4, "c": 1, "d": 4}


def test_incarnations_never_go_back_when_a_guest_returns(store, do):
    do.place("a", "b")
    for number in range(5):
        do.schedule("a", number=number)
    assert do.incarnations()["a"] == 6
    do(Withdraw, names=("a",))
    do.place("a", "new")
    assert do.incarnations() == {"a": 7, "b": 1, "new": 1}


def test_placing_again_changes_only_what_is_different(store, do):
    do.place("a", port=1)
    count = len(do.deltas)
    do.place("a", port=1)
    assert len(do.deltas) == count
    do.place("a", port=2)
    (told,) = store.guests()
    assert (told.incarnation, told.edits) == (1, 1)
    do.place("a", port=2, availability_set="s")  # it sees other events from now on
    (told,) = store.guests()
    assert (told.incarnation, told.edits) == (2, 2)
    assert do.deltas[-1].placed == (told,)
    assert store.guests()[0].guest.port == 2
    do(Withdraw, names=("a",))
    do.place("a")
    (told,) = store.guests()
    assert (told.incarnation, told.edits) == (5, 0)


def test_a_command_is_applied_once(store, do):
    do.place("a")
    first = do.schedule("a", command_id="same")
    sequence = store.sequence
    again = do.schedule("a", now=NOW + 60, command_id="same")
    assert again == first
    assert isinstance(first, Done)
    assert store.sequence == sequence
    other = do.schedule("a", number=2, command_id="same")
    assert (other.code, other.command_id) == ("command-id-reused", "same")
    assert len(store.events()) == 1


def test_an_event_elsewhere_is_seen_by_the_members_of_its_sets(store, do):
    do(
        Place,
        guests=(Guest(name="a", availability_set="s"), Guest(name="b"), Guest(name="c")),
    )
    before = {one.guest.name: one.incarnation for one in store.guests()}
    done = do(
        Schedule,
        event_id=event_id(1),
        type=EventType.REBOOT,
        guests=("b",),
        elsewhere=("far", "b"),
        sets_elsewhere=("s",),
    )
    assert done.event.guests == ("b", "far")
    assert done.event.availability_sets == ("s",)
    after = {one.guest.name: one.incarnation for one in store.guests()}
    assert {name for name in after if after[name] > before[name]} == {"a", "b"}


def test_a_refusal_changes_nothing_and_is_not_remembered(store, do):
    before = store.sequence
    refused = do.schedule("a", command_id="x")
    assert refused.code == "unknown-guest"
    assert store.sequence == before
    do.place("a")
    assert isinstance(do.schedule("a", command_id="x"), Done)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ((Start, {"event_id": event_id(9)}), "unknown-event"),
        ((Complete, {"event_id": event_id(1)}), "illegal-transition"),
        ((Place, {"guests": (Guest(name="c", port=1),)}), "conflict"),
        ((Place, {"guests": (Guest(name="c", address="10.0.0.1"),)}), "conflict"),
        ((Place, {"guests": (Guest(name="c"), Guest(name="c"))}), "conflict"),
        ((Place, {"guests": (Guest(name="c", port=5), Guest(name="d", port=5))}), "conflict"),
        (
            (Place, {"guests": tuple(Guest(name=f"g{i}") for i in range(MAX_GUESTS))}),
            "too-many",
        ),
        (
            (Schedule, {"event_id": event_id(1), "guests": ("a",), "type": EventType.FREEZE}),
            "conflict",
        ),
        ((Schedule, {"event_id": event_id(9), "guests": (), "type": EventType.FREEZE}), "guests"),
        (
            (Schedule, {"event_id": event_id(2), "guests": ("a", "x"), "type": EventType.FREEZE}),
            "unknown-guest",
        ),
        ((Advance, {"seconds": MAX_CLOCK_OFFSET + 1}), "clock"),
    ],
)
def test_refusals(store, do, command, code):
    do.place("a", port=1)
    do.place("b", address="10.0.0.1")
    do.schedule("a")
    before = store.guests(), store.events(), store.sequence, store.clock_offset
    kind, fields = command
    assert do(kind, **fields).code == code
    assert (store.guests(), store.events(), store.sequence, store.clock_offset) == before


def test_two_guests_may_exchange_their_ports(store, do):
    do.place("a", port=1)
    do.place("b", port=2)
    swapped = (Guest(name="a", port=2), Guest(name="b", port=1))
    assert isinstance(do(Place, guests=swapped), Done)
    assert [placed.guest for placed in store.guests()] == list(swapped)


def test_notice(store, do):
    do.place("a")
    for number, kind in enumerate(EventType):
        event = do.schedule("a", number=number, type=kind).event
        assert (
            event.not_before - event.created
            == {
                "Freeze": 900,
                "Reboot": 900,
                "Redeploy": 600,
                "Preempt": 30,
                "Terminate": 300,
            }[kind]
        )
    event = do.schedule("a", number=10, notice=42.0).event
    assert (event.created, event.not_before, event.status) == (NOW, NOW + 42, "Scheduled")
    told = len(do.deltas)
    event = do.schedule("a", number=11, notice=0.0).event
    assert (event.status, event.started) == ("Started", NOW)
    assert [delta.events for delta in do.deltas[told:]] == [(event,)]  # it never was scheduled


def test_what_fell_due_before_a_command_is_not_the_commands_to_undo(store, do):
    do.place("a")
    do.schedule("a")
    refused = do(Cancel, now=NOW + 901, event_id=event_id(1))
    assert refused.code == "illegal-transition"
    with store.transaction():
        store.settle(NOW + 901)
    assert store.event(event_id(1)).started == NOW + 900


def test_settling_late_tells_the_same_story(store, do):
    do.place("a")
    do.schedule("a", duration=60.0)
    do.schedule("a", number=2, notice=10.0)
    assert store.next_change() == NOW + 10
    before = do.incarnations()["a"]
    with store.transaction():
        deltas = store.settle(NOW + 5000)
    assert [delta.sequence for delta in deltas] == [4, 5, 6]
    first, second = store.event(event_id(1)), store.event(event_id(2))
    assert (first.status, first.started, first.ended) == ("Completed", NOW + 900, NOW + 960)
    assert (second.status, second.started) == ("Started", NOW + 10)
    assert do.incarnations()["a"] == before + 3
    assert store.next_change() == NOW + 10 + 24 * 3600


def test_the_clock_moves_events_but_not_the_memory_of_commands(store, do):
    do(Place, command_id="kept", guests=(Guest(name="a"),))
    do.schedule("a", duration=60.0)
    answer = do(Advance, seconds=930.0)
    assert answer.now == NOW + 930
    assert store.events()[0].status == "Started"
    do(Advance, seconds=100 * 24 * 3600.0)
    assert store.commands.find("kept") is not None
    with store.transaction():
        assert store.advance(1.0) == []  # it is ahead by more


def test_history_is_bounded_by_time_and_count(store, do, monkeypatch):
    monkeypatch.setattr(repository_module, "HISTORY_COUNT", 3)
    do.place("a")
    for number in range(5):
        do.schedule("a", number=number, now=NOW + number)
        do(Cancel, now=NOW + number, event_id=event_id(number))
    assert [event.id for event in store.events()] == [event_id(n) for n in (2, 3, 4)]
    forgotten = [one for delta in do.deltas for one in delta.forgotten]
    assert forgotten == [event_id(0), event_id(1)]
    with store.transaction():
        deltas = store.settle(NOW + 3 + HISTORY_AGE + 0.5)
    assert set(deltas[-1].forgotten) == {event_id(2), event_id(3)}
    assert [event.id for event in store.events()] == [event_id(4)]


def test_lists(store, do):
    do.place("b", "a")
    do.schedule("a")
    do.schedule("b", number=2)
    do(Cancel, event_id=event_id(1))
    (active,) = look_up(store, ListEvents(), NOW)
    assert ([event.id for event in active.events], active.more) == ([event_id(2)], False)
    (everything,) = look_up(store, ListEvents(history=True), NOW)
    assert [event.id for event in everything.events] == [event_id(2), event_id(1)]
    (placed,) = look_up(store, ListGuests(), NOW)
    assert [one.guest.name for one in placed.guests] == ["a", "b"]


def test_the_time_is_told_and_not_moved(store, do):
    do(Advance, seconds=600.0)
    sequence = store.sequence
    assert look_up(store, Now(), NOW + 1) == [Clock(now=NOW + 601, clock_offset=600.0)]
    assert store.sequence == sequence


def test_the_number_of_active_events_is_bounded(store, do, monkeypatch):
    monkeypatch.setattr("hostagent.commands.MAX_ACTIVE_EVENTS", 2)
    do.place("a")
    do.schedule("a", number=1)
    do.schedule("a", number=2)
    assert do.schedule("a", number=3).code == "too-many"
    do(Cancel, event_id=event_id(1))
    assert isinstance(do.schedule("a", number=3), Done)


def test_one_process_at_a_time(store, tmp_path):
    with pytest.raises(RepositoryInUse, match="another process"):
        Repository.open(tmp_path / "r.sqlite")


def test_an_unknown_schema_is_refused(tmp_path):
    path = tmp_path / "x.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(UnknownSchema, match="99"):
        Repository.open(path)
    other = tmp_path / "y.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE mine (x)")
    db.close()
    with pytest.raises(UnknownSchema):
        Repository.open(other)
    with sqlite3.connect(other) as db:
        assert db.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (1,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)  # left as it was
    db.close()


def test_what_is_no_database_is_refused(tmp_path):
    path = tmp_path / "x.sqlite"
    path.write_bytes(b"not a database, though long enough to be looked at" * 10)
    with pytest.raises(RepositoryError, match="not a database"):
        Repository.open(path)
    with pytest.raises(RepositoryError, match="unable to open"):
        Repository.open(tmp_path / "no" / "such" / "directory")


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from test_hostagent_repository import *
store = Repository.open(sys.argv[1])
do = Commander(store)
start = int(sys.argv[2])
do(Place, now=NOW + start, command_id=f"p{{start}}", guests=(Guest(name="web1"),))
for number in range(start, start + 100000):
    answer = do.schedule("web1", number=number, now=NOW + number, command_id=f"s{{number}}",
                         notice=5.0, duration=5.0)
    print(number, do.incarnations()["web1"], flush=True)
"""


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path):
    """Killed in mid-stream: what was printed is there, once, and no number goes back."""
    path = tmp_path / "r.sqlite"
    script = WRITER.format(tests=str(Path(__file__).parent))
    randomness = random.Random(1)
    start = 1
    incarnation = 0
    for _ in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", script, str(path), str(start)], stdout=subprocess.PIPE
        )
        first = writer.stdout.readline()
        time.sleep(randomness.uniform(0, 0.05))
        os.kill(writer.pid, signal.SIGKILL)
        lines = (first + writer.stdout.read()).split(b"\n")[:-1]
        writer.stdout.close()
        assert writer.wait() == -signal.SIGKILL
        acknowledged = [tuple(map(int, line.split())) for line in lines]
        assert acknowledged
        assert acknowledged[0][1] > incarnation
        last, incarnation = acknowledged[-1]
        store = Repository.open(path)
        do = Commander(store)
        # The one that was on its way may be there or not; asking again makes it be there once.
        do.schedule(
            "web1",
            number=last + 1,
            now=NOW + last + 1,
            command_id=f"s{last + 1}",
            notice=5.0,
            duration=5.0,
        )
        events = store.events()
        assert sorted(event.id for event in events if event.status not in FINAL) == sorted(
            event_id(number) for number in range(max(1, last + 1 - 9), last + 2)
        )
        assert do.incarnations()["web1"] >= incarnation
        incarnation = do.incarnations()["web1"]
        start = last + 2
        store.close()


def test_properties_are_checked_and_their_order_is_no_change(store, do):
    refused = do(Place, guests=(Guest(name="a", properties={"regoin": "x"}),))
    assert (refused.code, store.guests()) == ("bad-property", [])
    assert "guest a: " in refused.reason
    assert "did you mean region" in refused.reason
    do(Place, guests=(Guest(name="a", properties={"tags.a": "1", "tags.b": "2"}),))
    do(Place, guests=(Guest(name="a", properties={"tags.b": "2", "tags.a": "1"}),))
    assert store.guests()[0].edits == 0
    do(Place, guests=(Guest(name="a", properties={"tags.b": "2"}),))
    assert store.guests()[0].edits == 1


def test_a_guest_approves_what_it_can_see_and_nothing_else(store, do):
    do.place("a", "b", availability_set="s")
    do.place("c")
    do.schedule("a")
    sequence = store.sequence
    refusals = [do(Approve, event_id=event_id(1), guest=name) for name in ("c", "nobody")]
    refusals.append(do(Approve, event_id=event_id(2), guest="a"))
    assert {one.code for one in refusals} == {"unknown-event"}
    assert refusals[0].reason == refusals[1].reason  # and no word of whether it exists
    assert store.sequence == sequence
    assert do(Approve, event_id=event_id(1), guest="b").event.status == "Started"
    number = do.incarnations()
    assert do(Approve, event_id=event_id(1), guest="a").event.status == "Started"
    assert do.incarnations() == number
