"""Guests that change their node: with all that is known of them. Runs in the supervisor.

A guest takes along what its agent knew: its incarnation, its events, those that are over too, and
its faults. It boots on its new node before the old one has forgotten it. What has changed on the
old one since then follows as a difference, for the new one may have been told something, too. Where
an agent's node fails meanwhile, what it had acknowledged is read from its disk, or added to it; an
event's ID keeps it from being there twice.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from uuid import uuid4

from msgspec.structs import replace

from hostagent.channel.messages import Left
from hostagent.channel.requests import Adopt, Placed
from hostagent.controller.calls import NONE_BEFORE
from hostagent.model import Event, sees
from netemu.errors import NetemuError, NotSo
from netemu.supervisor.control.agent_feeds import AgentFeeds
from netemu.supervisor.control.event_log import EventLog
from netemu.supervisor.control.healing import Candidate, choose
from netemu.supervisor.control.placement import Placement
from netemu.supervisor.control.store import AgentRefuses, AgentSilent, Known, NodeFailed, Store
from netemu.supervisor.nodes.hardware import Hardware
from netemu.supervisor.nodes.node_services import NodeServices
from netemu.topology import Guest


class Moves:
    """`tell_problem` is called with a node and what is wrong with it."""

    def __init__(
        self,
        hosts: Mapping[str, NodeServices],
        store: Store,
        hardware: Hardware,
        placement: Placement,
        feeds: AgentFeeds,
        event_log: EventLog,
        tell_problem: Callable[[NodeServices, str], None],
    ) -> None:
        self._hosts = hosts
        self._store = store
        self._hardware = hardware
        self._placement = placement
        self._feeds = feeds
        self._event_log = event_log
        self._tell_problem = tell_problem
        self._moving: dict[str, tuple[NodeServices, ...]] = {}  # by guest: the nodes it is between

    def __contains__(self, guest: str) -> bool:
        """Whether the guest is changing its node by itself."""
        return guest in self._moving

    def concern(self, host: NodeServices) -> bool:
        """Whether a guest is on its way from the node, or to it."""
        return any(host in ends for ends in self._moving.values())

    def candidates(self, leaving: str) -> list[Candidate]:
        """The nodes that may take a guest from the node `leaving`."""
        return [
            Candidate(
                host.name,
                host.wired.node.fault_domain,
                [one.guest for one in host.wired.guests],
            )
            for host in self._hosts.values()
            if host.state == "running" and host.name != leaving
        ]

    async def move(self, name: str) -> None:
        """Bring a guest that is off to another node. Raises NotSo if there is none for it."""
        host = self._hosts[self._hardware.node_of(name).node.name]
        self._moving[name] = (host,)
        try:
            known = await self._store.snapshot(host.name)
            node = await self._to_another(self._hardware.wired(name).guest, host, known)
            await self._leave(name, host, node, known)
        finally:
            del self._moving[name]

    async def _to_another(self, guest: Guest, host: NodeServices, known: Known) -> str:
        refusals: dict[str, NotSo] = {}
        while True:
            candidates = [one for one in self.candidates(host.name) if one.name not in refusals]
            node = choose(guest, host.wired.node.fault_domain, candidates)
            if node is None:
                told = "; ".join(str(error) for error in refusals.values())
                raise NotSo(told or "no other node has room")
            self._moving[guest.name] = (host, self._hosts[node])
            try:
                moved, _ = await self.adopt((guest,), known, node)
            except (AgentRefuses, AgentSilent, NodeFailed) as error:
                refusals[node] = error
            else:
                await self.rewire(moved, node)
                self.put(moved, node)
                return node

    async def adopt(
        self, guests: Iterable[Guest], known: Known, node: str
    ) -> tuple[Sequence[Guest], int]:
        """Have the agent take the guests over, durably; their wires come after that.

        Returns the guests as they are there, and the sequence as of which responders know of them.
        """
        domain = self._hosts[node].wired.node.fault_domain
        moved = [replace(guest, fault_domain=domain) for guest in guests]
        return moved, await self._take_over(node, moved, known)

    async def _take_over(
        self,
        node: str,
        guests: Sequence[Guest],
        known: Known,
        before: Mapping[str, tuple[str, ...]] = NONE_BEFORE,
    ) -> int:
        sequence = await self._placement.adopt(node, guests, known, before)
        names = {guest.name for guest in guests}
        moved = [one for one in known.guests if one.guest.name in names]
        self._feeds.adopted(node, _events_of(moved, known), sequence)
        return sequence

    async def rewire(self, guests: Iterable[Guest], node: str) -> None:
        """Take off the wires of guests that the node's agent has taken over. Next, `put` them."""
        names = [guest.name for guest in guests]
        try:
            await self._hardware.rewire(names, self._hosts[node].wired)
        except BaseException:
            self._placement.disown(node, names)
            raise

    def put(self, guests: Iterable[Guest], node: str, reason: str | None = None) -> None:
        """Put guests without wires on the node, where they will boot."""
        wired = self._hosts[node].wired
        left = {guest.name: guest for guest in guests}
        try:
            for name, guest in list(left.items()):
                before = self._hardware.node_of(name).node.name
                self._hardware.replace(self._hardware.wired(name).taken_over(guest), wired)
                del left[name]
                self._event_log.write(
                    "guest", guest=name, node=node, moved_from=before, reason=reason
                )
        finally:
            self._placement.disown(node, left)

    async def applied(self, node: str, sequence: int) -> None:
        """Wait, for a bounded time, until the node's responders know the sequence."""
        await self._placement.applied(node, sequence, self._hosts[node].responders)

    def left_by(self, host: NodeServices) -> Known:
        """What the agent of a dead node knew. Should its disk be damaged, what it said last."""
        try:
            with self._store.dead(host.name) as dead:
                return dead.snapshot()
        except NotSo as error:
            why = str(error).removeprefix(f"{host.name}: ")
            self._tell_problem(host, f"{why}; its guests keep what it has told the lab")
            return self._feeds.known(host.name)

    async def _leave(self, name: str, host: NodeServices, node: str, known: Known) -> None:
        """Have the old agent forget the guest, and bring along what it was told since it said what
        was `known`.
        """
        try:
            late, left = await self._withdraw(name, host)
            if left is not None:
                had = [one.faults for one in known.guests if one.guest.name == name]
                before = {name: tuple(fault.id for faults in had for fault in faults)}
                await self._follow(self._hardware.wired(name).guest, node, late, left, before)
        except NetemuError as error:  # it has moved all the same
            problem = f"what {host.name} was told last of it may be lost: {error}"
            self._event_log.write("guest", guest=name, node=node, problem=problem)

    async def _withdraw(self, name: str, host: NodeServices) -> tuple[Known, Left | None]:
        """What the old agent was last told, and what it knew of the guest, if anything."""
        command_id = str(uuid4())
        left: Mapping[str, Left] = {}
        try:
            left = await self._placement.withdraw(host.name, (name,), command_id)
            late = await self._store.snapshot(host.name)
        except (AgentRefuses, AgentSilent):  # later, then: it can store nothing more either
            self._placement.disown(host.name, (name,))
            late = await self._store.snapshot(host.name)
            left = {**_held(late), **left}
        except NodeFailed:  # what it had acknowledged is on its disk
            await host.dead()
            late = self.left_by(host)
            # It may have forgotten the guest, and nobody has heard its answer.
            left = {
                **_held(late),
                **self._withdrawn(host, command_id),
                **left,
            }
        return late, left.get(name)

    def _withdrawn(self, host: NodeServices, command_id: str) -> Mapping[str, Left]:
        try:
            with self._store.dead(host.name) as dead:
                done = dead.answer(command_id)
        except NotSo:  # said already: its disk is damaged
            return {}
        return {} if done is None else done.left

    async def _follow(
        self,
        guest: Guest,
        node: str,
        late: Known,
        left: Left,
        before: Mapping[str, tuple[str, ...]],
    ) -> None:
        """Have the new agent know what the old one was told last, even if it has failed since."""
        try:
            here = await self._store.snapshot(node)
            late = late._replace(guests=[_carried(here, guest.name, left)])
            sequence = await self._take_over(node, (guest,), late, before)
            await self.applied(node, sequence)
        except NodeFailed:
            host = self._hosts[node]
            await host.dead()
            with self._store.dead(node) as dead:
                carried = _carried(dead.snapshot(), guest.name, left)
                dead.append(
                    Adopt(
                        command_id=str(uuid4()),
                        clock_offset=late.clock_offset,
                        guests=(carried,),
                        events=tuple(_events_of((carried,), late)),
                        before=dict(before),
                    )
                )
            self._feeds.adopted(node, _events_of((carried,), late), inf)


def _events_of(guests: Sequence[Placed], known: Known) -> list[Event]:
    """The events that any of the guests can see."""
    return [event for event in known.events if any(sees(one.guest, event) for one in guests)]


def _held(known: Known) -> Mapping[str, Left]:
    return {one.guest.name: Left(one.incarnation, one.edits, one.faults) for one in known.guests}


def _carried(here: Known, name: str, left: Left) -> Placed:
    """The guest as its new agent has it, with what it had when it left the old one."""
    (placed,) = (one for one in here.guests if one.guest.name == name)
    return replace(placed, incarnation=left.incarnation, edits=left.edits, faults=left.faults)
