"""Limits how much the supervisor logs, so that nothing that repeats can fill a disk."""

import logging
import time
from collections.abc import Callable
from typing import Final

# A lab of thousands logs a line or two for each guest while it comes up, and then a few a minute.
BURST: Final = 20_000
PER_SECOND: Final = 10.0


class LogLimit(logging.Filter):
    """Passes BURST lines, and PER_SECOND more each second. The next line that passes says how many
    did not.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._room = float(BURST)
        self._at = clock()
        self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        now = self._clock()
        self._room = min(BURST, self._room + (now - self._at) * PER_SECOND)
        self._at = now
        if self._room < 1:
            self._left_out += 1
            return False
        self._room -= 1
        if self._left_out:
            record.msg = f"({self._left_out} lines before this one were too many) {record.msg}"
            self._left_out = 0
        return True
