"""A machine's place among those that share a lab's store: its lease, its terms, and the election.

Runs in the supervisor. The machine is there for as long as it renews a lease; a run of a lab, its
activity, for as long as one of its machines is there. Each time that a machine takes its place, a
term of it begins. What it writes in a term is refused once that is over.

    /netemu/LAB/activity                        this run of the lab; there is one
    /netemu/LAB/ACTIVITY/lab                    what it is, for machines that join
    /netemu/LAB/ACTIVITY/machines/MACHINE       those that are there
    /netemu/LAB/ACTIVITY/terms/MACHINE          those that are there, or were lost: their last terms
    /netemu/LAB/ACTIVITY/healer                 who heals what was on a machine that is lost
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple
from uuid import uuid4

import msgspec

from netemu.errors import NotSo
from netemu.etcd import Client, Held, Put, Removal, Version

# A machine is there for so many seconds after it was last heard; it says so every so many.
ALIVE: Final = 6
RENEWED_EVERY: Final = 1.0
# Its guests are heard for so many seconds after it asked whether it is there, and was told yes:
# enough for a stopped server to be given up, and a new leader to be elected.
HEARD: Final = 5.0
# Others wait so long, once it is not there, until they boot its guests: HEARD, and what the kernel
# and the clocks' rates may be late.
SILENT_AFTER: Final = HEARD + 1.0
# How long leaving the store may take: the lab is going down.
_LEAVING: Final = 2.0


class Part(NamedTuple):
    """What a machine has of a lab. `activity` is None where it begins the lab, which is `whole`.

    `tunnel` is where it takes other machines' frames of the tenant network, if there is one.
    """

    lab: str
    machine: str
    here: Sequence[str]
    elsewhere: Sequence[str]
    activity: str | None
    whole: bytes
    tunnel: tuple[str, int] | None = None


class Term(msgspec.Struct, frozen=True):
    """What a machine says of itself: its nodes, and an ID that no other term of it has."""

    nodes: tuple[str, ...]
    run: str
    tunnel: tuple[str, int] | None = None


class Membership:
    """The place of one machine. `term` is the revision at which its present term began.

    `run` is that term's own name. `settled` is set once the guests here are those that belong here
    in it. At its beginning there may be guests that are elsewhere by now, and no command may reach
    them.
    """

    def __init__(self, client: Client, part: Part) -> None:
        self.lease = 0
        self.term = 0
        self.run = ""
        self.settled = asyncio.Event()
        self.settled.set()  # a supervisor that has just begun has nothing
        self._client = client
        self._part = part
        self._activity = part.activity or str(uuid4())
        self._own = b""

    def key(self, *parts: str) -> str:
        """A key of this run of the lab."""
        return "/".join(("", "netemu", self._part.lab, self._activity, *parts))

    @property
    def _place(self) -> str:
        return self.key("machines", self._part.machine)

    def in_term(self, term: int) -> Version:
        """Holds for as long as a term of this machine lasts."""
        return Version(self._place, term)

    async def begin(self) -> None:
        """Take the machine's place in the store. Raises NotSo: the store is away, or it is taken.

        A machine or a lab that was killed is there for some seconds longer: it is waited for.
        """
        now = asyncio.get_running_loop().time
        end = now() + ALIVE + 2 * RENEWED_EVERY
        while problem := await self._take_place():
            if now() > end:
                raise NotSo(problem)
            await asyncio.sleep(RENEWED_EVERY / 2)

    async def _take_place(self) -> str:
        """Take it. Returns why it cannot be taken, or ""."""
        client, lab, machine = self._client, self._part.lab, self._part.machine
        key, mine = f"/netemu/{lab}/activity", self._activity.encode()
        if self._part.activity is None and not self.term:
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
        run = str(uuid4())
        own = msgspec.json.encode(Term(tuple(self._part.here), run, self._part.tunnel))
        alive = await client.grant(ALIVE)
        took = [Put(self._place, own, alive), Put(self.key("terms", machine), own)]
        if self.term:
            self.settled.clear()
        await client.when([Version(self._place, 0)], took)
        found = await client.get(self._place)
        if found is None or found.value != own:
            await client.revoke(alive)
            return f"{lab}: a machine of the name {machine} is there already"
        self.lease, self.term, self.run, self._own = alive, found.modified, run, own
        return ""

    async def _is_over(self, activity: str) -> bool:
        """Whether a run of the lab has no machine any more."""
        return not (await self._client.under(f"/netemu/{self._part.lab}/{activity}/machines/"))[0]

    async def stay(
        self,
        tell: Callable[[str], None],
        heard: Callable[[float], None],
        returned: Callable[[], Awaitable[None]],
    ) -> None:
        """Renew the lease, for as long as the lab is up.

        `tell` is called with why that cannot be done, or "" each time it is; `heard` with the time
        until which guests may be heard. `returned` is called at the beginning of another term,
        before they are: what was on this machine may be elsewhere by now.
        """
        now = asyncio.get_running_loop().time
        known = self.term
        while True:
            asked = now()
            try:
                if await self._client.keep_alive(self.lease) == 0:  # it was away for too long
                    await self.begin()  # in the same run, with all that is kept
                if self.term != known:
                    await returned()
                    known = self.term
                    self.settled.set()
                # The deadline counts from before the question. It is a read, which a majority
                # answers: a server that was the leader may believe that a lease is renewed.
                confirming = now()
                if await self._is_there():
                    heard(confirming + HEARD)
            except NotSo as error:
                tell(str(error))
            else:
                tell("")
            await asyncio.sleep(max(0.0, asked + RENEWED_EVERY - now()))

    async def _is_there(self) -> bool:
        entry = await self._client.get(self._place)
        return entry is not None and entry.modified == self.term

    async def campaign(self) -> Held | None:
        """Stand for election. Returns what holds as long as this machine is the healer; None if
        another one is.
        """
        key = self.key("healer")
        elected = (await self._client.create(key, self._own, self.lease))[0].value == self._own
        return Held(key, self._own) if elected else None

    async def end(self) -> None:
        """Leave the store. The last machine removes all of the lab from it."""
        with suppress(NotSo, TimeoutError):
            async with asyncio.timeout(_LEAVING):
                await self._client.delete(self.key("terms", self._part.machine))
                await self._client.revoke(self.lease)
                for node in self._part.here:
                    await self._client.delete_under(self.key("state", node, ""))
                if await self._is_over(self._activity):
                    key = f"/netemu/{self._part.lab}/activity"
                    await self._client.when([Held(key, self._activity.encode())], [Removal(key)])
                    await self._client.delete_under(self.key(""))
