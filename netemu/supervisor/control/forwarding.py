"""Hands questions about what is on another machine to that machine's supervisor, by the store.

Runs in the supervisor of a lab on several machines. A question is asked once, under an ID of its
own, and answered in the term in which it was carried out. One that came before that term is not
carried out: its guest may be elsewhere.

    /netemu/LAB/ACTIVITY/questions/MACHINE/ID
    /netemu/LAB/ACTIVITY/replies/ID
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import uuid4

import msgspec

from hostagent.channel.frames import FrameError
from netemu.errors import NetemuError, NotSo
from netemu.etcd import Change, Client, Entry, Put, Refused, Removal, Unreachable
from netemu.supervisor.control.control_server import Elsewhere
from netemu.supervisor.control.following import follow
from netemu.supervisor.control.membership import ALIVE, Membership
from netemu.supervisor.control.places import Places
from netemu.wire.progress import Failed

log = logging.getLogger(__name__)

# How long to wait for a reply: a guest that reboots may be given as long to end.
_REPLIED_WITHIN: Final = 120.0
# A question and its reply are dropped by then, if nobody has removed them.
_KEPT: Final = 300
_LOOK: Final = 1.0
_PAUSE: Final = 1.0


class Forwarding:
    """`answer` answers a question of another machine about what is here."""

    def __init__(
        self,
        client: Client,
        membership: Membership,
        places: Places,
        machine: str,
        answer: Callable[[bytes], Awaitable[bytes]],
    ) -> None:
        self._client = client
        self._membership = membership
        self._places = places
        self._machine = machine
        self._answer = answer
        self._waiting: dict[str, asyncio.Future[bytes]] = {}
        self._answering: dict[str, asyncio.Task[None]] = {}

    async def run(self, tell: Callable[[str], None]) -> None:
        """Answer others, and hear their replies, for as long as the lab is up."""
        key = self._membership.key
        asked = key("questions", self._machine, "")
        async with asyncio.TaskGroup() as group:
            group.create_task(follow(self._client, asked, self._take_questions, tell))
            group.create_task(follow(self._client, key("replies", ""), self._take_replies, tell))

    async def ask(self, elsewhere: Elsewhere, question: bytes) -> bytes:
        """What another machine answers. Raises NotSo if it is away, or the store is."""
        machine, name = elsewhere.machine, str(uuid4())
        where = str(elsewhere).rpartition(": ")[0]
        if machine not in self._places.machines or machine is None:
            raise NotSo(f"{where}, which is away")
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[name] = reply
        keys = (
            self._membership.key("questions", machine, name),
            self._membership.key("replies", name),
        )
        try:
            lease = await self._client.grant(_KEPT)
            await self._client.create(keys[0], question, lease)
            async with asyncio.timeout(_REPLIED_WITHIN):
                while not reply.done():
                    await asyncio.wait([reply], timeout=_LOOK)
                    if machine not in self._places.machines and not reply.done():
                        await asyncio.wait([reply], timeout=ALIVE)  # it may have come back
                        if machine not in self._places.machines:
                            raise NotSo(f"{where}, which was lost; it may have done it")
            return reply.result()
        except TimeoutError:
            raise NotSo(f"{where}, which does not answer; it may do it yet") from None
        finally:
            del self._waiting[name]
            asyncio.create_task(self._forget(*keys))  # noqa: RUF006  else they go with their lease

    async def _forget(self, *keys: str) -> None:
        try:
            await self._client.when([], [Removal(key) for key in keys])
        except NetemuError:
            return

    async def _take_replies(self, changes: list[Change], _: bool) -> None:
        for change in changes:
            reply = self._waiting.get(change.key.rpartition("/")[2])
            if reply is not None and change.entry is not None and not reply.done():
                reply.set_result(change.entry.value)

    async def _take_questions(self, changes: list[Change], _: bool) -> None:
        for change in changes:
            name = change.key.rpartition("/")[2]
            if change.entry is None:
                self._answering.pop(name, None)
            elif name not in self._answering:
                work = self._reply(name, change.entry)
                self._answering[name] = asyncio.create_task(work)

    async def _reply(self, name: str, asked: Entry) -> None:
        await self._membership.settled.wait()
        term = self._membership.term
        if asked.created < term:
            told = _failed("its machine was lost meanwhile; it may have done it")
        else:
            try:
                told = await self._answer(asked.value)
            except FrameError as error:
                told = _failed(str(error))
        reply = Put(self._membership.key("replies", name), told, asked.lease)
        while True:
            try:
                await self._client.when([self._membership.in_term(term)], [reply])
            except Unreachable:
                await asyncio.sleep(_PAUSE)
            except Refused as error:  # the asking machine is gone
                log.info("a reply is not kept: %s", error)
                return
            else:
                return


def _failed(reason: str) -> bytes:
    return msgspec.msgpack.encode(Failed(reason, NotSo.exit_code))
