"""FairTimer that timers and sockets take in one event loop."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

# Seconds: a hundred probes or so, of the 270 that a node's socket holds.
_TURN: Final = 0.005


class FairTimer:
    """Does what timers are due for, a turn of it at a time; between two turns sockets have theirs.

    asyncio runs every timer that is due before it looks at any socket. If a thousand guests probe
    in one moment, nobody reads the socket in which the node hears them, and probes are lost.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends: float | None = None  # when this turn does; None while nobody has had one
        self._waiting: deque[Callable[[], None]] = deque()

    def take(self, due: Callable[[], None]) -> None:
        """Call `due` now or in a later turn, after those who have come before."""
        if self._ends is None:
            self._begin()
        if self._waiting or self._over():
            self._waiting.append(due)
        else:
            due()

    def _begin(self) -> None:
        self._ends = self._loop.time() + _TURN
        # A timer, for what timers are due for comes after what has been read from sockets.
        self._loop.call_later(0, self._next)

    def _over(self) -> bool:
        return self._ends is not None and self._loop.time() > self._ends

    def _next(self) -> None:
        """The sockets have had their turn: go on with those who wait, one at least."""
        self._ends = None
        if self._waiting:
            self._begin()
        while self._waiting:
            self._waiting.popleft()()
            if self._over():
                return
