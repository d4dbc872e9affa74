"""A machine's place among those that share a lab's store.

Runs in the supervisor. The machine is there for as long as it renews a lease; a run of a lab, its
activity, for as long as one of its machines is there.

    /netemu/LAB/activity                        this run of the lab; there is one
    /netemu/LAB/ACTIVITY/lab                    what it is, for machines that join
    /netemu/LAB/ACTIVITY/machines/MACHINE       those that are there
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple
from uuid import uuid4

import msgspec

from netemu.errors import NotSo
from netemu.etcd import Client, Held, Put, Removal

# A machine is there for so many seconds after it was last heard; it says so every so many.
ALIVE: Final = 6
RENEWED_EVERY: Final = 2.0
# How long taking leave of the store may take: the lab is going down.
_LEAVING: Final = 2.0


class Part(NamedTuple):
    """What a machine has of a lab. `activity` is None where it begins the lab, which is `whole`."""

    lab: str
    machine: str
    here: Sequence[str]
    elsewhere: Sequence[str]
    activity: str | None
    whole: bytes


class Membership:
    """The place of one machine; `lease` is its own."""

    def __init__(self, client: Client, part: Part) -> None:
        self.lease = 0
        self._client = client
        self._part = part
        self._activity = part.activity or str(uuid4())
        self._own = msgspec.json.encode({"nodes": part.here, "run": str(uuid4())})

    def key(self, *parts: str) -> str:
        """A key of this run of the lab."""
        return "/".join(("", "netemu", self._part.lab, self._activity, *parts))

    async def begin(self) -> None:
        """Take the machine's place in the store. Raises NotSo: the store is away, or it is taken.

        A machine or a lab that was killed is there for some seconds longer: it is waited for.
        """
        now = asyncio.get_running_loop().time
        end = now() + ALIVE + RENEWED_EVERY
        while problem := await self._take_place():
            if now() > end:
                raise NotSo(problem)
            await asyncio.sleep(RENEWED_EVERY / 4)

    async def _take_place(self) -> str:
        """Why it is taken; "": it was not."""
        client, lab, machine = self._client, self._part.lab, self._part.machine
        key, mine = f"/netemu/{lab}/activity", self._activity.encode()
        if self._part.activity is None:
            await client.put(self.key("lab"), self._part.whole)
            activity = (await client.create(key, mine))[0].value
            if activity != mine and not await self._is_over(activity.decode()):
                return (
                    f"{lab}: a lab of this name keeps its commands in this store already; "
                    "'netemu join' it, or give this one another --name"
                )
            if activity != mine:
                await client.when([Held(key, activity)], [Put(key, mine)])
                await client.delete_under(f"/netemu/{lab}/{activity.decode()}/")
        entry = await client.get(key)
        if entry is None or entry.value != mine:
            return f"{lab}: this lab has ended, and another of its name may have begun"
        alive = await client.grant(ALIVE)
        if (await client.create(self.key("machines", machine), self._own, alive))[0].value != (
            self._own
        ):
            await client.revoke(alive)
            return f"{lab}: a machine of the name {machine} is there already"
        self.lease = alive
        return ""

    async def _is_over(self, activity: str) -> bool:
        """Whether a run of the lab has no machine any more."""
        return not (await self._client.under(f"/netemu/{self._part.lab}/{activity}/machines/"))[0]

    async def stay(self, tell: Callable[[str], None]) -> None:
        """Renew the lease; `tell` is called with why that cannot be done, or "" each time it is."""
        while True:
            await asyncio.sleep(RENEWED_EVERY)
            try:
                if await self._client.keep_alive(self.lease) == 0:  # it was away for too long
                    await self.begin()  # in the same run, with all that is kept
            except NotSo as error:
                tell(str(error))
            else:
                tell("")

    async def end(self) -> None:
        """Take leave of the store; the last machine takes all of the lab out of it."""
        with suppress(NotSo, TimeoutError):
            async with asyncio.timeout(_LEAVING):
                await self._client.revoke(self.lease)
                for node in self._part.here:
                    await self._client.delete_under(self.key("state", node, ""))
                if await self._is_over(self._activity):
                    key = f"/netemu/{self._part.lab}/activity"
                    await self._client.when([Held(key, self._activity.encode())], [Removal(key)])
                    await self._client.delete_under(self.key(""))
