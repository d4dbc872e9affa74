"""The store of a lab whose commands are kept in etcd, outside its machine.

Runs in the supervisor. A command is a key, made once by its ID. The supervisor of the machine that
the node is on has the node's agent carry it out, in the order of the keys' revisions, and keeps the
answer beside it. Responders are fed by the agents, from repositories of their own: guests are
answered while the store is away. Commands are not taken then, and what was kept meanwhile is
carried out, without a gap, when it is back.

Its keys are `commands/NODE/ID` and `answers/NODE/ID`, kept for an hour, as agents remember
commands; and `state/NODE/…`, what the node's agent knows, for other machines. Where there are
others an answer is kept after the state that it has led to, and both in the term in which they came
about: what is acknowledged is known to the machine that takes its guests over. `membership` and
`places` have the rest.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple, TypeVar, get_args
from uuid import NAMESPACE_OID, uuid5

from msgspec.structs import replace

from hostagent.channel.frames import Decoder, FrameError
from hostagent.channel.messages import Done, Failed, Message, MessageError, decode, encode
from hostagent.channel.requests import Command, Query
from hostagent.controller import Watch
from hostagent.controller.calls import Call
from netemu.etcd import Change, Client, Put, Refused, Removal, Together, Unreachable
from netemu.etcd.messages import Operation
from netemu.supervisor.control.following import follow
from netemu.supervisor.control.membership import Membership, Part
from netemu.supervisor.control.places import Places
from netemu.supervisor.control.published_state import PublishedState
from netemu.supervisor.control.remote_node import RemoteNode
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
# Answers in one transaction: etcd takes 128 operations by default.
_AT_ONCE: Final = 50
_COMMANDS: Final = get_args(Command)

T = TypeVar("T")


class SharedStore(Store):
    """The commands of all nodes of a lab; `local` reaches those that are here.

    `trouble` says why the store is away, if it is; `told` is called with it when it changes.
    """

    def __init__(
        self,
        client: Client,
        part: Part,
        membership: Membership,
        places: Places,
        local: Store,
        told: Callable[[str], None],
    ) -> None:
        super().__init__([*part.here, *part.elsewhere])
        self.trouble = ""
        self._client = client
        self._together = Together(client)
        self._part = part
        self._local = local
        self._told = told
        self._membership = membership
        self._places = places
        self._kept: tuple[float, int] | None = None  # a lease of commands, and until when it serves
        self._queues: dict[str, asyncio.Queue[_Commands]] = {
            node: asyncio.Queue() for node in part.here
        }
        self._unkept: asyncio.Queue[_Unkept] = asyncio.Queue()
        self._state = PublishedState(client, membership, places, local, part.here)
        self._waiting: dict[str, asyncio.Future[Done | Failed]] = {}  # by command
        self._elsewhere = {node: RemoteNode(node) for node in part.elsewhere}

    # Nodes, which the agents answer for.

    def away(self, node: str) -> bool:
        """Whether the node has failed, or its machine is not there."""
        if node in self._elsewhere:
            return not any(node in one.nodes for one in self._places.machines.values())
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

    async def sweep(self) -> None:
        """See `PublishedState.sweep`."""
        await self._state.sweep()

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
            for kind, take in (("answers", self._take_answers), ("commands", self._take_commands)):
                prefix = self._membership.key(kind, "")
                group.create_task(follow(self._client, prefix, take, self.tell))
            group.create_task(self._keep_answers())
            for node, queue in self._queues.items():
                group.create_task(self._work(node, queue))
            if self._elsewhere:
                state = self._membership.key("state", "")
                group.create_task(follow(self._client, state, self._take_state, self.tell))
                for node in self._part.here:
                    group.create_task(self._state.publish(node))

    def tell(self, trouble: str) -> None:
        """Note why the store is away, or that it is there ("")."""
        if bool(trouble) != bool(self.trouble):
            self._told(trouble)
        self.trouble = trouble

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
        for (node, revision), commands in came.items():
            self._queues[node].put_nowait(_Commands(revision, commands))

    async def _take_answers(self, changes: list[Change], _: bool) -> None:
        for change in changes:
            waiting = self._waiting.get(_name(change.key)[1])
            answer = None if change.entry is None else _decoded(change.entry.value)
            if waiting is not None and not waiting.done() and isinstance(answer, Done | Failed):
                waiting.set_result(answer)

    async def _take_state(self, changes: list[Change], whole: bool) -> None:
        told: dict[str, list[Change]] = {node: [] for node in self._elsewhere} if whole else {}
        for change in changes:
            node = change.key.removeprefix(self._membership.key("state", "")).partition("/")[0]
            if node in self._elsewhere:
                told.setdefault(node, []).append(change)
        for node, its in told.items():
            self._elsewhere[node].take(its, whole=whole)

    async def _work(self, node: str, queue: "asyncio.Queue[_Commands]") -> None:
        """Have the node's agent carry its commands out, in order.

        Those of one revision came together, in no order. Those that came
        before this machine's term may be of guests that are elsewhere by now.
        """
        while True:
            revision, commands = await queue.get()
            await self._membership.settled.wait()
            term = self._membership.term
            answers: Sequence[Done | Failed]
            if revision < term and self._elsewhere:
                answers = [_lost(one.command_id) for one in commands]
            else:
                asked = (self._agents_answer(node, self._of_term(one, term)) for one in commands)
                answers = await asyncio.gather(*asked)
            for command, answer in zip(commands, answers, strict=True):
                named = replace(answer, command_id=command.command_id)
                self._unkept.put_nowait(_Unkept(node, command.command_id, named, term))

    def _of_term(self, command: Command, term: int) -> Command:
        """A command as an agent is told it. What it did in an earlier term may not hold now."""
        if not self._elsewhere:
            return command
        told = uuid5(NAMESPACE_OID, f"{command.command_id}/{term}")
        return replace(command, command_id=str(told))

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
            while not self._unkept.empty() and len(answers) < _AT_ONCE:
                answers.append(self._unkept.get_nowait())
            if self._elsewhere:
                done = [(one.node, one.answer) for one in answers]
                await self._state.has(
                    (node, answer.sequence) for node, answer in done if isinstance(answer, Done)
                )
            for term in sorted({one.term for one in answers}):
                await self._keep(term, [one for one in answers if one.term == term])

    async def _keep(self, term: int, answers: Sequence["_Unkept"]) -> None:
        """Keep answers that were given in a term, as soon as the store is there.

        A command that is refused has changed nothing: it goes, and may come again.
        """
        pause = _FIRST_PAUSE
        key, refused = self._membership.key, False
        while True:
            try:
                lease = await self._lease()
                acts: list[Operation] = [
                    Put(key("answers", one.node, one.command), encode(one.answer), lease)
                    for one in answers
                ]
                acts += [
                    Removal(key("commands", one.node, one.command))
                    for one in answers
                    if isinstance(one.answer, Failed)
                ]
                in_term = [self._membership.in_term(term)] if self._elsewhere else []
                if not await self._client.when(in_term, acts):
                    if await self._is_kept(answers[0]):  # the answer to that was lost
                        return
                    if term != self._membership.term:
                        term = self._membership.term
                        answers = [one._replace(answer=_lost(one.command)) for one in answers]
                    await asyncio.sleep(pause)
                    continue
            except Unreachable:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            except Refused as error:
                if refused:  # waiting callers are told that no answer came
                    log.error("answers are not kept: %s", error)
                    return
                self._kept, refused = None, True  # the lease may be gone
            else:
                return

    async def _is_kept(self, one: "_Unkept") -> bool:
        entry = await self._client.get(self._membership.key("answers", one.node, one.command))
        return entry is not None and entry.value == encode(one.answer)


class _Commands(NamedTuple):
    """Commands that came at one revision."""

    revision: int
    commands: list[Command]


class _Unkept(NamedTuple):
    """An answer of a node's agent to a command, and the term in which it was given."""

    node: str
    command: str
    answer: Done | Failed
    term: int


_NODE_FAILED: Final = "node-failed"


def _lost(command: str) -> Failed:
    reason = "its machine was away, and may have carried it out"
    return Failed(code=_NODE_FAILED, reason=reason, command_id=command)


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
