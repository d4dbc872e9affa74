"""The store of a lab of one machine: each node's agent keeps its commands, in SQLite.

Runs in the supervisor. It speaks to the agents over their Unix sockets, and translates what
`hostagent` raises, once and here.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TypeVar

from hostagent.channel.frames import FrameError
from hostagent.controller import AgentUnreachable, CommandRefused, Controller, Watch
from hostagent.controller.calls import Call
from netemu.supervisor.control import dead_node_store
from netemu.supervisor.control.store import AgentRefuses, AgentSilent, DeadNode, Store
from netemu.supervisor.nodes.node_services import NodeServices

T = TypeVar("T")


class AgentStore(Store):
    """The agents of `hosts`. Each call is a connection of its own."""

    def __init__(self, hosts: Iterable[NodeServices]) -> None:
        self._hosts = {host.name: host for host in hosts}
        super().__init__(self._hosts)

    async def _carry_out(self, node: str, call: Call[T]) -> T:
        path = self._hosts[node].commands
        reached = False
        try:
            async with await Controller.connect(path) as agent:
                reached = True
                return await agent.make(call)
        except CommandRefused as error:
            in_doubt = reached and error.code == "busy"
            raise AgentRefuses(node, error.code, str(error), in_doubt=in_doubt) from None
        except FrameError as error:  # it was not sent
            raise AgentRefuses(node, "bad-frame", str(error)) from None
        except AgentUnreachable as error:
            why = str(error).removeprefix(f"agent at {path}: ")
            raise AgentSilent(node, why, in_doubt=reached) from None

    async def watch(self, node: str, watcher: Watch) -> None:
        await watcher.follow(self._hosts[node].feed)

    def dead(self, node: str) -> AbstractContextManager[DeadNode]:
        return dead_node_store.opened(node, self._hosts[node].repository)
