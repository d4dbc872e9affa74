"""A store whose agents are their repositories, in the process of the caller.

For benches and simulations, which need no agent's process. It asks nobody and waits for nothing; a
lab never runs it.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from hostagent.channel.messages import Failed
from hostagent.channel.requests import Command
from hostagent.commands import execute, look_up
from hostagent.controller import Watch
from hostagent.controller.calls import Call
from hostagent.repository import Repository
from netemu.errors import NotSo
from netemu.supervisor.control.store import AgentRefuses, DeadNode, Store

T = TypeVar("T")


class RepositoryStore(Store):
    """The repositories of some nodes; `wall` returns the machine's time in epoch seconds."""

    def __init__(self, kept: Mapping[str, Repository], wall: Callable[[], float]) -> None:
        super().__init__(kept)
        self._kept = kept
        self._wall = wall
        self._watchers: dict[str, list[Watch]] = {node: [] for node in kept}

    def close(self) -> None:
        for one in self._kept.values():
            one.close()

    async def _carry_out(self, node: str, call: Call[T]) -> T:
        return call.read([await self._ask(node, one) for one in call.questions()])

    async def _ask(self, node: str, question: Any) -> list[Any]:
        """What the node's agent answers. Raises AgentRefuses."""
        kept = self._kept[node]
        if not isinstance(question, Command):
            return look_up(kept, question, self._wall())
        with kept.transaction():
            answer, deltas = execute(kept, question, self._wall())
        for watcher in self._watchers[node]:
            for delta in deltas:
                watcher.received(delta)
        if isinstance(answer, Failed):
            raise AgentRefuses(node, answer.code, answer.reason)
        return [answer]

    async def watch(self, node: str, watcher: Watch) -> None:
        for part in self._kept[node].snapshot(node):
            watcher.received(part)
        self._watchers[node].append(watcher)
        await asyncio.Event().wait()

    def dead(self, node: str) -> AbstractContextManager[DeadNode]:
        raise NotSo(f"{node}: it is not simulated that a node fails")
