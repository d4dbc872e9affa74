"""The parts of a lab that is wired, for the modules that answer questions about it.

Runs in the supervisor. It makes none of the parts.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from netemu.errors import BadInput
from netemu.supervisor.control.agent_feeds import AgentFeeds
from netemu.supervisor.control.control_server import Handler, Kind
from netemu.supervisor.control.faults import Faults
from netemu.supervisor.control.impact import Impact
from netemu.supervisor.control.links import Links
from netemu.supervisor.control.maintenance import Maintenance
from netemu.supervisor.control.other_machines import Others
from netemu.supervisor.control.placement import Placement
from netemu.supervisor.control.relocation import Relocation
from netemu.supervisor.nodes.hardware import Hardware


class _OfGuest(Protocol):
    @property
    def guest(self) -> str: ...


A = TypeVar("A")
Q = TypeVar("Q")
G = TypeVar("G", bound=_OfGuest)


class Parts(NamedTuple):
    """The parts of a lab that is wired."""

    hardware: Hardware
    placement: Placement
    watching: AgentFeeds
    relocation: Relocation
    impact: Impact
    maintenance: Maintenance
    faults: Faults
    links: Links


class WholeLab(NamedTuple):
    """A lab that answers questions. `parts` waits until it is up; `here` refuses what is elsewhere.

    `shares` sorts guests and nodes by the other machine that they are on; None: they are here.
    """

    name: str
    parts: Callable[[], Awaitable[Parts]]
    here: Callable[..., None]
    shares: Callable[[Sequence[str]], Mapping[str | None, list[str]]]
    others: Callable[[], Others]

    async def of_guest(self, guest: str) -> Parts:
        """The lab's parts, once it is up. Raises BadInput if it has no such guest."""
        self.here(guest)
        parts = await self.parts()
        if guest not in parts.hardware:
            raise BadInput(f"{guest}: lab {self.name} has no such guest")
        return parts

    def handler(
        self, kind: Kind[Q, A], answer: Callable[[Parts, Q], Awaitable[A]]
    ) -> Handler[Any, Any]:
        """The handler of a question that one of the parts answers, once the lab is up."""

        async def handle(question: Q) -> A:
            return await answer(await self.parts(), question)

        return Handler(kind, handle)

    def guest_handler(
        self, kind: Kind[G, A], answer: Callable[[Parts, G], Awaitable[A]]
    ) -> Handler[Any, Any]:
        """The same, of a question about a guest. BadInput is raised if there is none such."""

        async def handle(question: G) -> A:
            return await answer(await self.of_guest(question.guest), question)

        return Handler(kind, handle)
