"""The store of a lab whose commands are kept in etcd, outside its machine.

Runs in the supervisor. A command is a key, made once by its ID. The supervisor of the machine that
the node is on has the node's agent carry it out, in the order of the keys' revisions, and keeps the
answer beside it. Responders are fed by the agents, from repositories of their own: guests are
answered while the store is away. Commands are not taken then, and what was kept meanwhile is
carried out, without a gap, when it is back.

Its keys are `commands/NODE/ID` and `answers/NODE/ID`, kept for an hour, as agents remember
commands; and `state/NODE/…`, what the node's agent knows, for other machines. `membership` has the
rest.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar, get_args

import msgspec

from hostagent.channel.frames import Decoder, FrameError
from hostagent.channel.messages import Done, Failed, Message, MessageError, decode, encode
from hostagent.channel.requests import Command, Query
from hostagent.controller import Watch
from hostagent.controller.calls import Call
from netemu.errors import NotSo
from netemu.etcd import Change, Client, Compacted, Put, Refused, Removal, Together, Unreachable
from netemu.etcd.messages import Operation
from netemu.supervisor.control.membership import Membership, Part
from netemu.supervisor.control.remote_node import RemoteNode, state_of
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
# How long a client waits for the answer; see `hostagent.controller`.
_ANSWERED_WITHIN: Final = 10.0
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
# What one transaction may change: etcd takes 128 operations, as it comes.
_AT_ONCE: Final = 100
# Changes of a node's state come in swarms; other machines are told of a swarm at once.
_SWARM: Final = 0.1
_COMMANDS: Final = get_args(Command)

T = TypeVar("T")


class SharedStore(Store):
    """The commands of all nodes of a lab; `local` reaches those that are here.

    `trouble` says why the store is away, if it is; `told` is called with it when it changes.
    `machines` are those that are there, with their nodes; `changed` is called when they change.
    """

    def __init__(
        self, client: Client, part: Part, local: Store, told: Callable[[str], None]
    ) -> None:
        super().__init__([*part.here, *part.elsewhere])
        self.trouble = ""
        self.machines: dict[str, Sequence[str]] = {}
        self._client = client
        self._together = Together(client)
        self._part = part
        self._local = local
        self._told = told
        self._membership = Membership(client, part)
        self._kept: tuple[float, int] | None = None  # a lease of commands, and until when it serves
        self._queues: dict[str, asyncio.Queue[list[Command]]] = {
            node: asyncio.Queue() for node in part.here
        }
        self._unkept: asyncio.Queue[tuple[str, Done | Failed]] = asyncio.Queue()
        self._waiting: dict[str, asyncio.Future[Done | Failed]] = {}  # by command
        self._elsewhere = {node: RemoteNode(node) for node in part.elsewhere}

    # Nodes, which the agents answer for.

    def away(self, node: str) -> bool:
        """Whether the node has failed, or its machine is not there."""
        if node in self._elsewhere:
            return not any(node in nodes for nodes in self.machines.values())
        return super().away(node)

    def absence(self, node: str) -> str:
        if node in self._elsewhere:
            return f"{node} is on another machine, which is away"
        return super().absence(node)

    def fail(self, node: str) -> None:
        self._local.fail(node)
        super().fail(node)

    def restore(self, node: str) -> None:
        self._local.restore(node)
        super().restore(node)

    async def watch(self, node: str, watcher: Watch) -> None:
        if node in self._elsewhere:
            await self._elsewhere[node].watch(watcher)
        await self._local.watch(node, watcher)

    def dead(self, node: str) -> AbstractContextManager[DeadNode]:
        return self._local.dead(node)

    # Commands.

    async def _carry_out(self, node: str, call: Call[T]) -> T:
        answers: list[Any] = []
        for question in call.questions():
            if isinstance(question, _COMMANDS):
                answers.append([await self._command(node, question)])
            elif node in self._elsewhere:
                assert isinstance(question, Query)
                answers.append(self._elsewhere[node].answer(question))
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
        key = self._membership.key("commands", node, command.command_id)
        entry, new = await self._together.create(key, value, await self._lease())
        if entry.value != value:
            reason = f"command id {command.command_id} was used for another command"
            raise AgentRefuses(node, "command-id-reused", reason)
        if new:
            return None
        answer = await self._client.get(self._membership.key("answers", node, command.command_id))
        told = None if answer is None else _decoded(answer.value)
        return told if isinstance(told, Done) else None  # a refusal was of an earlier attempt

    async def _lease(self) -> int:
        now = asyncio.get_running_loop().time()
        if self._kept is None or now > self._kept[0]:
            self._kept = now + _SHARED, await self._client.grant(KEPT + _SHARED)
        return self._kept[1]

    # What runs while the lab is up.

    async def run(self) -> None:
        """Carry commands out, for as long as the lab is up."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._membership.stay(self._tell))
            group.create_task(self._follow("answers", self._take_answers))
            group.create_task(self._follow("commands", self._take_commands))
            group.create_task(self._keep_answers())
            for node, queue in self._queues.items():
                group.create_task(self._work(node, queue))
            if self._elsewhere:
                group.create_task(self._follow("machines", self._take_machines))
                group.create_task(self._follow("state", self._take_state))
                for node in self._part.here:
                    group.create_task(self._publish(node))

    async def begin(self) -> None:
        """Take the machine's place; see `Membership.begin`."""
        await self._membership.begin()

    async def end(self) -> None:
        """Take leave of the store, once `run` has been cancelled."""
        await self._membership.end()
        self._client.close()

    def _tell(self, trouble: str) -> None:
        if bool(trouble) != bool(self.trouble):
            self._told(trouble)
        self.trouble = trouble

    async def _follow(self, kind: str, take: Callable[[list[Change], bool], Any]) -> None:
        """Have keys of a kind taken: all that there are (True), and then each change, in order."""
        prefix, pause = self._membership.key(kind, ""), _FIRST_PAUSE
        while True:
            try:
                entries, revision = await self._client.under(prefix)
                there = sorted(entries, key=lambda one: one.modified)
                await take([Change(one.key, one, one.modified) for one in there], True)
                pause = _FIRST_PAUSE
                async for changes in self._client.watch(prefix, revision + 1):
                    await take(changes, False)
            except Compacted:
                continue
            except NotSo as error:
                self._tell(str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _take_commands(self, changes: list[Change], whole: bool) -> None:
        """Queue the commands for nodes that are here, unless they have been carried out."""
        answered = set()
        if whole:
            answers, _ = await self._client.under(self._membership.key("answers", ""))
            answered = {_name(one.key) for one in answers if _is_done(one.value)}
        came: dict[tuple[str, int], list[Command]] = {}
        for change in changes:
            node, _ = _name(change.key)
            if change.entry is None or node in self._elsewhere or _name(change.key) in answered:
                continue
            command = _decoded(change.entry.value)
            if node in self._queues and isinstance(command, _COMMANDS):
                came.setdefault((node, change.revision), []).append(command)
            else:
                log.warning("%s: no command for a node of this lab", change.key)
        for (node, _), commands in came.items():
            self._queues[node].put_nowait(commands)

    async def _take_answers(self, changes: list[Change], _: bool) -> None:
        for change in changes:
            waiting = self._waiting.get(_name(change.key)[1])
            answer = None if change.entry is None else _decoded(change.entry.value)
            if waiting is not None and not waiting.done() and isinstance(answer, Done | Failed):
                waiting.set_result(answer)

    async def _take_machines(self, changes: list[Change], whole: bool) -> None:
        if whole:
            self.machines.clear()
        for change in changes:
            _, machine = _name(change.key)
            if change.entry is None:
                self.machines.pop(machine, None)
            else:
                self.machines[machine] = msgspec.json.decode(change.entry.value)["nodes"]

    async def _take_state(self, changes: list[Change], whole: bool) -> None:
        told: dict[str, list[Change]] = {node: [] for node in self._elsewhere} if whole else {}
        for change in changes:
            node = change.key.removeprefix(self._membership.key("state", "")).partition("/")[0]
            if node in self._elsewhere:
                told.setdefault(node, []).append(change)
        for node, its in told.items():
            self._elsewhere[node].take(its, whole=whole)

    async def _publish(self, node: str) -> None:
        """Keep what the node's agent tells in the store, for other machines."""
        news = asyncio.Event()
        watch = Watch(news.set)
        kept: dict[str, bytes] | None = None  # not known: the machine may have been here before
        async with asyncio.TaskGroup() as group:
            group.create_task(self._local.watch(node, watch))
            while True:
                await news.wait()
                news.clear()
                prefix = self._membership.key("state", node, "")
                wanted = {prefix + name: value for name, value in state_of(watch).items()}
                try:
                    if kept is None:
                        await self._client.delete_under(prefix)
                        kept = {}
                    news_of_it: list[Operation] = [
                        Put(key, value) for key, value in wanted.items() if kept.get(key) != value
                    ]
                    news_of_it += [Removal(key) for key in kept.keys() - wanted.keys()]
                    for part in _batched(news_of_it, _AT_ONCE):
                        await self._client.when([], part)
                    kept = wanted
                except NotSo:  # later, then
                    news.set()
                    await asyncio.sleep(_LONGEST_PAUSE)
                await asyncio.sleep(_SWARM)

    async def _work(self, node: str, queue: "asyncio.Queue[list[Command]]") -> None:
        """Have the node's agent carry its commands out, in order.

        Those of one revision came at once, so none of them is before another.
        """
        while True:
            commands = await queue.get()
            answers = await asyncio.gather(*(self._agents_answer(node, one) for one in commands))
            for command, answer in zip(commands, answers, strict=True):
                self._unkept.put_nowait((f"{node}/{command.command_id}", answer))

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

    async def _keep_answers(self) -> None:
        """Keep the answers of all nodes: those that have come meanwhile together."""
        while True:
            answers = [await self._unkept.get()]
            while not self._unkept.empty() and len(answers) < _AT_ONCE // 2:
                answers.append(self._unkept.get_nowait())
            await self._keep(answers)

    async def _keep(self, answers: Sequence[tuple[str, Done | Failed]]) -> None:
        """Keep answers, by node and command, as soon as the store is there.

        A command that is refused has changed nothing: it goes, and may come again.
        """
        pause = _FIRST_PAUSE
        key, refused = self._membership.key, False
        while True:
            try:
                lease = await self._lease()
                acts: list[Operation] = [
                    Put(key("answers", name), encode(answer), lease) for name, answer in answers
                ]
                acts += [
                    Removal(key("commands", name))
                    for name, answer in answers
                    if isinstance(answer, Failed)
                ]
                await self._client.when([], acts)
            except Unreachable:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            except Refused as error:
                if refused:  # those who wait are told that none came
                    log.error("answers are not kept: %s", error)
                    return
                self._kept, refused = None, True  # the lease may be gone
            else:
                return


_NODE_FAILED: Final = "node-failed"


def _batched(acts: Sequence[Operation], size: int) -> Iterator[Sequence[Operation]]:
    for start in range(0, len(acts), size):
        yield acts[start : start + size]


def _only(question: Any) -> Call[Any]:
    return Call(lambda: (question,), lambda answers: answers[0])


def _done(answers: Any) -> Done:
    done: Done = answers[0][0]
    return done


def _name(key: str) -> tuple[str, str]:
    """The node and the ID in a key."""
    *_, node, command_id = key.split("/")
    return node, command_id


def _is_done(value: bytes) -> bool:
    return isinstance(_decoded(value), Done)


def _decoded(value: bytes) -> Message | None:
    """The one message in a value; None if it is something else."""
    try:
        (told,) = map(decode, Decoder().feed(value))
    except (FrameError, MessageError, ValueError):
        return None
    return told
