"""A store of nodes whose agents are bare repositories, with refusals and failures on command.

Its commands are carried out by the code that agents run. A test may have something happen `before`
or `after` a step, by kind of message and node, once.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hostagent.channel.messages import Answer, Delta, Failed, Responders
from hostagent.channel.requests import Command, ListResponders, Query
from hostagent.commands import execute, look_up
from hostagent.controller import CommandRefused, Watch
from hostagent.controller.calls import Call
from hostagent.repository import Repository
from netemu.supervisor.control import dead_node_store
from netemu.supervisor.control.store import AgentRefuses, AgentSilent, DeadNode, Store

Hook = Callable[[], None]


class FakeStore(Store):
    """`files` are the nodes' repositories; each is closed between two steps."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        super().__init__(files)
        self._files = files
        self._watchers: dict[str, list[Watch]] = {node: [] for node in files}
        self.before: dict[tuple[str, str], Hook] = {}
        self.after: dict[tuple[str, str], Hook] = {}
        self.asked: list[tuple[str, Command | Query]] = []
        """What was carried out, by node."""
        self.hanging: set[str] = set()
        self.full: set[str] = set()
        """Nodes whose disk takes nothing more."""
        self.busy: set[str] = set()
        """Nodes whose agent takes no more connections."""
        self.unreachable = 0
        """Connections that are refused first."""
        self.lost_answers = 0
        """Commands whose answer is lost first."""
        self.refusals: dict[str, tuple[str, str]] = {}
        """By guest: the code and reason with which it is not placed."""
        self.lagging: dict[str, int] = {}
        """Nodes whose responder is so far only."""

    async def _carry_out(self, node: str, call: Call[Any]) -> Any:
        try:
            return call.read([await self._step(node, one) for one in call.questions()])
        except CommandRefused as error:
            raise AgentRefuses(node, error.code, str(error)) from None

    async def _step(self, node: str, question: Command | Query) -> list[Any]:
        name = type(question).__name__.lower()
        await asyncio.sleep(0)
        while node in self.hanging:
            await asyncio.sleep(0.001)
        if self.unreachable:
            self.unreachable -= 1
            raise AgentSilent(node, "Connection refused", in_doubt=False)
        if node in self.busy:
            raise CommandRefused("busy", "too many command connections")
        self.before.pop((name, node), lambda: None)()
        if self.away(node):
            await asyncio.sleep(60)  # nobody answers
        answers = self._answers(node, question)
        self.asked.append((node, question))
        if self.lost_answers and isinstance(question, Command):
            self.lost_answers -= 1
            raise AgentSilent(node, "no answer in time")
        self.after.pop((name, node), lambda: None)()
        if self.away(node):
            await asyncio.sleep(60)
        return answers

    def _answers(self, node: str, question: Command | Query) -> list[Answer]:
        if isinstance(question, Command):
            for one in getattr(question, "guests", ()):
                if (refusal := self.refusals.get(getattr(one, "name", ""))) is not None:
                    raise CommandRefused(*refusal)
            if node in self.full:
                raise CommandRefused("repository", "the repository has failed: disk is full")
            return [self.do(node, question)]
        with self.opened(node) as repository:
            if isinstance(question, ListResponders):
                sequence = repository.sequence
                applied = self.lagging.get(node, sequence)
                return [Responders(sequence=sequence, applied=(applied,))]
            return look_up(repository, question, time.time())

    @contextmanager
    def opened(self, node: str) -> Iterator[Repository]:
        """The node's repository."""
        repository = Repository.open(self._files[node])
        try:
            yield repository
        finally:
            repository.close()

    def file(self, node: str) -> Path:
        """The node's repository, on the disk."""
        return self._files[node]

    def do(self, node: str, command: Command) -> Any:
        """Have a node's agent carry out a command, now, as if somebody else had sent it."""
        with self.opened(node) as repository, repository.transaction():
            answer, deltas = execute(repository, command, time.time())
        if isinstance(answer, Failed):
            raise CommandRefused(answer.code, answer.reason)
        self._publish(node, deltas)
        return answer

    def _publish(self, node: str, deltas: Iterable[Delta]) -> None:
        for watcher in self._watchers[node]:
            for delta in deltas:
                watcher.received(delta)

    async def watch(self, node: str, watcher: Watch) -> None:
        with self.opened(node) as one:
            for part in one.snapshot(node):
                watcher.received(part)
        self._watchers[node].append(watcher)
        await asyncio.Event().wait()

    @contextmanager
    def dead(self, node: str) -> Iterator[DeadNode]:
        with dead_node_store.opened(node, self._files[node]) as dead:
            yield dead

    def commands(self, kind: type) -> list[tuple[str, Any]]:
        """The commands of a kind that were carried out, by node."""
        return [(node, one) for node, one in self.asked if isinstance(one, kind)]
