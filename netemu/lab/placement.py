"""Tells each node's agent who its guests are, and again whenever that has changed."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from hostagent.controller import AgentUnreachable, CommandRefused, Controller
from hostagent.model import Guest as PlacedGuest
from netemu.errors import BadInput, NotSo
from netemu.lab.claims import Claims
from netemu.lab.files import wrong_together
from netemu.topology import Guest, Node

log = logging.getLogger(__name__)

# Addresses change in swarms, as when a lab's guests are rebooted: a swarm is one command.
_SWARM: Final = 0.1
# An agent that does not answer is being started again.
_PAUSE: Final = 0.05
_RETRY: Final = 1.0


class Placement:
    """What the agents of `nodes` have been told, by guest; `agents` are their command sockets.

    A guest is placed with its port, and with its properties: those of the lab file or of `set`,
    its MAC, and the address that it was last bound to. With `by_address` that address is also what
    the responder knows it by.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        agents: Sequence[str],
        claims: Claims,
        *,
        by_address: bool = False,
    ) -> None:
        self._agents = {node.name: agent for node, agent in zip(nodes, agents, strict=True)}
        self._node_of = {guest.name: node for node in nodes for guest in node.guests}
        self._locks = {node.name: asyncio.Lock() for node in nodes}
        self._nodes = nodes
        self._claims = claims
        self._by_address = by_address
        self._properties = {
            guest.name: dict(guest.properties) for node in nodes for guest in node.guests
        }
        self._addresses: dict[str, str] = {}
        self._told: dict[str, PlacedGuest] = {}

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

    async def change(self, guest: str, changes: Mapping[str, str]) -> None:
        """Change properties; an empty value takes one away. Returns when the agent has stored it.

        Raises BadInput, and has changed nothing, if the agent refuses.
        """
        node = self._node_of[guest]
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

    async def _tell(self, node: Node) -> None:
        async with self._locks[node.name]:
            current = [self._placed(guest) for guest in node.guests]
            news = [one for one in current if self._told.get(one.name) != one]
            if not news:
                return
            controller = await _reached(self._agents[node.name])
            try:
                await controller.place(news)
            except (CommandRefused, AgentUnreachable) as error:
                raise NotSo(f"{node.name}: {error}") from None
            finally:
                await controller.close()
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


async def _reached(agent: str) -> Controller:
    """A connection to the agent, as soon as it takes one: it may only just have been started."""
    while True:
        try:
            return await Controller.connect(agent)
        except AgentUnreachable:
            await asyncio.sleep(_PAUSE)
