"""The seam behind which a lab's commands are kept, by node: how nodes are told, and what they know.

Runs in the supervisor. Everything that the lab asks of a node's agent goes through here, and every
error comes out as a NetemuError. A node that fails ends at once what is being asked of it.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Final, NamedTuple, Protocol, TypeVar

from hostagent.channel.messages import Done
from hostagent.channel.requests import Command, ListEvents, ListGuests, Now, Placed
from hostagent.controller import Watch, calls
from hostagent.controller.calls import Answers, Call
from hostagent.controller.conversation import BAD_INPUT
from hostagent.model import Event
from netemu.errors import BadInput, NotSo

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
    """The agent does not answer. `in_doubt`: it may have carried the command out."""

    def __init__(self, node: str, why: str, *, in_doubt: bool = True) -> None:
        super().__init__(f"{node}: its agent does not answer: {why}")
        self.in_doubt = in_doubt


class StoreAway(AgentSilent):
    """The store cannot be reached, so that no command is taken; whether this one was is not known.

    The agents may be well: it says nothing of them.
    """

    def __init__(self, why: str) -> None:
        NotSo.__init__(self, f"no command is taken: {why}")
        self.in_doubt = True


class AgentRefuses(NotSo):
    """The agent has refused. `code` is the agent's, for programs.

    Nothing has changed, unless it is `in_doubt`: an answer was lost, and what is refused is the
    connection that was to fetch it.
    """

    def __init__(self, node: str, code: str, reason: str, *, in_doubt: bool = False) -> None:
        super().__init__(f"{node}: {reason}")
        self.code = code
        self.bad_input = code in BAD_INPUT
        if self.bad_input:  # whichever verb it was
            self.exit_code = BadInput.exit_code
        self.in_doubt = in_doubt


class Known(NamedTuple):
    """What one agent knows: how far its clock is ahead, its guests, its events and past ones."""

    clock_offset: float
    guests: Sequence[Placed]
    events: Sequence[Event]


class DeadNode(Protocol):
    """What is kept of a node whose agent has ended. All raise NotSo if it is damaged."""

    def snapshot(self) -> Known:
        """What the agent knew."""

    def answer(self, command_id: str) -> Done | None:
        """The answer to a command that the agent had carried out; None: it had not."""

    def append(self, command: Command) -> None:
        """Have the node know of a command once it is back. Raises NotSo if it is refused."""


class Store(ABC):
    """The commands of all nodes of a lab.

    `lose` is called when nobody knows what a node's agent has done, with the node and the reason:
    the node is to fail then, so that what is kept says it.
    """

    def __init__(self, nodes: Iterable[str]) -> None:
        self._away: set[str] = set()
        # In the order in which they began: a seed of the simulation is to give its run again.
        self._asked: dict[str, dict[asyncio.Timeout, None]] = {node: {} for node in nodes}
        self.lose: Callable[[str, str], None] = lambda _node, _reason: None

    # What an implementation provides.

    @abstractmethod
    async def _carry_out(self, node: str, call: Call[T]) -> T:
        """Make the call once. Raises AgentSilent and AgentRefuses."""

    @abstractmethod
    async def watch(self, node: str, watcher: Watch) -> None:
        """Tell the watcher what the node knows, and each change, for as long as the lab is up."""

    @abstractmethod
    def dead(self, node: str) -> AbstractContextManager[DeadNode]:
        """What is kept of a node that has failed, once its agent has certainly ended."""

    # Nodes that fail and return.

    def away(self, node: str) -> bool:
        """Whether the node has failed."""
        return node in self._away

    def absence(self, node: str) -> str:
        """What is said of a node that is away."""
        return f"{node} has failed"

    def fail(self, node: str) -> None:
        """The node has failed: what is being asked of it ends with NodeFailed."""
        self._away.add(node)
        for scope in self._asked[node]:
            if not scope.expired():
                scope.reschedule(0.0)

    def restore(self, node: str) -> None:
        """The node is back."""
        self._away.discard(node)

    # What can be asked.

    async def append(self, node: str, call: Call[T]) -> T:
        """Have the node's agent store a command and carry it out; what it answers.

        Raises NodeFailed, AgentSilent and AgentRefuses.
        """
        if self.away(node):
            raise NodeFailed(self.absence(node))
        scope = asyncio.timeout(None)
        self._asked[node][scope] = None
        try:
            async with scope:
                return await self._carry_out(node, call)
        except TimeoutError:
            if not scope.expired():
                raise
            raise NodeFailed(f"{node} has failed") from None
        finally:
            del self._asked[node][scope]

    async def settle(self, node: str, call: Call[T], *, patient: bool = True) -> T:
        """Have a command carried out once: it is repeated under its ID until that is known.

        Raises NodeFailed, AgentRefuses and AgentSilent: then nothing has changed; and StoreAway.
        What may pass is waited for if it is to be `patient`. An agent that may have heard of the
        command, and does not say within SETTLED_WITHIN seconds what it has done, makes its node
        fail.
        """
        now = asyncio.get_running_loop().time
        deadline, pause = now() + SETTLED_WITHIN, _FIRST_PAUSE
        in_doubt = False
        while True:
            try:
                return await self.append(node, call)
            except StoreAway:
                raise
            except (AgentSilent, AgentRefuses) as error:
                if isinstance(error, AgentRefuses) and error.code not in PASSING:
                    raise
                in_doubt = in_doubt or error.in_doubt
                problem = error
            if not in_doubt and (not patient or now() > deadline):
                raise problem
            if now() > deadline:
                self.lose(node, f"its agent heeds no command: {problem}")
                raise NodeFailed(f"{node} has failed: {problem}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def snapshot(self, node: str) -> Known:
        """What the node's agent knows. Raises as `settle` does."""
        return await self.settle(node, _SNAPSHOT)


def _known(answers: Sequence[Answers]) -> Known:
    clock, guests, events = ([one] for one in answers)
    return Known(
        calls.now().read(clock).clock_offset,
        calls.guests().read(guests),
        calls.events().read(events),
    )


_SNAPSHOT: Final = Call(lambda: (Now(), ListGuests(), ListEvents(history=True)), _known)
