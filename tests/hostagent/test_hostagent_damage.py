"""A repository whose file is not what was stored: every row has a checksum, and old files none."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys

import pytest

from hostagent.channel.messages import Done
from hostagent.channel.requests import Advance, Approve, Cancel, Place, Schedule, Withdraw
from hostagent.commands import execute
from hostagent.database import Damaged, RepositoryError, UnknownSchema
from hostagent.model import EventType, Guest
from hostagent.repository import Repository
from hostagent.schema import VERSION
from tests.thorough import cases

NOW = 1_700_000_000.0


def event_id(number):
    return f"{number:08x}-0000-4000-8000-000000000000"


def fill(store):
    """Twelve guests and six events, two of them ended, and a guest that has left."""
    commands = [
        Place(
            command_id="place",
            guests=tuple(
                Guest(
                    name=f"web{number}",
                    port=number,
                    availability_set=f"set{number % 3}",
                    properties={"region": "westeurope", "tags.name": f"web {number}"},
                )
                for number in range(1, 14)
            ),
        ),
        *(
            Schedule(
                command_id=f"schedule{number}",
                event_id=event_id(number),
                type=EventType.REBOOT,
                guests=(f"web{number}", f"web{number + 6}"),
                description="a new kernel",
                duration=60.0,
            )
            for number in range(1, 7)
        ),
        Approve(command_id="approve", event_id=event_id(1)),
        Cancel(command_id="cancel1", event_id=event_id(2)),
        Cancel(command_id="cancel2", event_id=event_id(3)),
        Withdraw(command_id="withdraw", names=("web13",)),
        Advance(command_id="advance", seconds=5.0),
    ]
    for command in commands:
        with store.transaction():
            answer, _ = execute(store, command, NOW)
        assert isinstance(answer, Done), answer


def served(path):
    """All that a repository says, and what it answers to a command that comes again."""
    store = Repository.open(path)
    try:
        return (
            store.guests(),
            store.events(),
            [store.event(event_id(number)) for number in range(8)],
            [store.placed(f"web{number}") for number in range(15)],
            store.clock_offset,
            store.sequence,
            store.next_change(),
            store.active_count(),
            store.commands.find("schedule4"),
            store.commands.find("nothing"),
        )
    finally:
        store.close()


@pytest.fixture
def path(tmp_path):
    store = Repository.open(tmp_path / "r.sqlite")
    fill(store)
    store.close()
    return tmp_path / "r.sqlite"


def flip(data, bit):
    data[bit // 8] ^= 1 << bit % 8


FLIPS = int(os.environ.get("HOSTAGENT_FLIPS", cases(300, 1500)))


def test_of_all_bits_that_flip_none_is_served_as_truth(path, tmp_path):
    """HOSTAGENT_FLIPS says how many are tried, besides bits of each of SQLite's first 120 bytes."""
    whole, truth = path.read_bytes(), served(path)
    randomness = random.Random(1)
    bits = [
        *range(0, 120 * 8, cases(5, 1)),
        *(randomness.randrange(len(whole) * 8) for _ in range(FLIPS)),
    ]
    data = bytearray(whole)
    other = tmp_path / "flipped.sqlite"
    refused = 0
    for bit in bits:
        flip(data, bit)
        other.write_bytes(data)
        flip(data, bit)
        try:
            assert served(other) == truth, bit
        except RepositoryError as error:
            assert str(other) in str(error)
            assert "\n" not in str(error), bit
            refused += 1
        finally:
            for rest in ("-wal", "-shm", "-journal"):
                other.with_name(other.name + rest).unlink(missing_ok=True)
    assert refused > len(bits) // 10


def test_a_row_that_changes_while_the_agent_runs_is_not_served(path):
    store = Repository.open(path)
    store._db._db.execute("UPDATE guests SET incarnation = 1 WHERE name = 'web4'")
    with pytest.raises(Damaged, match="a row of guests"):
        store.guests()
    with pytest.raises(Damaged, match="move it away"), store.transaction():
        execute(
            store,
            Schedule(command_id="x", event_id=event_id(9), type=EventType.FREEZE, guests=("web4",)),
            NOW,
        )
    assert store.event(event_id(9)) is None
    store.close()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM state", "its state is gone"),
        ("INSERT INTO state SELECT 2, clock_offset, sequence, floor, latest, 0 FROM state", "row"),
        ("DROP TABLE state", "its tables"),
        ("DROP TABLE events", "its tables"),
        ("DROP TABLE commands", "its tables"),
        ("DROP INDEX guests_by_set", "its tables"),
        ("CREATE TABLE mine (x)", "its tables"),
        ("UPDATE events SET body = '{}' WHERE number = 1", "a row of events"),
        ("UPDATE commands SET answer = x'00' WHERE number = 1", "a row of commands"),
        ("UPDATE floors SET floor = 1", "a row of floors"),
    ],
)
def test_what_somebody_has_done_to_a_file_is_told(path, statement, said):
    with sqlite3.connect(path) as db:
        db.execute(statement)
    db.close()
    with pytest.raises(Damaged, match=said):
        Repository.open(path)


def test_a_file_with_a_hole_in_its_middle_is_told(path):
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 4096)
    with pytest.raises(RepositoryError):
        Repository.open(path)


def agent(repository):
    """Start an agent on the file; give its exit code and what it says."""
    directory = repository.parent
    command = ["-m", "hostagent", "agent", "--node", "n", "--repository", str(repository)]
    command += ["--command", f"{directory}/c", "--feed", f"{directory}/f"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=30)
    return done.returncode, done.stderr


def test_an_agent_says_in_a_line_what_is_wrong_with_its_repository(path, short_path):
    copy = short_path / "r"
    shutil.copy(path, copy)
    with sqlite3.connect(copy) as db:
        db.execute("DROP TABLE events")
    db.close()
    code, said = agent(copy)
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith(f"Error: {copy}: damaged: its tables")
    copy.write_bytes(b"\xff" * 8192)
    code, said = agent(copy)
    assert (code, said) == (2, f"Error: {copy}: file is not a database\n")
    code, said = agent(short_path / "no" / "r")
    assert (code, said) == (2, f"Error: --repository: the directory is missing: {short_path}/no\n")
    assert not (short_path / "no").exists()


# Older versions

OLD = """
CREATE TABLE state (clock_offset REAL NOT NULL, sequence INTEGER NOT NULL, floor INTEGER NOT NULL);
INSERT INTO state VALUES (30.0, 17, 2);
CREATE TABLE guests (
    name TEXT PRIMARY KEY, availability_set TEXT, incarnation INTEGER NOT NULL, body BLOB NOT NULL,
    edits INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
INSERT INTO guests VALUES ('a', 's', 7, CAST('{"name":"a","availability_set":"s"}' AS BLOB), 3);
CREATE INDEX guests_by_set ON guests (availability_set) WHERE availability_set IS NOT NULL;
CREATE TABLE floors (name TEXT PRIMARY KEY, floor INTEGER NOT NULL);
INSERT INTO floors VALUES ('b', 9);
CREATE TABLE events (id TEXT PRIMARY KEY, next_change REAL, ended REAL, body BLOB NOT NULL);
INSERT INTO events VALUES (
    '00000001-0000-4000-8000-000000000000', 1700000900.0, NULL,
    CAST('{"id":"00000001-0000-4000-8000-000000000000","type":"Reboot","source":"Platform",'
    || '"description":"","guests":["a"],"created":1700000000.0,"not_before":1700000900.0}' AS BLOB)
);
CREATE INDEX events_by_change ON events (next_change) WHERE next_change IS NOT NULL;
CREATE INDEX events_by_end ON events (ended) WHERE ended IS NOT NULL;
CREATE TABLE commands (
    id TEXT PRIMARY KEY, applied REAL NOT NULL, fingerprint BLOB NOT NULL, answer BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX commands_by_time ON commands (applied);
INSERT INTO commands VALUES
    ('old', 1699999000.0, x'01', x'02'), ('new', 1699999900.0, x'03', x'04');
"""


def write_old(path, version, *more):
    db = sqlite3.connect(path)
    db.executescript(OLD)
    if version == 1:
        db.execute("ALTER TABLE guests DROP COLUMN edits")
    if version < 3:
        db.execute("DROP TABLE floors")
    if version == 4:
        db.execute("ALTER TABLE state ADD COLUMN latest REAL NOT NULL DEFAULT 0")
    for statement in more:
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {version}")
    db.commit()
    db.close()


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_a_file_of_an_older_version_is_taken_over(tmp_path, version):
    path = tmp_path / "old"
    write_old(path, version)
    for _ in range(2):
        store = Repository.open(path)
        (told,) = store.guests()
        edits = 0 if version == 1 else 3
        assert (told.guest.name, told.incarnation, told.edits) == ("a", 7, edits)
        (event,) = store.events()
        assert (event.guests, event.notice_only) == (("a",), False)
        assert (store.clock_offset, store.sequence) == (30.0, 17)
        assert store.next_change() == 1700000900.0
        assert store.commands.find("old") == (b"\x01", b"\x02")
        assert store.commands.find("new") == (b"\x03", b"\x04")
        assert store._db.number("PRAGMA user_version") == VERSION
        assert store._db.number("PRAGMA auto_vacuum") == 2
        store.close()
    store = Repository.open(path)
    with store.transaction():
        (delta,) = store.place([Guest(name="b")])
    assert delta.placed[0].incarnation == (3 if version < 3 else 10)
    store.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE guests SET body = CAST('{\"name\":7}' AS BLOB)",
        "UPDATE events SET body = x'ff'",
        "DROP TABLE events",
        "DELETE FROM state",
    ],
)
def test_an_older_file_that_is_damaged_is_refused_and_left_as_it_was(tmp_path, damage):
    path = tmp_path / "old"
    write_old(path, 3, damage)
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(RepositoryError, match=str(path)):
            Repository.open(path)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (3,)
    db.close()
    assert len(before) == path.stat().st_size


def test_no_flipped_bit_makes_an_older_version_of_this_one():
    assert {VERSION ^ 1 << bit for bit in range(31)}.isdisjoint({1, 2, 3, 4})


@pytest.mark.parametrize("version", [5, 6, 7, 9, 99])
def test_a_file_of_a_version_to_come_is_refused(tmp_path, version):
    write_old(tmp_path / "new", version)
    with pytest.raises(UnknownSchema, match=f"version {version}; this program reads {VERSION}"):
        Repository.open(tmp_path / "new")
