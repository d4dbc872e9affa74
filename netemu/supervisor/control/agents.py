"""The way to the nodes' agents: everything that the lab asks of one goes through here.

Runs in the supervisor. Whatever `hostagent` raises comes out as a NetemuError, once and here. A
node that fails ends what is being asked of its agent at once.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple, TypeVar

from hostagent.channel.frames import FrameError
from hostagent.channel.messages import Placed
from hostagent.controller import AgentUnreachable, CommandRefused, Controller
from hostagent.model import Event
from netemu.errors import NotSo

# Refusals that pass: the agent has no room for a connection, or its store cannot be written to.
PASSING: Final = ("busy", "repository")
# How long a command is repeated until it is known whether it was carried out. An agent that hangs
# is silent on its feed as well, and its node fails within a quarter of that.
SETTLED_WITHIN: Final = 30.0
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0

T = TypeVar("T")


class NodeFailed(NotSo):
    """The node has failed. What its agent had acknowledged is on its disk."""


class AgentSilent(NotSo):
    """The agent does not answer; whether it has carried the command out is not known."""


class AgentRefuses(NotSo):
    """The agent has refused, and nothing has changed. `code` is the agent's, for programs."""

    def __init__(self, node: str, code: str, reason: str) -> None:
        super().__init__(f"{node}: {reason}")
        self.code = code


class Known(NamedTuple):
    """What one agent knows: how far its clock is ahead, its guests, its events and past ones."""

    clock_offset: float
    guests: Sequence[Placed]
    events: Sequence[Event]


class Agents:
    """The agents of a lab, by node; `sockets` are where they take commands.

    `lose` is called when nobody knows what a node's agent has done, with the node and the reason:
    the node is to fail then, so that its disk says it.
    """

    def __init__(self, sockets: Mapping[str, str]) -> None:
        self._sockets = sockets
        self._away: set[str] = set()
        self._asked: dict[str, set[asyncio.Timeout]] = {node: set() for node in sockets}
        self.lose: Callable[[str, str], None] = lambda _node, _reason: None

    def away(self, node: str) -> bool:
        """Whether the node has failed."""
        return node in self._away

    def fail(self, node: str) -> None:
        """The node has failed: what is being asked of its agent ends with NodeFailed."""
        self._away.add(node)
        for scope in self._asked[node]:
            if not scope.expired():
                scope.reschedule(0.0)

    def restore(self, node: str) -> None:
        """The node is back."""
        self._away.discard(node)

    @asynccontextmanager
    async def agent(self, node: str) -> AsyncIterator[Controller]:
        """A connection to the node's agent.

        Raises NodeFailed, AgentSilent and AgentRefuses, also for what is done within.
        """
        if node in self._away:
            raise NodeFailed(f"{node} has failed")
        scope = asyncio.timeout(None)
        self._asked[node].add(scope)
        try:
            async with scope, await Controller.connect(self._sockets[node]) as controller:
                yield controller
        except TimeoutError:
            if not scope.expired():
                raise
            raise NodeFailed(f"{node} has failed") from None
        except CommandRefused as error:
            raise AgentRefuses(node, error.code, str(error)) from None
        except FrameError as error:  # it was not sent
            raise AgentRefuses(node, "bad-frame", str(error)) from None
        except AgentUnreachable as error:
            why = str(error).removeprefix(f"agent at {self._sockets[node]}: ")
            raise AgentSilent(f"{node}: its agent does not answer: {why}") from None
        finally:
            self._asked[node].discard(scope)

    async def settle(
        self, node: str, act: Callable[[Controller], Awaitable[T]], *, patient: bool = True
    ) -> T:
        """Have something carried out once. `act` may be called several times: it gives its command
        the same ID each time, or only asks.

        Raises NodeFailed, and AgentRefuses and AgentSilent: then nothing has changed. What may pass
        is waited for if it is to be `patient`. An agent that may have heard of the command, and
        does not say within SETTLED_WITHIN seconds what it has done, makes its node fail.
        """
        now = asyncio.get_running_loop().time
        deadline, pause = now() + SETTLED_WITHIN, _FIRST_PAUSE
        unknown = False  # whether the agent may have carried it out
        while True:
            reached = False
            try:
                async with self.agent(node) as agent:
                    reached = True
                    return await act(agent)
            except AgentSilent as error:
                unknown = unknown or reached
                problem: NotSo = error
            except AgentRefuses as error:
                if error.code not in PASSING:
                    raise
                # A connection is refused as busy, also the one that was to fetch a lost answer.
                unknown = unknown or (reached and error.code == "busy")
                problem = error
            if not unknown and (not patient or now() > deadline):
                raise problem
            if now() > deadline:
                self.lose(node, f"its agent heeds no command: {problem}")
                raise NodeFailed(f"{node} has failed: {problem}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
