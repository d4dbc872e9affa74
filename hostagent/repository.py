"""The durable store of one node's guests and events: SQLite, embedded.

What is committed survives `kill -9` and the loss of power (WAL, synchronous=FULL). Reads come from
the file as well, so there is no second truth in memory. One process at a time holds the file.

The metadata plane has a clock of its own: this machine's, plus an offset that only grows, so that a
lab can move a notice through its whole life without waiting. That clock never goes back: when the
machine's is set back, the offset grows by as much. `now` here is that clock's time, `wall` the
machine's.
"""

import json
import logging
import sqlite3
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from hostagent.channel.messages import Delta, Placed, parts
from hostagent.model import (
    MAX_CLOCK_OFFSET,
    Event,
    Guest,
    Request,
    apply,
    joined,
    next_change,
    unfold,
)

log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 4

HISTORY_AGE: Final = 7 * 24 * 3600.0
"""Seconds for which an ended event is kept: nobody looks back further than a week."""

HISTORY_COUNT: Final = 256
"""Ended events kept at most: each guest that sees one carries it in its view."""

FLOORS: Final = 4096
"""Guests withdrawn whose numbers are remembered one by one: four for each of a full node. What is
older counts for all that come."""

CLOCK_SLACK: Final = 0.001
"""Seconds by which the clock may go back: what rounding makes of a sum of times."""

COMMAND_AGE: Final = 3600.0
"""Seconds for which a command's id is remembered. A controller gives up retrying within seconds."""

_FLOORS: Final = "CREATE TABLE floors (name TEXT PRIMARY KEY, floor INTEGER NOT NULL)"

_SCHEMA: Final = f"""
CREATE TABLE state (
    clock_offset REAL NOT NULL, sequence INTEGER NOT NULL, floor INTEGER NOT NULL,
    latest REAL NOT NULL DEFAULT 0
);
INSERT INTO state VALUES (0, 0, 0, 0);
CREATE TABLE guests (
    name TEXT PRIMARY KEY, availability_set TEXT, incarnation INTEGER NOT NULL, body BLOB NOT NULL,
    edits INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX guests_by_set ON guests (availability_set) WHERE availability_set IS NOT NULL;
{_FLOORS};
CREATE TABLE events (id TEXT PRIMARY KEY, next_change REAL, ended REAL, body BLOB NOT NULL);
CREATE INDEX events_by_change ON events (next_change) WHERE next_change IS NOT NULL;
CREATE INDEX events_by_end ON events (ended) WHERE ended IS NOT NULL;
CREATE TABLE commands (
    id TEXT PRIMARY KEY, applied REAL NOT NULL, fingerprint BLOB NOT NULL, answer BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX commands_by_time ON commands (applied);
PRAGMA user_version = {SCHEMA_VERSION};
"""

_UPGRADES: Final = {
    1: "ALTER TABLE guests ADD COLUMN edits INTEGER NOT NULL DEFAULT 0; PRAGMA user_version = 2",
    2: f"{_FLOORS}; PRAGMA user_version = 3",
    3: "ALTER TABLE state ADD COLUMN latest REAL NOT NULL DEFAULT 0; PRAGMA user_version = 4",
}
"""By the version found: what makes the next of it."""

_guest = msgspec.json.Decoder(Guest)
_event = msgspec.json.Decoder(Event)


class RepositoryError(Exception):
    """The file cannot be used as a repository; says why."""


class UnknownSchema(RepositoryError):
    """The file was written by another version of this program, or is no repository."""


class RepositoryInUse(RepositoryError):
    """Another process holds the file."""


class Repository:
    """One node's guests, events, applied commands, incarnations, clock offset and sequence.

    Every method that changes something must run inside `transaction()` and gives the deltas that
    tell of the change; publish them after the transaction has been committed, not before. One
    thread at a time may use it, whichever that is.
    """

    def __init__(
        self, path: Path | str, connect: Callable[..., sqlite3.Connection] | None = None
    ) -> None:
        """Open or create the file; raises RepositoryError, UnknownSchema or RepositoryInUse.

        `connect` is called in place of `sqlite3.connect`.
        """
        self.path = Path(path)
        self._depth = 0  # of transactions
        connect = sqlite3.connect if connect is None else connect
        try:
            # Autocommit: the transactions are ours. Nobody else's lock is waited for.
            self._db = connect(path, isolation_level=None, timeout=0, check_same_thread=False)
        except sqlite3.Error as error:
            raise RepositoryError(f"{path}: {error}") from error
        try:
            self._prepare()
        except BaseException as error:
            self._db.close()
            if not isinstance(error, sqlite3.Error):
                raise
            if getattr(error, "sqlite_errorname", "") == "SQLITE_BUSY":
                raise RepositoryInUse(f"{path}: another process holds this repository") from error
            raise RepositoryError(f"{path}: {error}") from error

    def _prepare(self) -> None:
        db = self._db
        # Exclusive: two agents on one file would number their feeds apart.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        version = self._check_schema()  # before anything is written into a file that is not ours
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        with self.transaction():  # takes the lock and keeps it
            scripts = [_SCHEMA] if version == 0 else []
            scripts += [_UPGRADES[old] for old in range(version or SCHEMA_VERSION, SCHEMA_VERSION)]
            for statement in ";".join(scripts).split(";"):
                db.execute(statement)
        self._latest = float(db.execute("SELECT latest FROM state").fetchone()[0])

    def _check_schema(self) -> int:
        """Give the file's version, 0 for a new one; raises UnknownSchema if it is not ours."""
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        tables = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if version == 0 and tables == 0:
            return 0
        if not 1 <= version <= SCHEMA_VERSION:
            raise UnknownSchema(
                f"{self.path}: schema version {version}; this program reads {SCHEMA_VERSION}"
            )
        return int(version)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what is done inside; on the disk when the outermost one ends.

        They nest: an inner one that fails takes back its own changes only.
        """
        inner = self._depth > 0
        if self._db.in_transaction and not inner:  # the last one's end has failed as well
            self._db.execute("ROLLBACK")
        self._db.execute("SAVEPOINT one" if inner else "BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
            self._db.execute("RELEASE one" if inner else "COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite itself ends it on some errors, as a full disk
                self._db.execute("ROLLBACK TO one" if inner else "ROLLBACK")
                if inner:
                    self._db.execute("RELEASE one")
            raise
        finally:
            self._depth -= 1

    # What is known

    @property
    def clock_offset(self) -> float:
        """Seconds that the metadata plane's clock is ahead of this machine's."""
        return float(self._db.execute("SELECT clock_offset FROM state").fetchone()[0])

    @property
    def sequence(self) -> int:
        """The number of the last delta."""
        return int(self._db.execute("SELECT sequence FROM state").fetchone()[0])

    def guests(self) -> list[Placed]:
        """Give the guests placed here, by name."""
        rows = self._db.execute("SELECT body, incarnation, edits FROM guests ORDER BY name")
        return [
            Placed(guest=_guest.decode(body), incarnation=number, edits=edits)
            for body, number, edits in rows
        ]

    def placed(self, name: str) -> Placed | None:
        """Give one guest, if it is here."""
        row = self._db.execute(
            "SELECT body, incarnation, edits FROM guests WHERE name = ?", (name,)
        ).fetchone()
        return (
            None
            if row is None
            else Placed(guest=_guest.decode(row[0]), incarnation=row[1], edits=row[2])
        )

    def events(self, *, history: bool = True) -> list[Event]:
        """Give the events not ended, oldest first, and after them, if wanted, the ended ones."""
        where = "" if history else "WHERE ended IS NULL"
        rows = self._db.execute(f"SELECT body FROM events {where} ORDER BY ended, rowid")
        return [_event.decode(body) for (body,) in rows]

    def event(self, event_id: str) -> Event | None:
        """Give one event, active or in the history."""
        row = self._db.execute("SELECT body FROM events WHERE id = ?", (event_id,)).fetchone()
        return _event.decode(row[0]) if row else None

    def active_count(self) -> int:
        """How many events have not ended."""
        row = self._db.execute("SELECT count(*) FROM events WHERE next_change IS NOT NULL")
        return int(row.fetchone()[0])

    def next_change(self) -> float | None:
        """When the next event changes by itself."""
        row = self._db.execute(
            "SELECT min(next_change) FROM events WHERE next_change IS NOT NULL"
        ).fetchone()
        return None if row[0] is None else float(row[0])

    # Changes

    def place(self, guests: Iterable[Guest]) -> list[Delta]:
        """Put guests on this node, or change those already here.

        A guest that comes back starts above what it was when it left, so that it never sees its
        number go back. A change of the guest itself counts in its `edits`; one of its availability
        set, and so of what it can see, also in its incarnation.
        """
        changed: list[Placed] = []
        for guest in guests:
            body = msgspec.json.encode(guest, order="deterministic")
            row = self._db.execute(
                "INSERT INTO guests VALUES (?, ?, ?, ?, 0)"
                " ON CONFLICT (name) DO UPDATE SET availability_set = excluded.availability_set,"
                " body = excluded.body, edits = edits + 1,"
                " incarnation = incarnation + (availability_set IS NOT excluded.availability_set)"
                " WHERE body <> excluded.body RETURNING incarnation, edits",
                (guest.name, guest.availability_set, self._floor(guest.name) + 1, body),
            ).fetchone()
            if row is not None:
                changed.append(Placed(guest=guest, incarnation=row[0], edits=row[1]))
        return self._tell_placed(changed)

    def adopt(self, moved: Iterable[Placed]) -> list[Delta]:
        """Put guests on this node that come from another, each with a number above what it was
        there and above what it was here, if ever it was.
        """
        changed: list[Placed] = []
        for one in moved:
            known = self.placed(one.guest.name)
            incarnation = max(one.incarnation, self._floor(one.guest.name)) + 1
            edits = one.edits + 1
            if known is not None:
                other = known.guest != one.guest
                incarnation = max(incarnation, known.incarnation + other)
                edits = max(edits, known.edits + other)
            changed.append(Placed(guest=one.guest, incarnation=incarnation, edits=edits))
            self._db.execute(
                "INSERT OR REPLACE INTO guests VALUES (?, ?, ?, ?, ?)",
                (
                    one.guest.name,
                    one.guest.availability_set,
                    incarnation,
                    msgspec.json.encode(one.guest, order="deterministic"),
                    edits,
                ),
            )
        return self._tell_placed(changed)

    def withdraw(self, names: Iterable[str]) -> tuple[dict[str, tuple[int, int]], list[Delta]]:
        """Take guests off this node; names that are not here are passed over.

        Gives also the incarnation and the edits of each that was. Their events stay.
        """
        gone: dict[str, tuple[int, int]] = {}
        for name in names:
            row = self._db.execute(
                "DELETE FROM guests WHERE name = ? RETURNING incarnation, edits", (name,)
            ).fetchone()
            if row is not None:
                gone[name] = row
        # The latest at the end, where rowids are highest.
        self._db.executemany(
            "INSERT OR REPLACE INTO floors VALUES (?, ?)",
            [(name, sum(numbers)) for name, numbers in gone.items()],
        )
        old = self._db.execute(
            "DELETE FROM floors WHERE rowid IN"
            " (SELECT rowid FROM floors ORDER BY rowid DESC LIMIT -1 OFFSET ?) RETURNING floor",
            (FLOORS,),
        ).fetchall()
        if old:
            self._db.execute("UPDATE state SET floor = max(floor, ?)", max(old))
        withdrawn = tuple(gone)
        return gone, [Delta(sequence=self._number(), withdrawn=withdrawn)] if gone else []

    def _floor(self, name: str) -> int:
        """Above which a guest that is new here starts."""
        row = self._db.execute(
            "SELECT max(floor) FROM (SELECT floor FROM state"
            " UNION ALL SELECT floor FROM floors WHERE name = ?)",
            (name,),
        ).fetchone()
        return int(row[0])

    def _tell_placed(self, changed: Iterable[Placed]) -> list[Delta]:
        # Many guests placed at once are told in several deltas, each far below a frame's bound.
        return [Delta(sequence=self._number(), placed=part) for part in parts(changed) if part]

    def add(self, event: Event) -> list[Delta]:
        """Store a new event."""
        self._db.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?)",
            (event.id, next_change(event), event.ended, msgspec.json.encode(event)),
        )
        return [self._tell(event)]

    def join(self, carried: Event, here: Container[str]) -> list[Delta]:
        """Store an event that another node knew, or make one that is known the further of the two.

        `here` are the guests that are on this node, or about to be; see `model.joined`.
        """
        known = self.event(carried.id)
        if known is None:
            return self.add(carried)
        after = joined(known, carried, here)
        return [] if after == known else [self._update(after)]

    def change(self, event: Event, request: Request, now: float) -> tuple[Event, list[Delta]]:
        """Move an event on; raises IllegalTransition, and then nothing has changed."""
        after = apply(event, request, now)
        if after is event:
            return event, []
        return after, [self._update(after), *self._prune(now)]

    def settle(self, wall: float) -> list[Delta]:
        """Bring everything to the time that it is now: the clock itself, if the machine's has been
        set back; every event that something has fallen due for; and the history.
        """
        now, deltas = self._go_on(wall)
        rows = self._db.execute(
            "SELECT body FROM events WHERE next_change <= ? ORDER BY next_change", (now,)
        ).fetchall()
        for (body,) in rows:
            deltas += [self._update(after) for after in unfold(_event.decode(body), now)]
        return deltas + self._prune(now)

    def advance(self, to: float) -> list[Delta]:
        """Have the clock be `to` seconds ahead of this machine's, unless it is already."""
        if to <= self.clock_offset:
            return []
        self._db.execute("UPDATE state SET clock_offset = ?", (to,))
        return [Delta(sequence=self._number(), clock_offset=to)]

    def _go_on(self, wall: float) -> tuple[float, list[Delta]]:
        """Give the time. It is never earlier than it was before, even if the machine's clock says
        so: a guest that an event has switched off for ten seconds comes back after ten seconds.
        """
        offset = self.clock_offset
        now = wall + offset
        if now > self._latest - CLOCK_SLACK or offset + self._latest - now > MAX_CLOCK_OFFSET:
            # In the second case the machine's clock was wrong by years, and time does go back.
            self._latest = now
            return now, []
        log.warning("this machine's clock was set back by %.0f s or more", self._latest - now)
        return self._latest, self.advance(offset + self._latest - now)

    def _update(self, event: Event) -> Delta:
        self._db.execute(
            "UPDATE events SET next_change = ?, ended = ?, body = ? WHERE id = ?",
            (next_change(event), event.ended, msgspec.json.encode(event), event.id),
        )
        return self._tell(event)

    def _tell(self, event: Event) -> Delta:
        """Raise the incarnation of every guest that can see the event; `model.sees`, in SQL."""
        rows = self._db.execute(
            "UPDATE guests SET incarnation = incarnation + 1"
            " WHERE name IN (SELECT value FROM json_each(?))"
            " OR availability_set IN (SELECT value FROM json_each(?))"
            " RETURNING name, incarnation",
            (json.dumps(event.guests), json.dumps(event.availability_sets)),
        ).fetchall()
        return Delta(sequence=self._number(), events=(event,), incarnations=dict(rows))

    def _prune(self, now: float) -> list[Delta]:
        rows = self._db.execute(
            "DELETE FROM events WHERE ended < ? OR id IN"
            " (SELECT id FROM events WHERE ended IS NOT NULL ORDER BY ended DESC LIMIT -1 OFFSET ?)"
            " RETURNING id",
            (now - HISTORY_AGE, HISTORY_COUNT),
        ).fetchall()
        ids = tuple(row[0] for row in rows)
        return [Delta(sequence=self._number(), forgotten=ids)] if ids else []

    def _number(self) -> int:
        row = self._db.execute(
            "UPDATE state SET sequence = sequence + 1, latest = ? RETURNING sequence",
            (self._latest,),
        )
        return int(row.fetchone()[0])

    # Commands that have been applied

    def remembered(self, command_id: str) -> tuple[bytes, bytes] | None:
        """Give the fingerprint and the answer of a command applied before."""
        row = self._db.execute(
            "SELECT fingerprint, answer FROM commands WHERE id = ?", (command_id,)
        ).fetchone()
        return (row[0], row[1]) if row else None

    def remember(self, command_id: str, fingerprint: bytes, answer: bytes, wall: float) -> None:
        """Keep a command's answer; forget those older than COMMAND_AGE. `wall`: real time, UTC."""
        self._db.execute("DELETE FROM commands WHERE applied < ?", (wall - COMMAND_AGE,))
        self._db.execute(
            "INSERT INTO commands VALUES (?, ?, ?, ?)", (command_id, wall, fingerprint, answer)
        )
