"""Turns that timers and sockets take in one event loop."""

import asyncio
from typing import Final

# Seconds: a hundred probes or so, of the 270 that a node's socket holds.
_TURN: Final = 0.005


class Turns:
    """Says to whoever's timer is due whether it is the sockets' turn.

    asyncio runs every timer that is due before it looks at any socket. If a thousand guests probe
    in one moment, nobody reads the socket in which the node hears them, and probes are lost.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends: float | None = None

    def over(self) -> bool:
        """Whether timers have had their turn: come again when the sockets have had theirs."""
        now = self._loop.time()
        if self._ends is None:
            self._ends = now + _TURN
            self._loop.call_soon(self._begin)
        return now > self._ends

    def _begin(self) -> None:
        self._ends = None
