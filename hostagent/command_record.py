"""The record of the commands that have been applied, with their answers.

A command that comes a second time is answered from here, and not applied again. The record is
bounded by number and by bytes. It is part of the agent's repository, and runs in its transactions.
"""

from typing import Final

from hostagent.database import Database
from hostagent.schema import COMMAND_BYTES, COMMANDS

FORGOTTEN_AT_ONCE: Final = 512
"""Commands forgotten in one transaction: some milliseconds."""


class CommandRecord:
    """The commands applied last, by ID. Its methods that change something run in a transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(self, command_id: str) -> tuple[bytes, bytes] | None:
        """Return the fingerprint and the answer of a command applied before."""
        row = self._db.row("commands", "WHERE id = ?", command_id)
        return None if row is None else (row[3], row[4])

    def keep(self, command_id: str, fingerprint: bytes, answer: bytes) -> None:
        """Keep a command's answer until many others have come after it."""
        number, total = self._last()
        self._db.put(
            "commands", [(number + 1, total + len(answer), command_id, fingerprint, answer)]
        )

    def forget_surplus(self) -> bool:
        """Forget some of the oldest commands above the bounds. Returns whether more are left.

        Work is in slices, so that requests do not wait long.
        """
        number, total = self._last()
        gone = self._db.delete(
            "commands",
            "number IN (SELECT number FROM (SELECT number, total FROM commands ORDER BY number"
            " LIMIT ?) WHERE number <= ? OR total <= ?)",
            FORGOTTEN_AT_ONCE,
            number - COMMANDS,
            total - COMMAND_BYTES,
        )
        return len(gone) == FORGOTTEN_AT_ONCE

    def _last(self) -> tuple[int, int]:
        """Return the number of the last command, and the bytes of all answers up to it."""
        last = self._db.row("commands", "ORDER BY number DESC")
        return (0, 0) if last is None else (last[0], last[1])
