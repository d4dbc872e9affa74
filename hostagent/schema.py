"""The tables of a repository, and the statements that upgrade those of older versions.

Constants only. Every row ends with the checksum of its other columns.
"""

from collections.abc import Mapping
from typing import Final

VERSION: Final = 8
"""Not 5: no single flipped bit turns it into an older version."""

COMMANDS: Final = 1 << 16
"""Commands remembered at most. They are counted, not timed, so that setting the machine's clock
never causes a command to be applied twice. A controller gives up within seconds, in which an agent
applies a few thousand commands. It may retry for longer while the agent is away, which applies none
then."""

COMMAND_BYTES: Final = 64 << 20
"""Bytes of answers remembered at most: six hundred of the longest, with events of a thousand
guests."""

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "state": ("one", "clock_offset", "sequence", "floor", "latest"),
    "guests": ("name", "availability_set", "incarnation", "edits", "body"),
    "floors": ("number", "name", "floor"),
    "events": ("number", "id", "next_change", "ended", "body"),
    "commands": ("number", "total", "id", "fingerprint", "answer"),
}

SCHEMA: Final = (
    "CREATE TABLE state (one INTEGER PRIMARY KEY, clock_offset REAL NOT NULL,"
    " sequence INTEGER NOT NULL, floor INTEGER NOT NULL, latest REAL NOT NULL,"
    " checksum INTEGER NOT NULL)",
    "CREATE TABLE guests (name TEXT PRIMARY KEY, availability_set TEXT,"
    " incarnation INTEGER NOT NULL, edits INTEGER NOT NULL, body BLOB NOT NULL,"
    " checksum INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX guests_by_set ON guests (availability_set) WHERE availability_set IS NOT NULL",
    "CREATE TABLE floors (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
    " floor INTEGER NOT NULL, checksum INTEGER NOT NULL)",
    "CREATE TABLE events (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, next_change REAL,"
    " ended REAL, body BLOB NOT NULL, checksum INTEGER NOT NULL)",
    "CREATE INDEX events_by_change ON events (next_change) WHERE next_change IS NOT NULL",
    "CREATE INDEX events_by_end ON events (ended) WHERE ended IS NOT NULL",
    "CREATE TABLE commands (number INTEGER PRIMARY KEY, total INTEGER NOT NULL,"
    " id TEXT NOT NULL UNIQUE, fingerprint BLOB NOT NULL, answer BLOB NOT NULL,"
    " checksum INTEGER NOT NULL)",
)
"""`commands.total` is the length of all answers up to this one, including forgotten ones."""

LAST_WITHOUT_CHECKSUMS: Final = 4

UPGRADES: Final = {
    1: ("ALTER TABLE guests ADD COLUMN edits INTEGER NOT NULL DEFAULT 0",),
    2: ("CREATE TABLE floors (name TEXT PRIMARY KEY, floor INTEGER NOT NULL)",),
    3: ("ALTER TABLE state ADD COLUMN latest REAL NOT NULL DEFAULT 0",),
    4: (
        *(f"ALTER TABLE {table} RENAME TO old_{table}" for table in COLUMNS),
        *("DROP INDEX guests_by_set", "DROP INDEX events_by_change", "DROP INDEX events_by_end"),
    ),
}
"""By the version found: the statements that make the next version of it. The last ones rename the
tables, whose rows are then copied into the current ones."""

TAKEN_OVER: Final[Mapping[str, str]] = {
    "state": "SELECT 1, clock_offset, sequence, floor, latest FROM old_state",
    "guests": "SELECT name, availability_set, incarnation, edits, body FROM old_guests",
    "floors": "SELECT rowid, name, floor FROM old_floors",
    "events": "SELECT rowid, id, next_change, ended, body FROM old_events",
    "commands": "SELECT row_number() OVER latest, sum(length(answer)) OVER latest,"
    " id, fingerprint, answer"
    f" FROM (SELECT * FROM old_commands ORDER BY applied DESC LIMIT {COMMANDS})"
    " WINDOW latest AS (ORDER BY applied, id ROWS UNBOUNDED PRECEDING)",
}
"""By table: the query that reads its rows from the last version without checksums."""
