"""A store of keys in memory, in the place of `netemu.etcd.Client`: away, and losing answers."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

from netemu.etcd import Change, Compacted, Entry, Put, Refused, Unreachable, Version
from netemu.etcd.messages import Comparison, Operation


class FakeEtcd:
    """`away`: no server answers. `losing`: so many writes are done, and their answers lost."""

    def __init__(self) -> None:
        self.away = False
        self.losing = 0
        self.made_together: list[int] = []
        """The size of each transaction that made keys."""
        self.dropped = 0
        """The last revision that is no longer told of."""
        self.keys: dict[str, Entry] = {}
        self.leases: dict[int, int] = {}
        self.history: list[Change] = []
        self._changed = asyncio.Event()

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise Unreachable("the store does not answer: fake: Connection refused")

    def _lose(self) -> None:
        if self.losing:
            self.losing -= 1
            raise Unreachable("the store does not answer: fake: no answer in time")

    def _note(self, key: str, entry: Entry | None) -> None:
        self.history.append(Change(key, entry, len(self.history) + 1))
        if entry is None:
            del self.keys[key]
        else:
            self.keys[key] = entry
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def get(self, key: str) -> Entry | None:
        await self._reach()
        return self.keys.get(key)

    async def under(self, prefix: str) -> tuple[list[Entry], int]:
        await self._reach()
        return [one for key, one in sorted(self.keys.items()) if key.startswith(prefix)], len(
            self.history
        )

    async def put(self, key: str, value: bytes, lease: int = 0) -> int:
        await self._reach()
        revision = self._put(key, value, lease)
        self._lose()
        return revision

    def _put(self, key: str, value: bytes, lease: int = 0) -> int:
        if lease and not self.leases.get(lease):
            raise Refused(5, "etcdserver: requested lease not found")
        revision = len(self.history) + 1
        self._note(key, Entry(key, value, revision, revision, lease))
        return revision

    async def create(self, key: str, value: bytes, lease: int = 0) -> tuple[Entry, bool]:
        await self._reach()
        new = key not in self.keys
        if new:
            await self.put(key, value, lease)
        return self.keys[key], new

    async def when(
        self, comparisons: Iterable[Comparison], operations: Iterable[Operation]
    ) -> bool:
        await self._reach()
        if not all(map(self._holds, comparisons)):
            return False
        for one in operations:
            if isinstance(one, Put):
                self._put(*one)
            elif one.key in self.keys:
                self._note(one.key, None)
        self._lose()
        return True

    def _holds(self, one: Comparison) -> bool:
        entry = self.keys.get(one.key)
        if isinstance(one, Version):
            return one.modified == (entry.modified if entry else 0)
        return entry is not None and one.value == entry.value

    async def create_all(self, puts: Sequence[Put]) -> int | None:
        await self._reach()
        self.made_together.append(len(puts))
        if any(one.key in self.keys for one in puts):
            return None
        for one in puts:
            await self.put(*one)
        return len(self.history)

    async def delete(self, key: str) -> None:
        await self._reach()
        if key in self.keys:
            self._note(key, None)

    async def delete_under(self, prefix: str) -> None:
        await self._reach()
        self._drop(key for key in list(self.keys) if key.startswith(prefix))

    def _drop(self, keys: Iterator[str]) -> None:
        for key in keys:
            self._note(key, None)

    async def grant(self, ttl: int) -> int:
        await self._reach()
        self.leases[len(self.leases) + 1] = ttl
        return len(self.leases)

    async def keep_alive(self, lease: int) -> int:
        await self._reach()
        return self.leases.get(lease, 0)

    async def revoke(self, lease: int) -> None:
        await self._reach()
        self.end(lease)

    def end(self, lease: int) -> None:
        """The lease ends, and its keys go."""
        self.leases[lease] = 0
        self._drop(key for key, one in list(self.keys.items()) if one.lease == lease)

    async def watch(self, prefix: str, since: int) -> AsyncIterator[list[Change]]:
        while True:
            changed = self._changed
            if since <= self.dropped:
                raise Compacted(f"the store has dropped what was before {self.dropped}")
            while not self.away and since <= len(self.history):
                change = self.history[since - 1]
                since += 1
                if change.key.startswith(prefix):
                    yield [change]
            await changed.wait()

    def back(self) -> None:
        """The servers answer again."""
        self.away = False
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        pass
