"""A repository's file: SQLite, where every row carries a checksum.

SQLite does not notice a bit that has flipped on the disk. So each row is compared with its checksum
when it is read, and all rows when the file is opened. This module opens, upgrades and verifies the
file, and keeps it small. It runs in the agent's process, and does not know what the rows mean.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self, TypeAlias
from zlib import crc32

import msgspec

from hostagent.schema import (
    COLUMNS,
    LAST_WITHOUT_CHECKSUMS,
    SCHEMA,
    TAKEN_OVER,
    UPGRADES,
    VERSION,
)

log = logging.getLogger(__name__)

WAL_BYTES: Final = 4 << 20
"""The write-ahead log is cut to this size after a checkpoint: SQLite's own threshold for one."""

FREE_PAGES: Final = 256
"""Free pages (4 KiB each) that the file keeps for reuse; further ones are given back."""

SHRUNK_AT_ONCE: Final = 256
"""Pages given back in one transaction: some milliseconds."""

_encode: Final = msgspec.msgpack.Encoder().encode

Row: TypeAlias = tuple[Any, ...]
Decoder: TypeAlias = msgspec.json.Decoder[Any]


class RepositoryError(Exception):
    """The file cannot be used as a repository, for the reason given."""


class UnknownSchema(RepositoryError):
    """The file was written by another version of this program, or is not a repository."""


class RepositoryInUse(RepositoryError):
    """Another process holds the file."""


class Damaged(RepositoryError):
    """The file does not hold what was stored in it."""

    def __init__(self, path: Path, what: object) -> None:
        super().__init__(f"{path}: damaged: {what}; move it away to begin without it")


UNREADABLE: Final = (UnicodeDecodeError, OverflowError)
"""Other errors that Python's sqlite3 raises where a file holds nonsense."""


class Database:
    """One file, held by this process alone, used by one thread at a time."""

    def __init__(
        self, path: Path, bodies: Mapping[str, Decoder], connection: sqlite3.Connection
    ) -> None:
        self.path = path
        self._bodies = bodies
        self._db = connection
        self._depth = 0  # of transactions
        self._changes_in_file = -1

    @classmethod
    def open(
        cls,
        path: Path | str,
        bodies: Mapping[str, Decoder],
        connect: Callable[..., sqlite3.Connection] = sqlite3.connect,
    ) -> Self:
        """Open or create the file; raises RepositoryError, UnknownSchema, RepositoryInUse, Damaged.

        `bodies` read the last column of some tables' rows.
        """
        try:
            # Autocommit: the transactions are ours. No wait for a lock of another process.
            connection = connect(path, isolation_level=None, timeout=0, check_same_thread=False)
        except (sqlite3.Error, MemoryError) as error:
            raise RepositoryError(f"{path}: {told(error)}") from error
        made = cls(Path(path), bodies, connection)
        with made.closed_on_error():
            made._prepare()
        return made

    @contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Close the file if what is done inside fails; SQLite's errors become RepositoryError."""
        try:
            yield
        except BaseException as error:
            self._db.close()
            if isinstance(error, UNREADABLE):
                raise Damaged(self.path, error) from error
            if not isinstance(error, (sqlite3.Error, MemoryError)):
                raise
            name = getattr(error, "sqlite_errorname", "")
            if name == "SQLITE_BUSY":
                message = f"{self.path}: another process holds this repository"
                raise RepositoryInUse(message) from error
            if name == "SQLITE_NOTADB":
                raise UnknownSchema(f"{self.path}: {error}") from error
            if name.startswith("SQLITE_CORRUPT"):
                raise Damaged(self.path, error) from error
            raise RepositoryError(f"{self.path}: {told(error)}") from error

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what is done inside; on the disk when the outermost one ends.

        They nest: an inner one that fails takes back its own changes only.
        """
        inner = self._depth > 0
        if self._db.in_transaction and not inner:  # the last one could not even be rolled back
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

    # Rows

    def rows(self, table: str, rest: str = "", *arguments: object) -> list[Row]:
        """Return rows, in the order of COLUMNS; `rest` is SQL that follows the table's name.

        Raises Damaged.
        """
        columns = ", ".join(COLUMNS[table])
        found = self._db.execute(f"SELECT {columns}, checksum FROM {table} {rest}", arguments)
        return [self._checked(table, row) for row in found.fetchall()]

    def row(self, table: str, rest: str = "", *arguments: object) -> Row | None:
        """Return the first of such rows."""
        return next(iter(self.rows(table, f"{rest} LIMIT 1", *arguments)), None)

    def number(self, query: str, *arguments: object) -> Any:
        """Return the one value that a query has for its result."""
        return self._db.execute(query, arguments).fetchone()[0]

    def put(self, table: str, rows: Iterable[Row]) -> None:
        """Store rows, in place of those with the same keys."""
        marks = ", ".join("?" * (len(COLUMNS[table]) + 1))
        self._db.executemany(
            f"INSERT OR REPLACE INTO {table} VALUES ({marks})",
            [(*row, _checksum(table, row)) for row in rows],
        )

    def change(self, table: str, column: str, rows: Iterable[Row]) -> None:
        """Update one column of existing rows; `rows` are whole, with the new value."""
        key, at = COLUMNS[table][0], COLUMNS[table].index(column)
        self._db.executemany(
            f"UPDATE {table} SET {column} = ?, checksum = ? WHERE {key} = ?",
            [(row[at], _checksum(table, row), row[0]) for row in rows],
        )

    def delete(self, table: str, where: str, *arguments: object) -> list[Row]:
        """Delete rows and return them."""
        gone = self.rows(table, f"WHERE {where}", *arguments)
        key = COLUMNS[table][0]
        self._db.executemany(f"DELETE FROM {table} WHERE {key} = ?", [row[:1] for row in gone])
        return gone

    def shrink(self) -> bool:
        """Give some free pages back to the file system; returns whether there are more."""
        if self.number("PRAGMA freelist_count") <= FREE_PAGES:
            return False
        self._db.execute(f"PRAGMA incremental_vacuum({SHRUNK_AT_ONCE})").fetchall()
        return bool(self.number("PRAGMA freelist_count") > FREE_PAGES)

    def rest(self) -> None:
        """Move the write-ahead log into the file, where every bit is verified.

        SQLite would read a log with a flipped bit only up to there.
        """
        if self._db.total_changes != self._changes_in_file:
            self.number("PRAGMA wal_checkpoint(TRUNCATE)")
            self._changes_in_file = self._db.total_changes

    def _checked(self, table: str, row: Sequence[Any]) -> Row:
        *values, checksum = row
        if checksum != _checksum(table, values):
            raise Damaged(self.path, f"a row of {table} is not what was stored")
        return tuple(values)

    # Opening

    def _prepare(self) -> None:
        db = self._db
        # Exclusive: two agents on one file would number their feeds apart.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA cell_size_check = ON")
        db.execute("PRAGMA temp_store = MEMORY")  # an agent opens no file elsewhere
        version = self._version()  # before anything is written into a foreign file
        if not version:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        with self.transaction():  # takes the lock and keeps it
            if version != VERSION:
                self._upgrade(version)
            self._verify()
        if 0 < version < VERSION:
            self._rewrite()

    def _version(self) -> int:
        """Return the file's version, 0 for a new one; raises UnknownSchema for a foreign file."""
        version = self.number("PRAGMA user_version")
        tables = self.number("SELECT count(*) FROM sqlite_schema")
        if version == 0 and tables == 0:
            return 0
        if version not in (*UPGRADES, VERSION):
            raise UnknownSchema(
                f"{self.path}: schema version {version}; this program reads {VERSION}, and"
                f" upgrades 1 to {LAST_WITHOUT_CHECKSUMS}"
            )
        return int(version)

    def _upgrade(self, version: int) -> None:
        """Create the current tables, and take over the rows of an older version."""
        for old in range(version or VERSION, LAST_WITHOUT_CHECKSUMS + 1):
            if old == LAST_WITHOUT_CHECKSUMS:
                self._check_structure(*(table for table in COLUMNS if table != "commands"))
            for statement in UPGRADES[old]:
                self._db.execute(statement)
        for statement in SCHEMA:
            self._db.execute(statement)
        if version:
            for table, query in TAKEN_OVER.items():
                self.put(table, self._db.execute(query).fetchall())
                self._db.execute(f"DROP TABLE old_{table}")
        else:
            self.put("state", [(1, 0.0, 0, 0, 0.0)])
        self._db.execute(f"PRAGMA user_version = {VERSION}")

    def _rewrite(self) -> None:
        """Rewrite the file so that it can shrink. The file is usable even if that fails."""
        try:
            self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            self._db.execute("VACUUM")
        except sqlite3.OperationalError as error:
            log.warning("%s: cannot shrink the file: %s", self.path, error)

    def _verify(self) -> None:
        """Raise Damaged unless the file is whole and every row is what was stored."""
        found = {sql for (sql,) in self._db.execute("SELECT sql FROM sqlite_schema") if sql}
        if found != set(SCHEMA):
            raise Damaged(self.path, "its tables are not those that were made")
        self._check_structure()
        for table, columns in COLUMNS.items():
            bodies = self._bodies.get(table)
            for row in self._db.execute(f"SELECT {', '.join(columns)}, checksum FROM {table}"):
                values = self._checked(table, row)
                if bodies is not None:
                    self._decode(table, bodies, values[-1])
        if self.number("SELECT count(*) FROM state") != 1:
            raise Damaged(self.path, "its state is gone")

    def _decode(self, table: str, bodies: Decoder, body: bytes) -> None:
        try:
            bodies.decode(body)
        except msgspec.MsgspecError as error:  # an older version's, without a checksum
            raise Damaged(self.path, f"a row of {table}: {error}") from error

    def _check_structure(self, *tables: str) -> None:
        """Have SQLite look at its own structures, of some tables or of the whole file."""
        for pragma in [f"integrity_check({table})" for table in tables] or ["integrity_check(1)"]:
            problem = self.number(f"PRAGMA {pragma}")
            if problem != "ok":
                raise Damaged(self.path, " ".join(problem.split()))


def told(error: BaseException) -> str:
    """Return the error's message in one line."""
    return "out of memory" if isinstance(error, MemoryError) else " ".join(str(error).split())


def _checksum(table: str, row: Sequence[Any]) -> int:
    return crc32(_encode((table, *row)))
