"""Makes keys for many who ask at once: in one transaction those of one pass of the loop."""

import asyncio
from itertools import islice
from typing import Final

from netemu.errors import NetemuError
from netemu.etcd.client import Client
from netemu.etcd.messages import Entry, Put

# etcd takes 128 operations a transaction, and an agent 64 connections: half of that.
AT_ONCE: Final = 32


class Together:
    """While one transaction is under way, those who ask meanwhile wait for the next."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._wanted: dict[str, tuple[Put, asyncio.Future[tuple[Entry, bool]]]] = {}
        self._making: asyncio.Task[None] | None = None

    async def create(self, key: str, value: bytes, lease: int = 0) -> tuple[Entry, bool]:
        """Make a key, as `Client.create` does."""
        if key in self._wanted:  # the same twice in one pass
            return await self._client.create(key, value, lease)
        made: asyncio.Future[tuple[Entry, bool]] = asyncio.get_running_loop().create_future()
        self._wanted[key] = Put(key, value, lease), made
        if self._making is None:
            self._making = asyncio.create_task(self._make())
        return await made

    async def _make(self) -> None:
        try:
            while self._wanted:
                await asyncio.sleep(0)  # others of this pass
                keys = list(islice(self._wanted, AT_ONCE))
                await self._make_these([self._wanted.pop(key) for key in keys])
        finally:
            self._making = None

    async def _make_these(
        self, wanted: list[tuple[Put, "asyncio.Future[tuple[Entry, bool]]"]]
    ) -> None:
        try:
            revision = await self._client.create_all([put for put, _ in wanted])
            for put, made in wanted:
                if revision is None:  # one is there already: each by itself
                    found = await self._client.create(*put)
                else:
                    found = Entry(put.key, put.value, revision, revision, put.lease), True
                if not made.done():
                    made.set_result(found)
        except NetemuError as error:
            for _, made in wanted:
                if not made.done():
                    made.set_exception(error)
