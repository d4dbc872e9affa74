"""Nodes that fail and come back, and guests that change their node: with all that is known of them.

A guest takes along what its agent knew: its incarnation and its events, those that are over too.
From a node that has failed they are read from its repository, once its agent is surely dead: what
that had acknowledged is on the disk, so nothing is lost, and an event's ID keeps it from being
there twice. To a node that fails while a guest comes to it they are brought in the same way.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from typing import Final
from uuid import NAMESPACE_URL, uuid4, uuid5

from msgspec.structs import replace

from hostagent.channel.messages import HEARTBEAT_INTERVAL, Placed
from hostagent.controller import AgentUnreachable, CommandRefused
from hostagent.model import EventType
from netemu.errors import BadInput, NotSo
from netemu.supervisor.control.agent_feeds import AgentFeeds
from netemu.supervisor.control.dead_node_store import bring, last_known
from netemu.supervisor.control.event_log import EventLog
from netemu.supervisor.control.healing import Candidate, choose, spread
from netemu.supervisor.control.placement import Known, Placement
from netemu.supervisor.guests.hardware import Hardware
from netemu.supervisor.guests.power import Power
from netemu.supervisor.nodes.node_services import NodeServices
from netemu.supervisor.nodes.wiring import WiredGuest
from netemu.topology import Guest

log = logging.getLogger(__name__)

# A node is taken for dead when its agent has missed so many heartbeats: as long as its responder
# waits until it connects anew.
SILENCE: Final = 4 * HEARTBEAT_INTERVAL
_LOOK: Final = 0.25
# A look that comes so late says that this machine was too busy: for anybody, agents too.
_LATE: Final = 1.0
_PAUSE: Final = 0.05


class Relocation:
    """Which node each guest is on, and how that changes."""

    def __init__(
        self,
        lab: str,
        hosts: Sequence[NodeServices],
        hardware: Hardware,
        placement: Placement,
        watching: AgentFeeds,
        event_log: EventLog,
    ) -> None:
        self._lab = lab
        self._hosts = {host.name: host for host in hosts}
        self._hardware = hardware
        self._placement = placement
        self._watching = watching
        self._event_log = event_log
        self._failed_at: dict[str, float] = {}
        self._back_at: dict[str, float] = {}  # monotonic
        self._moving: dict[str, tuple[NodeServices, ...]] = {}  # by guest: the nodes it is between
        self._evacuations: dict[str, asyncio.Task[None]] = {}
        self._changing = asyncio.Lock()  # a node is not evacuated and restored at once

    def host(self, node: str) -> NodeServices:
        """Raise BadInput unless there is such a node."""
        if node not in self._hosts:
            raise BadInput(f"{node}: lab {self._lab} has no such node")
        return self._hosts[node]

    def host_failed(self, guest: str) -> bool:
        """Whether the guest is on a node that has failed."""
        return self._hosts[self._hardware.node_of(guest).node.name].failed

    # A node's end, and its return.

    def fail(self, node: str) -> None:
        """End a node's software and set its wires dead; whoever is on it is off."""
        host = self.host(node)
        if host.failed:
            raise NotSo(f"{node} has failed already")
        self._lose(host, "it was told to")

    async def restore(self, node: str) -> None:
        """Have a node that has failed come back; guests that are still on it boot."""
        host = self.host(node)
        if not host.failed:
            raise NotSo(f"{node} has not failed")
        async with self._changing:
            await self._restore(host)

    async def _restore(self, host: NodeServices) -> None:
        await _dead(host)
        # What its agent knew may still have to be read, or to be added to.
        while any(host in ends for ends in self._moving.values()):
            await asyncio.sleep(_PAUSE)
        node = host.name
        guests = {one.guest.name for one in host.wired.guests}
        if not guests:
            host.forget()
        self._back_at[node] = time.monotonic()
        host.start()
        self._placement.restore(node)
        async with self._placement.agent(node) as agent:
            await agent.advance_to(self._watching.clock_offset)
            moved = [one.guest.name for one in await agent.guests() if one.guest.name not in guests]
        await self._placement.withdraw(node, moved)
        self._hardware.set_ports(host.wired, up=True)
        self._event_log.write("node", node=node, state="running")
        self._watching.poke()

    def _lose(self, host: NodeServices, reason: str) -> None:
        host.fail()
        self._failed_at[host.name] = time.time()
        self._placement.fail(host.name)
        self._hardware.set_ports(host.wired, up=False)
        self._event_log.write("node", node=host.name, state="failed", reason=reason)
        self._watching.poke()

    # Service healing.

    async def heal(self) -> None:
        """Take notice of nodes that are silent, and find other nodes for their guests; for ever."""
        begun = last = time.monotonic()
        while True:
            await asyncio.sleep(_LOOK)
            now = time.monotonic()
            if now - last > _LOOK + _LATE:
                begun = now
            last = now
            for host in self._hosts.values():
                silent = now - max(
                    begun,
                    # Its agent has only just been started, and has nobody to speak to yet.
                    self._back_at.get(host.name, 0.0),
                    self._watching.heard(host.name) or 0.0,
                )
                if silent < SILENCE:
                    continue
                if not host.failed:
                    # Whoever is not heard may still live: first make sure that it does not.
                    self._lose(host, f"no heartbeat for {SILENCE:g} s")
                elif host.name not in self._evacuations and self._waiting(host):
                    # Not here: whoever is to take its guests may be silent as well.
                    task = asyncio.create_task(self._evacuate_in_turn(host))
                    self._evacuations[host.name] = task

    def _waiting(self, host: NodeServices) -> list[WiredGuest]:
        """The guests that have to leave: those that are off, not for good, and not leaving."""
        return [
            one
            for one in host.wired.guests
            if self._hardware.power(one.guest.name) is Power.OFF
            and not self._hardware.busy(one.guest.name)
            and one.guest.name not in self._moving
        ]

    async def _evacuate_in_turn(self, host: NodeServices) -> None:
        try:
            async with self._changing:
                if host.failed:
                    await self._evacuate(host)
        finally:
            del self._evacuations[host.name]

    async def _evacuate(self, host: NodeServices) -> None:
        """Bring the guests of a dead node to others; those for whom there is no room stay."""
        await _dead(host)
        leaving = [one.guest for one in self._waiting(host)]
        origin = host.wired.node.fault_domain
        moves = spread(leaving, origin, self._candidates(host.name))
        if not moves:
            return
        try:
            known = last_known(host)
        except NotSo as error:
            log.error("%s", error)
            return

        async def take(node: str, guests: Iterable[Guest]) -> None:
            try:
                await self._resettle(guests, known, node, because=host)
            except (NotSo, CommandRefused) as error:  # it has failed as well: they stay for now
                log.warning("%s takes nobody: %s", node, error)
            self._watching.poke()

        # At once: one of them may hang, and whoever goes elsewhere need not wait until that shows.
        await asyncio.gather(*(take(node, guests) for node, guests in moves.items()))

    async def _explain(self, host: NodeServices, node: str, names: Sequence[str]) -> str:
        """Have the guests find out at their new node what has happened; gives the event's ID."""
        when = self._failed_at[host.name]
        told = ",".join(names)  # others may follow later: that is another event
        event_id = str(uuid5(NAMESPACE_URL, f"{self._lab}/{host.name}/{when}/{node}/{told}"))
        command_id = str(uuid4())
        while True:
            try:
                async with self._placement.agent(node) as agent:
                    await agent.schedule(
                        names,
                        EventType.REBOOT,
                        notice=0.0,
                        description=f"{host.name} has failed",
                        event_id=event_id,
                        command_id=command_id,
                    )
                return event_id
            except AgentUnreachable:
                await asyncio.sleep(_PAUSE)

    # One guest's move.

    async def move(self, name: str) -> None:
        """Bring a guest that is off to another node. Raises NotSo if there is none for it."""
        host = self._hosts[self._hardware.node_of(name).node.name]
        self._moving[name] = (host,)
        try:
            await self._move(self._hardware.wired(name).guest, host)
        finally:
            del self._moving[name]

    async def _move(self, guest: Guest, host: NodeServices) -> None:
        while True:
            node = choose(guest, host.wired.node.fault_domain, self._candidates(host.name))
            if node is None:
                raise NotSo("no other node has room")
            self._moving[guest.name] = (host, self._hosts[node])
            try:
                known = await self._placement.known(host.name)
                await self._resettle((guest,), known, node)
            except NotSo:
                if host.failed:
                    raise
                continue  # the other one has failed meanwhile
            await self._leave(guest.name, host, node)
            return

    async def _leave(self, name: str, host: NodeServices, node: str) -> None:
        """Have the old agent forget the guest; what it was told meanwhile comes along, too."""
        guest = self._hardware.wired(name).guest
        left: dict[str, tuple[int, int]] = {}
        try:
            left |= await self._placement.withdraw(host.name, (name,))
            late = await self._placement.known(host.name)
        except NotSo:  # it has failed: what it had acknowledged is on its disk
            await _dead(host)
            late = last_known(host)
            left = {one.guest.name: (one.incarnation, one.edits) for one in late.guests} | left
        if name in left:
            await self._follow(guest, node, late, *left[name])

    async def _follow(
        self, guest: Guest, node: str, late: Known, incarnation: int, edits: int
    ) -> None:
        """Have the new agent know what the old one was told last, even if it has failed since."""
        try:
            here = await self._placement.known(node)
            carried = _carried(here, guest.name, incarnation, edits)
            await self._placement.adopt(node, (guest,), late._replace(guests=[carried]))
        except NotSo:
            host = self._hosts[node]
            await _dead(host)
            bring(host, _carried(last_known(host), guest.name, incarnation, edits), late)

    async def _resettle(
        self, guests: Iterable[Guest], known: Known, node: str, because: NodeServices | None = None
    ) -> None:
        """The agent first, and durably; then the wires. `because` is the node that has failed."""
        wired = self._hosts[node].wired
        domain = wired.node.fault_domain
        moving = [replace(guest, fault_domain=domain) for guest in guests]
        await self._placement.adopt(node, moving, known)
        if because is not None:
            names = [guest.name for guest in moving]
            event_id = await self._explain(because, node, names)
            for name in names:  # they are off already
                self._hardware.endured[name].add(event_id)
        for guest in moving:
            before = self._hardware.node_of(guest.name).node.name
            self._hardware.replace(self._hardware.wired(guest.name).taken_over(guest), wired)
            self._event_log.write(
                "guest",
                guest=guest.name,
                node=node,
                moved_from=before,
                reason=None if because is None else f"{because.name} has failed",
            )

    def _candidates(self, leaving: str) -> list[Candidate]:
        return [
            Candidate(
                host.name,
                host.wired.node.fault_domain,
                [one.guest for one in host.wired.guests],
            )
            for host in self._hosts.values()
            if not host.failed and host.name != leaving
        ]


async def _dead(host: NodeServices) -> None:
    """Wait until the last of its processes has ended."""
    while any(service.pid is not None for service in host.services):
        await asyncio.sleep(_PAUSE)


def _carried(here: Known, name: str, incarnation: int, edits: int) -> Placed:
    """The guest as its new agent has it, with the numbers that it had when it left the old one."""
    (placed,) = (one for one in here.guests if one.guest.name == name)
    return replace(placed, incarnation=incarnation, edits=edits)
