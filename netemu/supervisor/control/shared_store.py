"""The store of a lab whose commands are kept in etcd, outside its machine.

Runs in the supervisor. A command is a key, made once by its ID. The supervisor of the machine that
the node is on has the node's agent carry it out, in the order of the keys' revisions, and keeps the
answer beside it. Responders are fed by the agents, from repositories of their own: guests are
answered while the store is away. Commands are not taken then, and what was kept meanwhile is
carried out, without a gap, when it is back.

    /netemu/LAB/activity                        this run of the lab; there is one
    /netemu/LAB/ACTIVITY/machines/MACHINE       machines that are there, by a lease of some seconds
    /netemu/LAB/ACTIVITY/commands/NODE/ID       kept for an hour, as agents remember commands
    /netemu/LAB/ACTIVITY/answers/NODE/ID        kept as long
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from typing import Any, Final, TypeVar, get_args
from uuid import uuid4

from hostagent.channel.frames import Decoder, FrameError
from hostagent.channel.messages import Command, Done, Failed, Message, MessageError, decode, encode
from hostagent.controller import Watch
from hostagent.controller.calls import Call
from netemu.errors import NotSo
from netemu.etcd import Client, Compacted, Entry, Refused, Unreachable
from netemu.supervisor.control.store import (
    AgentRefuses,
    AgentSilent,
    DeadNode,
    NodeFailed,
    Store,
    StoreAway,
)

log = logging.getLogger(__name__)

# How long a command and its answer are kept, at least: as long as agents remember IDs.
KEPT: Final = 3600
# Commands of so many seconds share a lease, which is never renewed.
_SHARED: Final = 600
# A machine is there for so many seconds after it was last heard; it says so every so many.
ALIVE: Final = 6
RENEWED_EVERY: Final = 2.0
# How long whoever commands waits for the answer; see `hostagent.controller`.
_ANSWERED_WITHIN: Final = 10.0
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
# How long taking leave of the store may take: the lab is going down.
_LEAVING: Final = 2.0
_COMMANDS: Final = get_args(Command)

T = TypeVar("T")


class SharedStore(Store):
    """The commands of a lab's nodes, which `local` reaches.

    `trouble` says why the store is away, if it is; `told` is called with it when it changes.
    """

    def __init__(
        self,
        client: Client,
        lab: str,
        machine: str,
        nodes: Iterable[str],
        local: Store,
        told: Callable[[str], None],
    ) -> None:
        names = list(nodes)
        super().__init__(names)
        self.trouble = ""
        self._client = client
        self._lab = lab
        self._machine = machine
        self._local = local
        self._told = told
        self._activity = str(uuid4())
        self._alive = 0  # the machine's lease
        self._kept: tuple[float, int] | None = None  # a lease of commands, and until when it serves
        self._queues: dict[str, asyncio.Queue[Command]] = {one: asyncio.Queue() for one in names}
        self._waiting: dict[str, asyncio.Future[Done | Failed]] = {}  # by command

    # Nodes, which the agents answer for.

    def fail(self, node: str) -> None:
        self._local.fail(node)
        super().fail(node)

    def restore(self, node: str) -> None:
        self._local.restore(node)
        super().restore(node)

    async def watch(self, node: str, watcher: Watch) -> None:
        await self._local.watch(node, watcher)

    def dead(self, node: str) -> AbstractContextManager[DeadNode]:
        return self._local.dead(node)

    # Commands.

    async def _carry_out(self, node: str, call: Call[T]) -> T:
        answers: list[Any] = []
        for question in call.questions():
            if isinstance(question, _COMMANDS):
                answers.append([await self._command(node, question)])
            else:
                answers.append(await self._local.append(node, _only(question)))
        return call.read(answers)

    async def _command(self, node: str, command: Command) -> Done:
        if self.trouble:
            raise StoreAway(self.trouble)
        waiting = self._waiting.setdefault(
            command.command_id, asyncio.get_running_loop().create_future()
        )
        try:
            async with asyncio.timeout(_ANSWERED_WITHIN):
                answer = await self._kept_answer(node, command)
                if answer is None:
                    answer = await asyncio.shield(waiting)
        except TimeoutError:
            raise AgentSilent(node, "no answer in time") from None
        except Unreachable as error:
            raise StoreAway(str(error)) from None
        except Refused as error:
            self._kept = None  # its lease may be gone
            raise AgentRefuses(node, "store", str(error)) from None
        finally:
            if self._waiting.get(command.command_id) is waiting:
                del self._waiting[command.command_id]
        if isinstance(answer, Failed):
            if answer.code == _NODE_FAILED:
                raise NodeFailed(answer.reason)
            raise AgentRefuses(node, answer.code, answer.reason)
        return answer

    async def _kept_answer(self, node: str, command: Command) -> Done | Failed | None:
        """Keep a command. The answer, if it has been carried out before; None: it will be."""
        value = encode(command)
        key = self._key("commands", node, command.command_id)
        entry, new = await self._client.create(key, value, await self._lease())
        if entry.value != value:
            reason = f"command id {command.command_id} was used for another command"
            raise AgentRefuses(node, "command-id-reused", reason)
        if new:
            return None
        answer = await self._client.get(self._key("answers", node, command.command_id))
        told = None if answer is None else _decoded(answer.value)
        return told if isinstance(told, Done) else None

    async def _lease(self) -> int:
        now = asyncio.get_running_loop().time()
        if self._kept is None or now > self._kept[0]:
            self._kept = now + _SHARED, await self._client.grant(KEPT + _SHARED)
        return self._kept[1]

    def _key(self, *parts: str) -> str:
        return "/".join(("", "netemu", self._lab, self._activity, *parts))

    # What runs while the lab is up.

    async def begin(self) -> None:
        """Take the lab's name in the store. Raises NotSo: it is away, or such a lab runs.

        One that was killed is there for some seconds longer: it is waited for.
        """
        now = asyncio.get_running_loop().time
        end = now() + ALIVE + RENEWED_EVERY
        while not await self._take_place():
            if now() < end:
                await asyncio.sleep(RENEWED_EVERY / 4)
                continue
            raise NotSo(
                f"{self._lab}: a lab of this name keeps its commands in this store already; "
                "give this one another --name"
            )

    async def _take_place(self) -> bool:
        alive = await self._client.grant(ALIVE)
        key, mine = f"/netemu/{self._lab}/activity", self._activity.encode()
        if (await self._client.create(key, mine, alive))[0].value != mine:
            await self._client.revoke(alive)
            return False
        await self._client.put(self._key("machines", self._machine), b"", alive)
        self._alive = alive
        return True

    async def run(self) -> None:
        """Carry commands out, for as long as the lab is up."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._stay())
            group.create_task(self._follow())
            for node, queue in self._queues.items():
                group.create_task(self._work(node, queue))

    async def end(self) -> None:
        """Take the lab's name and commands out of the store, if that is there."""
        with suppress(NotSo, TimeoutError):
            async with asyncio.timeout(_LEAVING):
                await self._client.delete_under(self._key(""))
                await self._client.revoke(self._alive)
        self._client.close()

    async def _stay(self) -> None:
        """Renew the machine's lease, by which it is also known whether the store is there."""
        while True:
            await asyncio.sleep(RENEWED_EVERY)
            try:
                if await self._client.keep_alive(self._alive) == 0:  # it was away for too long
                    await self.begin()  # under the same name, with all that is kept
            except NotSo as error:
                self._tell(str(error))
            else:
                self._tell("")

    def _tell(self, trouble: str) -> None:
        if bool(trouble) != bool(self.trouble):
            self._told(trouble)
        self.trouble = trouble

    async def _follow(self) -> None:
        """Queue every command that is kept, and each new one: in order, and without a gap."""
        pause = _FIRST_PAUSE
        while True:
            try:
                entries, revision = await self._client.under(self._key("commands", ""))
                answers, _ = await self._client.under(self._key("answers", ""))
                answered = {_name(one.key) for one in answers}
                for entry in sorted(entries, key=lambda one: one.created):
                    if _name(entry.key) not in answered:
                        self._queue(entry)
                pause = _FIRST_PAUSE
                async for changes in self._client.watch(self._key("commands", ""), revision + 1):
                    for change in changes:
                        if change.entry is not None:
                            self._queue(change.entry)
            except Compacted:
                continue
            except NotSo as error:
                self._tell(str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _queue(self, entry: Entry) -> None:
        node, _ = _name(entry.key)
        command = _decoded(entry.value)
        if node in self._queues and isinstance(command, _COMMANDS):
            self._queues[node].put_nowait(command)
        else:
            log.warning("%s: no command for a node of this lab", entry.key)

    async def _work(self, node: str, queue: "asyncio.Queue[Command]") -> None:
        """Have the node's agent carry its commands out, one after the other."""
        while True:
            command = await queue.get()
            answer = await self._agents_answer(node, command)
            await self._keep(node, command.command_id, answer)
            waiting = self._waiting.pop(command.command_id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)

    async def _agents_answer(self, node: str, command: Command) -> Done | Failed:
        """What the agent answers. It is asked until that is known, or its node has failed."""
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._local.append(node, Call(lambda: (command,), _done))
            except NodeFailed as error:
                return Failed(code=_NODE_FAILED, reason=str(error), command_id=command.command_id)
            except AgentRefuses as error:
                if not error.in_doubt:
                    reason = str(error).removeprefix(f"{node}: ")
                    return Failed(code=error.code, reason=reason, command_id=command.command_id)
            except AgentSilent:
                pass
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _keep(self, node: str, command_id: str, answer: Done | Failed) -> None:
        """Keep an answer as soon as the store is there.

        A refusal is not kept: the command, which has changed nothing, goes, and may come again.
        """
        pause = _FIRST_PAUSE
        while True:
            try:
                if isinstance(answer, Failed):
                    await self._client.delete(self._key("commands", node, command_id))
                else:
                    key = self._key("answers", node, command_id)
                    await self._client.create(key, encode(answer), await self._lease())
            except Unreachable:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            except Refused:
                self._kept = None
                return
            else:
                return


_NODE_FAILED: Final = "node-failed"


def _only(question: Any) -> Call[Any]:
    return Call(lambda: (question,), lambda answers: answers[0])


def _done(answers: Any) -> Done:
    done: Done = answers[0][0]
    return done


def _name(key: str) -> tuple[str, str]:
    """The node and the ID in a key."""
    *_, node, command_id = key.split("/")
    return node, command_id


def _decoded(value: bytes) -> Message | None:
    """The one message in a value; None if it is something else."""
    try:
        (told,) = map(decode, Decoder().feed(value))
    except (FrameError, MessageError, ValueError):
        return None
    return told
