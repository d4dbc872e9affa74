"""What takes the place of the kernel below a simulated lab: its clock, claims, machines and ports.

Nothing here decides anything: what is asked of it happens, at once or a moment later.
"""

import asyncio
import errno
import os
import random
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Final

from netemu.errors import MachineCannot
from netemu.simulation.loop import Loop
from netemu.supervisor.guests.machine import Capability
from netemu.supervisor.nodes.wiring import WiredGuest, WiredNode
from netemu.topology import Guest

EPOCH: Final = 1_800_000_000.0
"""The machine's time when a run begins."""
_CLAIM: Final = (0.2, 1.5)
"""Seconds from a guest's boot until it is bound."""


class Clock:
    """The machine's clock, which can be set."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.step = 0.0
        self.set_back = 0.0
        """Seconds that it was set back, all times together."""

    def set(self, by: float) -> None:
        """Set it forward, or back, by this many seconds."""
        self.step += by
        self.set_back += max(0.0, -by)

    def __call__(self) -> float:
        """The time, epoch seconds."""
        return EPOCH + self._loop.time() + self.step


class Claims:
    """Guests' addresses: bound a moment after each boot."""

    def __init__(self, loop: Loop, draw: random.Random) -> None:
        self._loop = loop
        self._draw = draw
        self._changed = asyncio.Event()
        self._bound: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @property
    def change(self) -> asyncio.Event:
        return self._changed

    def address(self, guest: Guest) -> str | None:
        return f"169.254.7.{guest.mark}" if guest.name in self._bound else None

    def bound(self, guest: Guest) -> bool:
        return guest.name in self._bound

    def unplug(self, guest: Guest) -> None:
        if (timer := self._timers.pop(guest.name, None)) is not None:
            timer.cancel()
        self._bound.discard(guest.name)
        self._note()

    def pause(self, guest: Guest) -> None:
        """It keeps its address while it is frozen."""

    resume = pause

    def boot(self, wired: WiredGuest, _node: WiredNode) -> None:
        guest = wired.guest
        self.unplug(guest)
        self._timers[guest.name] = self._loop.call_later(
            self._draw.uniform(*_CLAIM), self._bind, guest.name
        )

    def _bind(self, name: str) -> None:
        self._bound.add(name)
        self._note()

    def _note(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class Machine:
    """A machine in name only: it runs nothing, and nothing can be asked of it."""

    capabilities: frozenset[Capability] = frozenset()

    def __init__(
        self, name: str, refusing: Container[str], on_cut: Iterable[Callable[[str], None]]
    ) -> None:
        """It does not boot while it is among those `refusing`; `on_cut` hear of each end."""
        self._name = name
        self._refusing = refusing
        self._on_cut = on_cut

    async def renew(self) -> None:
        """Nothing is left from before. Raises MachineCannot for a while, as a fault."""
        if self._name in self._refusing:
            raise MachineCannot("it does not boot")

    async def boot(self, _program: object, _names: object) -> None:
        """It runs."""

    async def freeze(self) -> None:
        """It is frozen."""

    def thaw(self) -> None:
        """It runs again."""

    async def shut_down(self, _grace: float) -> None:
        """It has no programs."""

    def cut(self) -> None:
        for hear in self._on_cut:
            hear(self._name)

    def remove(self) -> None:
        """It is gone."""


class Ports:
    """Ports without wires; to take one away takes a while. `set` tells what comes up.

    While they are `stuck` none can be taken away.
    """

    guarded_ahead = True

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self.stuck = False

    async def renew(self, node: WiredNode, wired: WiredGuest) -> None:
        """Do nothing: the simulation has no wires."""

    remove = renew

    async def withdraw(self, node: WiredNode, guests: Sequence[WiredGuest]) -> None:
        await asyncio.sleep(0.01)
        if self.stuck:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        for one in guests:
            one.plugged = False

    async def expect(self, node: WiredNode, guests: Sequence[WiredGuest]) -> None:
        """Do nothing: the simulation has no guard."""

    def go_dark(self, node: WiredNode, wired: WiredGuest) -> None:
        """It is dark."""

    def silence(self, node: WiredNode, wired: WiredGuest, *, silent: bool) -> None:
        """It is silent."""

    def set(self, node: WiredNode, up: Callable[[str], bool]) -> None:
        for one in node.guests:
            if not up(one.guest.name):
                self._claims.unplug(one.guest)
