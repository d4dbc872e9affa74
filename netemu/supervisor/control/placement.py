"""Tells each node's agent who its guests are, and again whenever that has changed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple
from uuid import uuid4

from msgspec.structs import replace

from hostagent.channel.messages import Placed
from hostagent.controller import AgentUnreachable, CommandRefused, Controller
from hostagent.model import Event, sees
from hostagent.model import Guest as PlacedGuest
from netemu.errors import BadInput, NotSo
from netemu.supervisor.nodes.claims import Claims
from netemu.supervisor.nodes.wiring import WiredNode
from netemu.topology import Guest
from netemu.wire.lab_file import wrong_together

log = logging.getLogger(__name__)

# Addresses change in swarms, as when a lab's guests are rebooted: a swarm is one command.
_SWARM: Final = 0.1
# An agent that does not answer is being started again.
_PAUSE: Final = 0.05
_RETRY: Final = 1.0


class Known(NamedTuple):
    """What one agent knows: how far its clock is ahead, its guests, its events and past ones."""

    clock_offset: float
    guests: Sequence[Placed]
    events: Sequence[Event]


class Placement:
    """What the agents of `nodes` have been told, by guest; `agents` are their command sockets.

    A guest is placed with its port, and with its properties: those of the lab file or of `set`,
    its MAC, and the address that it was last bound to. With `by_address` that address is also what
    the responder knows it by.
    """

    def __init__(
        self,
        nodes: Sequence[WiredNode],
        agents: Sequence[str],
        claims: Claims,
        *,
        by_address: bool = False,
    ) -> None:
        self._agents = {wired.node.name: agent for wired, agent in zip(nodes, agents, strict=True)}
        self._locks = {wired.node.name: asyncio.Lock() for wired in nodes}
        self._nodes = nodes
        self._claims = claims
        self._by_address = by_address
        self._properties = {
            one.guest.name: dict(one.guest.properties) for wired in nodes for one in wired.guests
        }
        self._addresses: dict[str, str] = {}
        self._told: dict[str, PlacedGuest] = {}
        self._away: set[str] = set()  # nodes that have failed: nobody is there to be told
        self._gone: set[str] = set()  # guests that are on no node any more

    async def tell_all(self) -> None:
        """Have every agent know what is so now; raises NotSo if one refuses it."""
        await asyncio.gather(*(self._tell(node) for node in self._nodes))

    async def follow(self) -> None:
        """Have the agents know of every change from now on, for as long as the lab is up."""
        while True:
            change = self._claims.change
            try:
                await self.tell_all()
            except NotSo as error:
                log.warning("placing guests: %s", error)
                await asyncio.sleep(_RETRY)
                continue
            await change.wait()
            await asyncio.sleep(_SWARM)

    def properties(self, guest: str) -> dict[str, str]:
        """The properties that the lab file or `change` has given to the guest."""
        return dict(self._properties[guest])

    async def change(self, node: WiredNode, guest: str, changes: Mapping[str, str]) -> None:
        """Change properties; an empty value takes one away. Returns when the agent has stored it.

        Raises BadInput, and has changed nothing, if the agent refuses.
        """
        before = self._properties[guest]
        after = {key: value for key, value in {**before, **changes}.items() if value}
        if wrong := wrong_together(after):
            raise BadInput(f"{guest}: {wrong}")
        self._properties[guest] = after
        try:
            await self._tell(node)
        except NotSo as error:
            self._properties[guest] = before
            raise BadInput(f"{guest}: {error}") from None

    @asynccontextmanager
    async def agent(self, node: str) -> AsyncIterator[Controller]:
        """A connection to a node's agent, as soon as it takes one. Raises NotSo: it has failed."""
        controller = await self._reached(node)
        try:
            yield controller
        finally:
            await controller.close()

    async def _reached(self, node: str) -> Controller:
        """A connection as soon as there is one: the agent may only just have been started."""
        while node not in self._away:
            try:
                return await Controller.connect(self._agents[node])
            except AgentUnreachable:
                await asyncio.sleep(_PAUSE)
        raise NotSo(f"{node} has failed")

    # Guests that change places.

    async def known(self, node: str) -> Known:
        """Give what a node's agent knows."""
        async with self.agent(node) as agent:
            offset = (await agent.now()).clock_offset
            return Known(offset, await agent.guests(), await agent.events(history=True))

    async def adopt(self, node: str, guests: Iterable[Guest], known: Known) -> None:
        """Have a node's agent take over guests, with what was `known` of them elsewhere.

        When this returns it is stored there.
        """
        before = {placed.guest.name: placed for placed in known.guests}
        placed = [
            replace(before[guest.name], guest=self._placed(guest))
            for guest in guests
            if guest.name in before
        ]
        concerned = [
            event for event in known.events if any(sees(one.guest, event) for one in placed)
        ]
        command_id = str(uuid4())
        async with self._locks[node]:
            while True:
                try:
                    async with self.agent(node) as agent:
                        await agent.adopt(placed, concerned, known.clock_offset, command_id)
                    break
                except AgentUnreachable:
                    await asyncio.sleep(_PAUSE)
            self._told.update((one.guest.name, one.guest) for one in placed)

    async def withdraw(self, node: str, guests: Iterable[str]) -> Mapping[str, tuple[int, int]]:
        """Have a node's agent forget guests: they are elsewhere.

        Gives the last incarnation and edits of each that it had.
        """
        names, command_id = tuple(guests), str(uuid4())
        async with self._locks[node]:
            while names:
                try:
                    async with self.agent(node) as agent:
                        return await agent.withdraw(names, command_id)
                except AgentUnreachable:
                    await asyncio.sleep(_PAUSE)
        return {}

    async def remove(self, node: str, guest: str) -> None:
        """Have its agent forget a guest that has gone for good."""
        self._gone.add(guest)
        await self.withdraw(node, (guest,))

    def fail(self, node: str) -> None:
        """The node has failed: it is told nothing until it is back."""
        self._away.add(node)

    def restore(self, node: str) -> None:
        """The node is back, and knows what it knew, or nothing: it is told all anew."""
        self._away.discard(node)
        for wired in self._nodes:
            if wired.node.name == node:
                for one in wired.guests:
                    self._told.pop(one.guest.name, None)

    async def _tell(self, wired: WiredNode) -> None:
        name = wired.node.name
        async with self._locks[name]:
            if name in self._away:
                return
            here = [one.guest for one in wired.guests if one.guest.name not in self._gone]
            current = [self._placed(guest) for guest in here]
            news = [one for one in current if self._told.get(one.name) != one]
            if not news:
                return
            async with self.agent(name) as controller:
                try:
                    await controller.place(news)
                except (AgentUnreachable, CommandRefused) as error:
                    raise NotSo(f"{name}: {error}") from None
            self._told.update((one.name, one) for one in news)

    def _placed(self, guest: Guest) -> PlacedGuest:
        address = self._claims.address(guest)
        if address is not None and self._claims.bound(guest):
            self._addresses[guest.name] = address
        known = self._addresses.get(guest.name)
        found = {"mac": guest.mac, **({} if known is None else {"address": known})}
        return PlacedGuest(
            name=guest.name,
            port=guest.mark,
            address=known if self._by_address else None,
            update_domain=guest.update_domain,
            fault_domain=guest.fault_domain,
            availability_set=guest.availability_set,
            properties={**self._properties[guest.name], **found},
        )
