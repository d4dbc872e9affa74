"""Lets timers and sockets of one event loop take turns. Used by `guest_shell`, in its process."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

# Seconds: about a hundred probes, of the 270 that a node's socket holds.
_TURN: Final = 0.005


class FairTimer:
    """Runs the work of due timers in short turns, and lets sockets be read between two turns.

    asyncio runs every due timer before it looks at any socket. If a thousand guests probed in one
    moment, the node's socket would not be read meanwhile, and probes would be lost.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends: float | None = None  # when this turn ends; None between turns
        self._waiting: deque[Callable[[], None]] = deque()

    def take(self, due: Callable[[], None]) -> None:
        """Call `due` now or in a later turn, in the order of the calls."""
        if self._ends is None:
            self._begin()
        if self._waiting or self._over():
            self._waiting.append(due)
        else:
            due()

    def _begin(self) -> None:
        self._ends = self._loop.time() + _TURN
        # A timer, because asyncio reads sockets before it runs the timers of its next pass.
        self._loop.call_later(0, self._next)

    def _over(self) -> bool:
        return self._ends is not None and self._loop.time() > self._ends

    def _next(self) -> None:
        """The sockets have been read: run what waits, at least one."""
        self._ends = None
        if self._waiting:
            self._begin()
        while self._waiting:
            self._waiting.popleft()()
            if self._over():
                return
