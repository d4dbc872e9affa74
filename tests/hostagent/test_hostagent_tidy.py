"""The table of commands: bounded by number, not by a clock, and forgotten in slices."""

import sqlite3

import pytest

from hostagent import command_record
from hostagent import database as database_module
from hostagent.channel.messages import Done
from hostagent.channel.requests import Approve, Place, Schedule
from hostagent.commands import execute
from hostagent.database import WAL_BYTES
from hostagent.model import EventType, Guest
from hostagent.repository import Repository
from hostagent.schema import COMMANDS
from hostagent.transactions import Transactions
from tests.hostagent.test_hostagent_damage import write_old

NOW = 1_700_000_000.0
ID = "00000001-0000-4000-8000-000000000000"


@pytest.fixture
def store(tmp_path):
    made = Repository.open(tmp_path / "r")
    yield made
    made.close()


def remember(store, *numbers, size=100):
    with store.transaction():
        for number in numbers:
            store.commands.keep(f"c{number}", b"f" * 32, b"a" * size)


def held(store):
    return store._db.number("SELECT count(*) FROM commands")


def test_what_is_too_much_is_forgotten_in_slices_and_the_oldest_first(store, monkeypatch):
    remember(store, *range(1000))
    monkeypatch.setattr(command_record, "COMMANDS", 100)
    monkeypatch.setattr(command_record, "FORGOTTEN_AT_ONCE", 64)
    before = held(store)
    slices = 0
    more = True
    while more:
        with store.transaction():
            more = store.tidy()
        assert before - held(store) <= 64
        before = held(store)
        slices += 1
    assert (before, slices) == (100, 15)
    assert store.commands.find("c899") is None
    assert store.commands.find("c900") is not None


def test_the_bytes_of_answers_are_bounded_too(store, monkeypatch):
    monkeypatch.setattr(command_record, "COMMAND_BYTES", 10_000)
    remember(store, *range(100))
    remember(store, 100, size=5_000)
    with store.transaction():
        store.tidy()
    assert held(store) == 51
    assert store.commands.find("c49") is None
    assert store.commands.find("c50") is not None
    remember(store, 101, size=20_000)  # by itself it is too much, and still the last of all
    with store.transaction():
        store.tidy()
    assert held(store) == 1
    assert store.commands.find("c101") is not None


def test_the_file_shrinks_and_so_does_its_log(tmp_path, store, monkeypatch):
    remember(store, *range(20_000), size=1000)
    monkeypatch.setattr(command_record, "COMMANDS", 10)
    monkeypatch.setattr(database_module, "FREE_PAGES", 8)
    with store.transaction():
        while store.tidy():
            pass
    remember(store, "x")  # the log begins from its start, and is cut
    assert (tmp_path / "r-wal").stat().st_size <= WAL_BYTES + (1 << 16)
    store.close()
    assert (tmp_path / "r").stat().st_size < 1 << 18
    reopened = Repository.open(tmp_path / "r")
    assert held(reopened) == 11
    reopened.close()


def test_an_agent_goes_on_tidying_between_commands(store, monkeypatch):
    remember(store, *range(50))
    monkeypatch.setattr(command_record, "COMMANDS", 10)
    monkeypatch.setattr(command_record, "FORGOTTEN_AT_ONCE", 16)
    transactions = Transactions(store, "n1", lambda: NOW)
    waits = []
    while not waits or waits[-1] == 0.0:
        outcome = transactions.run([Place(command_id="p", guests=(Guest(name="a"),))], False)
        assert isinstance(outcome.answers[0][0], Done)
        waits.append(outcome.change_in)
    assert waits == [0.0, 0.0, float("inf")]
    assert held(store) == 10


def test_an_agent_that_has_nothing_to_do_leaves_nothing_in_the_log(tmp_path, store):
    """What is in the file alone is verified to the last bit when it is opened."""
    transactions = Transactions(store, "n1", lambda: NOW)
    log = tmp_path / "r-wal"
    for name in ("a", "b"):
        outcome = transactions.run([Place(command_id=name, guests=(Guest(name=name),))], False)
        assert isinstance(outcome.answers[0][0], Done)
        assert log.stat().st_size > 0
        transactions.run([], False)
        assert log.stat().st_size == 0
    copy = tmp_path / "copy"
    copy.write_bytes((tmp_path / "r").read_bytes())
    alone = Repository.open(copy)
    assert alone.guests() == store.guests()
    alone.close()


def test_no_clock_makes_a_command_be_applied_twice(store):
    """Between a commit and its retry the machine's clock is set, forward and back."""
    command = Place(command_id="p", guests=(Guest(name="a"),))
    answers = []
    for wall in (NOW, NOW + 3601, NOW + 50 * 86400, NOW - 86400):
        with store.transaction():
            answers.append(execute(store, command, wall)[0])
            store.tidy()
    assert answers == [answers[0]] * 4
    assert held(store) == 1


def test_approvals_that_change_nothing_are_not_remembered(store):
    """A guest may approve as often as it likes: it must not push out what controllers command."""

    def do(kind, command_id, **fields):
        with store.transaction():
            return execute(store, kind(command_id=command_id, **fields), NOW)[0]

    do(Place, "p", guests=(Guest(name="a"),))
    do(Schedule, "s", event_id=ID, type=EventType.REBOOT, guests=("a",))
    first = do(Approve, "1", event_id=ID, guest="a")
    assert do(Approve, "1", event_id=ID, guest="a") == first
    assert held(store) == 3
    for number in range(2, 20):
        assert do(Approve, f"{number}", event_id=ID, guest="a").event == first.event
    assert held(store) == 3


def test_a_table_of_an_older_version_that_is_far_too_long_is_cut(tmp_path):
    """A million rows of the last hour once took 54 seconds, in the next command's transaction."""
    path = tmp_path / "old"
    write_old(path, 3)
    with sqlite3.connect(path) as db:
        db.executemany(
            "INSERT INTO commands VALUES (?, ?, x'01', x'02')",
            ((f"{number:06x}", NOW - 500 + number / 1000) for number in range(100_000)),
        )
    db.close()
    large = path.stat().st_size
    store = Repository.open(path)
    assert held(store) == COMMANDS
    assert store.commands.find("old") is None
    assert store.commands.find("new") == (b"\x03", b"\x04")
    assert store.commands.find(f"{100_000 - COMMANDS:06x}") is None
    assert store.commands.find(f"{100_001 - COMMANDS:06x}") == (b"\x01", b"\x02")
    with store.transaction():
        execute(store, Place(command_id="p", guests=(Guest(name="q"),)), NOW)
        assert not store.tidy()
    store.close()
    assert path.stat().st_size < large
