"""A store on virtual time: keys, leases and watches as etcd's servers have them, under faults.

A question takes effect at one moment, or never. The client of each machine has a link to the
servers of its own, which is whole, cut, or cut in one direction; answers may be lost on it. It does
nothing but on the simulated loop.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from enum import Enum, auto
from itertools import count
from typing import Final, TypeVar

from netemu.etcd import Change, Entry, Put, Refused, Unreachable, Version
from netemu.etcd.messages import Comparison, Operation
from netemu.simulation.loop import Loop, Process

T = TypeVar("T")

_THERE: Final = (0.0005, 0.01)  # seconds to a server, and back
_SLOW: Final = (0.3, 1.8)  # … and back, if that takes long
_ATTEMPT: Final = 2.0  # see netemu.etcd.client
_WITHIN: Final = 5.0
_PAUSE: Final = 0.2


class Link(Enum):
    """What a machine's way to the servers carries."""

    WHOLE = auto()
    CUT = auto()
    DEAF = auto()  # what it asks is done, and no answer comes
    LOSING = auto()  # some answers do not come
    SLOW = auto()  # answers take long


class Servers:
    """The servers, together: they agree, or there is no leader and they do not answer."""

    def __init__(self, loop: Loop, draw: random.Random) -> None:
        self.keys: dict[str, Entry] = {}
        self.history: list[Change] = []
        self.revision = 1
        self._loop = loop
        self.draw = draw
        self._leases: dict[int, tuple[int, float]] = {}  # seconds, and when it ends
        self._outside = Process(loop, "servers").context()  # of no process that may be struck
        self._numbers = count(1)
        self._led_from = 0.0
        self.changed = asyncio.Event()

    @property
    def led(self) -> bool:
        """Whether there is a leader."""
        return self._loop.time() >= self._led_from

    def elect(self, seconds: float) -> None:
        """Lose the leader for so long. The next one lengthens all leases."""
        self._led_from = self._loop.time() + seconds
        for lease, (ttl, _) in self._leases.items():
            self._lend(lease, ttl, self._led_from + ttl + self.draw.uniform(0.0, 2.0))

    # What is asked.

    def under(self, prefix: str) -> tuple[list[Entry], int]:
        return [one for key, one in sorted(self.keys.items()) if key.startswith(prefix)], (
            self.revision
        )

    def when(self, comparisons: Iterable[Comparison], operations: Iterable[Operation]) -> bool:
        if not all(map(self._holds, comparisons)):
            return False
        acts = list(operations)
        for one in acts:
            if isinstance(one, Put) and one.lease and one.lease not in self._leases:
                raise Refused(5, "etcdserver: requested lease not found")
        self.revision += 1
        for one in acts:
            if isinstance(one, Put):
                before = self.keys.get(one.key)
                made = self.revision if before is None else before.created
                entry = Entry(one.key, one.value, made, self.revision, one.lease)
                self._note(one.key, entry)
            elif one.key in self.keys:
                self._note(one.key, None)
        self._tell()
        return True

    def drop(self, which: Callable[[Entry], bool]) -> None:
        self.revision += 1
        for key in [key for key, one in self.keys.items() if which(one)]:
            self._note(key, None)
        self._tell()

    def grant(self, ttl: int) -> int:
        lease = next(self._numbers)
        self._lend(lease, ttl, self._loop.time() + ttl)
        return lease

    def keep_alive(self, lease: int) -> int:
        if lease not in self._leases:
            return 0
        ttl, _ = self._leases[lease]
        self._lend(lease, ttl, self._loop.time() + ttl)
        return ttl

    def revoke(self, lease: int) -> None:
        if self._leases.pop(lease, None) is not None:
            self.drop(lambda one: one.lease == lease)

    def _lend(self, lease: int, ttl: int, end: float) -> None:
        self._leases[lease] = ttl, end
        self._loop.call_at(end, self._end, lease, end, context=self._outside)

    def _end(self, lease: int, end: float) -> None:
        if self._leases.get(lease, (0, -1.0))[1] == end:
            self.revoke(lease)

    def _holds(self, one: Comparison) -> bool:
        entry = self.keys.get(one.key)
        if isinstance(one, Version):
            return one.modified == (entry.modified if entry else 0)
        return entry is not None and one.value == entry.value

    def _note(self, key: str, entry: Entry | None) -> None:
        self.history.append(Change(key, entry, self.revision))
        if entry is None:
            del self.keys[key]
        else:
            self.keys[key] = entry

    def _tell(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class ServersClient:
    """A machine's client, as `netemu.etcd.Client` is: it repeats what was not answered."""

    def __init__(self, servers: Servers) -> None:
        self.link = Link.WHOLE
        self.lied_to = False
        self._servers = servers

    async def _ask(self, act: Callable[[], T]) -> T:
        now = asyncio.get_running_loop().time
        draw, end = self._servers.draw, now() + _WITHIN
        while True:
            begun = now()
            await asyncio.sleep(draw.uniform(*_THERE))
            if self.link is not Link.CUT and self._servers.led:
                answer = act()
                lost = self.link is Link.DEAF or (self.link is Link.LOSING and draw.random() < 0.4)
                await asyncio.sleep(draw.uniform(*(_SLOW if self.link is Link.SLOW else _THERE)))
                if not lost and self._hears:
                    return answer
            await asyncio.sleep(max(0.0, begun + _ATTEMPT * draw.random() - now()))
            if now() > end:
                raise Unreachable("the store does not answer: no answer in time")
            await asyncio.sleep(_PAUSE)

    async def get(self, key: str) -> Entry | None:
        return await self._ask(lambda: self._servers.keys.get(key))

    async def under(self, prefix: str) -> tuple[list[Entry], int]:
        return await self._ask(lambda: self._servers.under(prefix))

    async def put(self, key: str, value: bytes, lease: int = 0) -> int:
        await self.when([], [Put(key, value, lease)])
        return self._servers.revision

    async def when(
        self, comparisons: Iterable[Comparison], operations: Iterable[Operation]
    ) -> bool:
        compared, acts = list(comparisons), list(operations)
        return await self._ask(lambda: self._servers.when(compared, acts))

    async def create(self, key: str, value: bytes, lease: int = 0) -> tuple[Entry, bool]:
        while True:
            new = await self.when([Version(key, 0)], [Put(key, value, lease)])
            if (entry := await self.get(key)) is not None:
                return entry, new

    async def create_all(self, puts: Sequence[Put]) -> int | None:
        def made() -> int | None:
            done = self._servers.when([Version(one.key, 0) for one in puts], puts)
            return self._servers.revision if done else None

        return await self._ask(made)

    async def delete(self, key: str) -> None:
        await self._ask(lambda: self._servers.drop(lambda one: one.key == key))

    async def delete_under(self, prefix: str) -> None:
        await self._ask(lambda: self._servers.drop(lambda one: one.key.startswith(prefix)))

    async def grant(self, ttl: int) -> int:
        return await self._ask(lambda: self._servers.grant(ttl))

    async def keep_alive(self, lease: int) -> int:
        if self.lied_to:  # by one that was the leader, and has not heard that it is not
            await asyncio.sleep(0.001)
            return 1
        return await self._ask(lambda: self._servers.keep_alive(lease))

    async def revoke(self, lease: int) -> None:
        await self._ask(lambda: self._servers.revoke(lease))

    @property
    def _hears(self) -> bool:
        return self.link in (Link.WHOLE, Link.LOSING, Link.SLOW)

    async def watch(self, prefix: str, since: int) -> AsyncIterator[list[Change]]:
        """What has changed, in order; nothing while the link is cut, and then all of it."""
        seen = 0
        while True:
            changed = self._servers.changed
            while self._hears and seen < len(history := self._servers.history):
                revision = history[seen].revision
                found = []
                while seen < len(history) and history[seen].revision == revision:
                    if history[seen].key.startswith(prefix):
                        found.append(history[seen])
                    seen += 1
                if found and revision >= since:
                    await asyncio.sleep(self._servers.draw.uniform(*_THERE))
                    yield found
            if not self._hears:
                await asyncio.sleep(_PAUSE)
            elif changed is self._servers.changed:
                await changed.wait()

    def close(self) -> None:
        """Nothing is open."""
