"""A timer for a state machine, which says after each step when it wants to be called next.

Runs in the supervisor's loop.
"""

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls `expired` at the moment set last."""

    def __init__(self, expired: Callable[[], None]) -> None:
        self._expired = expired
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def set(self, moment: float | None) -> None:
        """Call at this moment of the loop's clock; None is never."""
        if self._timer is not None:
            if moment == self._timer.when():
                return
            self._timer.cancel()
            self._timer = None
        if moment is not None:
            self._timer = self._loop.call_at(moment, self._call)

    def _call(self) -> None:
        self._timer = None
        self._expired()
