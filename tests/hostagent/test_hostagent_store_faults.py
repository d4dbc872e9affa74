"""An error at every write, sync and allocation: nothing is lost, nothing hangs, all is told.

A run of a hundred commands is done again and again, with the fault at the first operation, at the
second, and so on until a run gets through. HOSTAGENT_FAULTS=all tries them all; without it, those
that this many steps pick out.
"""

import contextlib
import os
import random
import shutil
import subprocess
import sys

import pytest

from hostagent.channel.messages import Done, Failed
from hostagent.channel.requests import (
    Adopt,
    Advance,
    Approve,
    Cancel,
    Complete,
    Place,
    Placed,
    Schedule,
    Withdraw,
)
from hostagent.database import RepositoryError
from hostagent.model import EventType, Guest
from hostagent.repository import Repository
from hostagent.transactions import Transactions
from tests.hostagent.test_hostagent_damage import write_old
from tests.thorough import cases

NOW = 1_700_000_000.0
SAMPLE = cases(5, 16)


def event_id(number):
    return f"{number:08x}-0000-4000-8000-000000000000"


def commands():
    """A hundred commands of every kind, each of which succeeds after those before it."""
    yield Place(
        command_id="place",
        guests=tuple(Guest(name=f"g{n}", availability_set=f"s{n % 3}") for n in range(12)),
    )
    for n in range(16):
        name = f"g{n % 11}"
        yield Schedule(
            command_id=f"{n}-plan",
            event_id=event_id(n),
            type=EventType.REBOOT,
            guests=(name, f"g{(n + 1) % 11}"),
            duration=30.0,
        )
        if n % 3:
            yield Approve(command_id=f"{n}-approve", event_id=event_id(n), guest=name)
            yield Complete(command_id=f"{n}-complete", event_id=event_id(n))
        else:
            yield Cancel(command_id=f"{n}-cancel", event_id=event_id(n))
            yield Advance(command_id=f"{n}-advance", to=10.0 * (n + 1))
        yield Withdraw(command_id=f"{n}-leave", names=("g11",))
        moved = Placed(guest=Guest(name="g11", port=n + 1), incarnation=n, edits=n)
        yield Adopt(command_id=f"{n}-adopt", clock_offset=5.0 * n, guests=(moved,))
        properties = {"tags.n": "x" * 15 * n}
        yield Place(command_id=f"{n}-set", guests=(Guest(name=name, properties=properties),))
    yield Withdraw(command_id="last", names=("g1", "g2"))
    yield Place(command_id="set", guests=(Guest(name="g1"),))


COMMANDS = list(commands())[:100]


def contents(store):
    """All that is stored, but for the time at which the last change was."""
    with store.transaction():
        tables = {}
        for table in ("state", "guests", "floors", "events", "commands"):
            tables[table] = store._db.rows(table)
    return tables


def carry_out(store, start=0):
    """Have the commands done from `start` on, until one fails; give how many are done, and why."""
    transactions = Transactions(store, "n1", lambda: NOW)
    for number, command in enumerate(COMMANDS[start:], start):
        (answer,) = transactions.run([command], False).answers[0]
        if isinstance(answer, Failed):
            assert answer.code == "repository", answer
            assert answer.command_id == command.command_id
            assert answer.reason.startswith("the repository has failed: ")
            assert "\n" not in answer.reason
            return number, answer.reason
        assert isinstance(answer, Done)
    return len(COMMANDS), ""


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """What is stored after so many commands, where nothing fails."""
    store = Repository.open(tmp_path_factory.mktemp("reference") / "r")
    transactions = Transactions(store, "n1", lambda: NOW)
    states = [contents(store)]
    for command in COMMANDS:
        (answer,) = transactions.run([command], False).answers[0]
        assert isinstance(answer, Done), answer
        states.append(contents(store))
    store.close()
    return states


@pytest.fixture(scope="module")
def disk():
    faulty = pytest.importorskip("tests.hostagent.faulty_sqlite")
    return faulty.Disk()


def points(total):
    """The operations to fail at, of so many."""
    if os.environ.get("HOSTAGENT_FAULTS") == "all":
        return range(1, total + 1)
    first, step = random.Random(total).randrange(1, 9), max(total // SAMPLE, 1)
    return range(first, total + 1, step)


def operations(disk, path):
    disk.arm(0)
    store = Repository.open(path, disk.connect)
    assert carry_out(store) == (len(COMMANDS), "")
    store.close()
    return disk.count


def fresh(tmp_path):
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    return tmp_path / "r"


@pytest.mark.parametrize("code", [13, 778], ids=["full", "broken"])
def test_a_disk_that_fails_once(disk, reference, tmp_path, code):
    """What was refused succeeds when it is asked for again, and everything is there once."""
    total = operations(disk, tmp_path / "r")
    assert total > 500
    refusals = 0
    for at in points(total):
        path = fresh(tmp_path)
        disk.arm(at, code)
        try:
            store = Repository.open(path, disk.connect)
        except RepositoryError as error:
            assert str(path) in str(error)
            store = Repository.open(path, disk.connect)
        done, why = carry_out(store)
        if why:
            refusals += 1
            assert carry_out(store, done) == (len(COMMANDS), "")
        assert contents(store) == reference[-1], at
        store.close()
        store = Repository.open(path)
        assert contents(store) == reference[-1], at
        store.close()
    assert refusals


@pytest.mark.parametrize("code", [13, 778], ids=["full", "broken"])
def test_a_disk_that_fails_for_ever_and_then_the_power(disk, reference, tmp_path, code):
    """What was acknowledged is on the disk; what was refused may be, and is not done twice."""
    total = operations(disk, tmp_path / "r")
    for at in points(total):
        path = fresh(tmp_path)
        disk.arm(at, code, lasting=True)
        done, store = 0, None
        try:
            store = Repository.open(path, disk.connect)
            done, _ = carry_out(store)
        except RepositoryError as error:
            assert str(path) in str(error)
        left = tmp_path / "left"
        left.mkdir()
        disk.crash(left)
        if store is not None:
            store.close()
        again = Repository.open(left / "r")
        kept = contents(again)
        assert kept in (reference[done], reference[min(done + 1, len(COMMANDS))]), (at, done)
        assert carry_out(again, done) == (len(COMMANDS), "")
        assert contents(again) == reference[-1], at
        again.close()


def test_a_command_that_was_carried_out_is_answered_when_nothing_more_can_be_stored(tmp_path):
    """It comes again, for its answer was lost, with others that cannot be carried out any more."""
    store = Repository.open(tmp_path / "r")
    transactions = Transactions(store, "n1", lambda: NOW)
    first, second = COMMANDS[:2]
    (before,) = transactions.run([first], False).answers
    store._db._db.execute("PRAGMA query_only = 1")  # as a full disk
    known, refused = transactions.run([first, second], False).answers
    assert known == before
    assert (refused[0].code, refused[0].command_id) == ("repository", second.command_id)
    store.close()


def test_a_disk_that_fails_while_an_older_file_is_taken_over(disk, tmp_path):
    """The file stays what it was, or is what it becomes, and nothing in between."""
    write_old(tmp_path / "r", 3)
    disk.arm(0)
    store = Repository.open(tmp_path / "r", disk.connect)
    wanted = contents(store)
    store.close()
    total = disk.count
    assert total > 30
    for at in points(total):
        path = fresh(tmp_path)
        write_old(path, 3)
        left = tmp_path / "left"
        left.mkdir()
        disk.arm(at, 778, lasting=True)
        with contextlib.suppress(RepositoryError):  # or it fails too late to matter
            Repository.open(path, disk.connect).close()
        shutil.copy(path, left)
        disk.crash(left)
        for one in (path, left / "r"):
            store = Repository.open(one)
            assert contents(store) == wanted, at
            store.close()


def test_a_memory_that_fails_once(tmp_path):
    """In a process of its own, for SQLite takes an allocator only before its first use."""
    pytest.importorskip("tests.hostagent.faulty_sqlite")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from tests.hostagent.test_hostagent_store_faults import *; "
            "main_of_memory(sys.argv[1])",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert int(done.stdout.split()[1]) > SAMPLE // 4, done.stdout


def main_of_memory(directory):
    """Fail at allocations, one by one; print how many there are and how many commands failed."""
    from pathlib import Path

    from tests.hostagent.faulty_sqlite import Memory

    memory = Memory()
    place = Path(directory) / "memory"
    place.mkdir()

    def run(at):
        path = fresh(place)
        memory.arm(at)
        try:
            store = Repository.open(path)
        except RepositoryError as error:
            assert str(path) in str(error)
            store = Repository.open(path)
        done, why = carry_out(store)
        failed = bool(why)
        if failed:
            assert carry_out(store, done) == (len(COMMANDS), ""), at
        memory.arm(0)
        found = contents(store)
        store.close()
        return found, failed

    reference, _ = run(0)
    memory.arm(0)
    run(0)
    total = 0
    store = Repository.open(fresh(place))
    memory.arm(0)
    carry_out(store)
    total = memory.count
    store.close()
    failures = 0
    for at in points(total):
        found, failed = run(at)
        assert found == reference, at
        failures += failed
    sys.stdout.write(f"{total} {failures}")
    sys.stdout.flush()
    os._exit(0)  # the allocator goes before what it has given is given back
