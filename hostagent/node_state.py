"""The one row of a node's state: the metadata plane's clock, and the numbers of deltas and guests.

The metadata plane has a clock of its own: this machine's plus an offset that only grows, so that a
lab can move through an event's whole life without waiting. That clock never goes back: when the
machine's is set back, the offset grows by as much. It is part of the agent's repository, and runs
in its transactions.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from hostagent.database import Damaged, Database, Row
from hostagent.model import MAX_CLOCK_OFFSET

log = logging.getLogger(__name__)

CLOCK_SLACK: Final = 0.001
"""Seconds by which the clock may go back: the rounding of a sum of times."""


class NodeState:
    """The row, and the latest time seen. Its methods that change something run in a transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: Row | None = None
        self._latest = 0.0  # stored with each number

    def load(self) -> None:
        """Continue from the latest time that is stored."""
        self._latest = float(self._row()[4])

    @contextmanager
    def restored_on_error(self) -> Iterator[None]:
        """Take back what is done inside if that fails, as the file does."""
        latest = self._latest
        try:
            yield
        except BaseException:
            self._known = None
            self._latest = latest
            raise

    @property
    def clock_offset(self) -> float:
        """Seconds that the metadata plane's clock is ahead of this machine's."""
        return float(self._row()[1])

    @property
    def sequence(self) -> int:
        """The number of the last delta."""
        return int(self._row()[2])

    @property
    def floor(self) -> int:
        """The number above which every guest starts that is new here."""
        return int(self._row()[3])

    def now(self, wall: float) -> tuple[float, float]:
        """Return the time, and how far the clock has to be ahead for it.

        The time is never earlier than before, even if the machine's clock was set back: a guest
        that is off for ten seconds comes back after ten seconds.
        """
        offset = self.clock_offset
        now = wall + offset
        if now > self._latest - CLOCK_SLACK or offset + self._latest - now > MAX_CLOCK_OFFSET:
            # In the second case the machine's clock was wrong by years: time does go back.
            self._latest = now
            return now, offset
        log.warning("this machine's clock was set back by %.0f s or more", self._latest - now)
        return self._latest, offset + self._latest - now

    def move_clock(self, to: float) -> None:
        """Set the clock `to` seconds ahead of this machine's."""
        one, _, *rest = self._row()
        self._put((one, to, *rest))

    def raise_floor(self, to: int) -> None:
        """Have every guest that is new here start above this number, at least."""
        one, offset, sequence, floor, latest = self._row()
        self._put((one, offset, sequence, max(floor, to), latest))

    def next_sequence(self) -> int:
        """Return the number of a new delta."""
        one, offset, sequence, floor, _ = self._row()
        self._put((one, offset, sequence + 1, floor, self._latest))
        return int(sequence + 1)

    def _row(self) -> Row:
        if self._known is None:
            self._known = self._db.row("state")
        if self._known is None:
            raise Damaged(self._db.path, "its state is gone")
        return self._known

    def _put(self, row: Row) -> None:
        self._known = row
        self._db.put("state", [row])
