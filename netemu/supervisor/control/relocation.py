"""Nodes that fail and come back, and the healing of their guests. Runs in the supervisor.

What a guest takes along from a failed node is read from the node's repository, once its agent has
certainly ended. What the agent had acknowledged is on the disk, so nothing is lost.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID, uuid4, uuid5

from hostagent.channel.messages import HEARTBEAT_INTERVAL
from hostagent.controller import calls
from hostagent.model import EventType
from netemu.errors import BadInput, NetemuError, NotSo
from netemu.supervisor.control.agent_feeds import AgentFeeds
from netemu.supervisor.control.carried_out import CarriedOut
from netemu.supervisor.control.event_log import EventLog
from netemu.supervisor.control.healing import spread
from netemu.supervisor.control.moves import Moves
from netemu.supervisor.control.placement import Placement
from netemu.supervisor.control.store import AgentRefuses, AgentSilent, Known, NodeFailed, Store
from netemu.supervisor.guests.power import Power
from netemu.supervisor.nodes.hardware import Hardware
from netemu.supervisor.nodes.node_services import NodeServices
from netemu.supervisor.nodes.wiring import WiredGuest
from netemu.topology import Guest

log = logging.getLogger(__name__)

# Heartbeats that an agent may miss before its node counts as dead: as long as its responder waits
# before it connects again.
SILENCE: Final = 4 * HEARTBEAT_INTERVAL
_LOOK: Final = 0.25
# A check that is this late shows that the machine was too busy, for agents too.
_LATE: Final = 1.0
_PAUSE: Final = 0.05
# Guests without a new node are tried again after the first, then twice that, up to the last.
_FIRST_RETRY: Final = 0.5
_LAST_RETRY: Final = 10.0
# Moves from or to a node that is to come back: each asks two agents a few things, at most.
_MOVED_WITHIN: Final = 60.0


class Cause(NamedTuple):
    """Why guests have to leave, in words, and an ID of this cause alone."""

    id: UUID
    why: str


class Relocation:
    """The nodes' failures, and the healing of them.

    `problems` says why guests of a failed node are still on it, by node.
    """

    def __init__(
        self,
        lab: str,
        store: Store,
        hosts: Sequence[NodeServices],
        hardware: Hardware,
        placement: Placement,
        watching: AgentFeeds,
        carried_out: CarriedOut,
        event_log: EventLog,
    ) -> None:
        self._lab = lab
        self._store = store
        self._hosts = {host.name: host for host in hosts}
        self._hardware = hardware
        self._placement = placement
        self._moves = Moves(
            self._hosts, store, hardware, placement, watching, event_log, self._tell_problem
        )
        self._watching = watching
        self._carried_out = carried_out
        self._event_log = event_log
        self.problems: dict[str, str] = {}
        self._failures: dict[str, UUID] = {}  # the last of each node
        self._back_at: dict[str, float] = {}  # monotonic
        self._evacuations: dict[str, asyncio.Task[None]] = {}
        self._retries: dict[str, tuple[float, float]] = {}  # by node: when, and the pause after
        self._changing = asyncio.Lock()  # a node is not evacuated and restored at once
        store.lose = lambda node, reason: self._lose(self._hosts[node], reason)

    def __contains__(self, node: str) -> bool:
        """Whether the node is on this machine."""
        return node in self._hosts

    def host(self, node: str) -> NodeServices:
        """Raise BadInput unless there is such a node."""
        if node not in self._hosts:
            raise BadInput(f"{node}: lab {self._lab} has no such node")
        return self._hosts[node]

    def runs(self, node: str) -> bool:
        """Whether the node is on this machine, and has not failed."""
        return node in self._hosts and not self._hosts[node].failed

    def host_failed(self, guest: str) -> bool:
        """Whether the guest is on a node that has failed and is not wholly back.

        So is one that comes from another machine, until it is on a node here.
        """
        node = self._hardware.node_of(guest).node.name
        return self._hardware.is_coming(guest) or self._hosts[node].state != "running"

    async def move(self, guest: str) -> None:
        """Bring a guest that is off to another node. Raises NotSo if there is none for it."""
        await self._moves.move(guest)

    # A node's end, and its return.

    def fail(self, node: str) -> None:
        """End a node's software and set its wires dead; its guests are off."""
        host = self.host(node)
        if host.failed:
            raise NotSo(f"{node} has failed already")
        self._lose(host, "it was told to")

    async def restore(self, node: str) -> None:
        """Have a node that has failed come back; guests that are still on it boot."""
        host = self.host(node)
        _require_failed(host)
        async with self._changing:
            _require_failed(host)  # another restore may have been before
            host.returning = True
            try:
                await self._restore(host)
            except (NetemuError, OSError) as error:
                self._lose(host, f"it does not come back: {error}")
                raise NotSo(f"{node} does not come back: {error}") from None
            finally:
                host.returning = False
        self._event_log.write("node", node=node, state="running")
        self._retries.clear()  # there may be room again
        self._watching.poke()

    async def _restore(self, host: NodeServices) -> None:
        await host.dead()
        await self._let_go(host)
        node = host.name
        if self._guests_on(host):
            self._withdraw_strangers(host)
        else:
            host.forget()
        self._back_at[node] = time.monotonic()
        host.start()
        self._store.restore(node)
        self._placement.restore(node)
        await self._store.settle(node, calls.advance_to(self._watching.clock_offset))
        await self._placement.tell(node)
        await host.serving()
        _require_running(host)
        self._hardware.set_ports(host.wired, up=True)

    def _withdraw_strangers(self, host: NodeServices) -> None:
        """Take guests that are elsewhere off the dead node's disk, before its agent runs again.

        A command may be waiting for that agent. It would acknowledge an event of a guest that it
        still knew, and the guest would never be told.
        """
        with self._store.dead(host.name) as dead:
            known = {one.guest.name for one in dead.snapshot().guests}
            strangers = sorted(known - self._guests_on(host))
            for command in calls.withdrawals(strangers, str(uuid4())):
                dead.append(command)

    def _guests_on(self, host: NodeServices) -> set[str]:
        """The guests that are on the node, and not gone for good."""
        names = {one.guest.name for one in host.wired.guests}
        return {name for name in names if self._hardware.power(name) is not Power.GONE}

    async def _let_go(self, host: NodeServices) -> None:
        """Wait until the dead agent's state is neither read nor added to."""
        try:
            async with asyncio.timeout(_MOVED_WITHIN):
                while self._moves.concern(host):
                    await asyncio.sleep(_PAUSE)
        except TimeoutError:
            raise NotSo(f"{host.name}: guests are still being moved from it or to it") from None

    def _lose(self, host: NodeServices, reason: str) -> None:
        if host.failed:
            return
        host.fail()
        self._failures[host.name] = uuid4()
        self._store.fail(host.name)
        try:
            self._hardware.set_ports(host.wired, up=False)
        except (NetemuError, OSError) as error:
            self._tell_problem(host, f"its wires are not dead: {error}")
        self._event_log.write("node", node=host.name, state="failed", reason=reason)
        self._watching.poke()

    # Service healing.

    async def heal(self) -> None:
        """Notice silent nodes and move their guests to others; runs until cancelled."""
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
                    # Its agent has just been started, and is not followed yet.
                    self._back_at.get(host.name, 0.0),
                    self._watching.heard(host.name) or 0.0,
                )
                if silent < SILENCE:
                    continue
                if not host.failed:
                    # A silent node may still be running. Fence it before its guests boot elsewhere.
                    trouble = f" ({host.trouble})" if host.trouble else ""
                    self._lose(host, f"no heartbeat for {SILENCE:g} s{trouble}")
                elif self._is_to_be_evacuated(host, now):
                    # Not here: a node that is to take its guests may be silent as well.
                    task = asyncio.create_task(self._evacuate_in_turn(host))
                    self._evacuations[host.name] = task

    def _is_to_be_evacuated(self, host: NodeServices, now: float) -> bool:
        if host.name in self._evacuations:
            return False
        waiting = bool(self._waiting(host))
        if not waiting:
            self._retries.pop(host.name, None)
            self.problems.pop(host.name, None)
        return waiting and now >= self._retries.get(host.name, (0.0, 0.0))[0]

    def _waiting(self, host: NodeServices) -> list[WiredGuest]:
        """The guests that have to leave: those that are off, not for good, and not leaving."""
        return [
            one
            for one in host.wired.guests
            if self._hardware.power(one.guest.name) is Power.OFF
            and not self._hardware.busy(one.guest.name)
            and one.guest.name not in self._moves
        ]

    async def _evacuate_in_turn(self, host: NodeServices) -> None:
        done = False
        try:
            async with self._changing:
                done = not host.failed or await self._evacuate(host)
        except Exception as error:
            if not isinstance(error, NetemuError):
                log.exception("%s: its guests are not brought elsewhere", host.name)
            self._tell_problem(host, str(error))
        finally:
            _, pause = self._retries.pop(host.name, (0.0, _FIRST_RETRY))
            if not done:
                self._retries[host.name] = (time.monotonic() + pause, min(2 * pause, _LAST_RETRY))
            del self._evacuations[host.name]

    async def _evacuate(self, host: NodeServices) -> bool:
        """Bring the guests of a dead node to others. Returns whether all of them have left.

        Guests that find no room stay.
        """
        await host.dead()
        leaving = [one.guest for one in self._waiting(host)]
        origin = host.wired.node.fault_domain
        moves = spread(leaving, origin, self._moves.candidates(host.name))
        if sum(map(len, moves.values())) < len(leaving):
            self._tell_problem(host, "no other node has room for all of its guests")
        if not moves:
            return False
        known = self._moves.left_by(host)

        cause = Cause(self._failures[host.name], f"{host.name} has failed")
        for problem in await self._take(moves, known, cause):
            self._tell_problem(host, problem)
        names = {guest.name for guest in leaving}
        return names.isdisjoint(one.guest.name for one in host.wired.guests)

    async def _take(
        self, moves: Mapping[str, Sequence[Guest]], known: Known, cause: Cause
    ) -> list[str]:
        """Have nodes take guests that are off. Returns why some stay where they are."""
        problems: list[str] = []

        async def take(node: str, guests: Sequence[Guest]) -> None:
            try:
                moved, sequence = await self._moves.adopt(guests, known, node)
                await self._moves.rewire(moved, node)
                await self._explain(cause, node, [guest.name for guest in moved])
                await self._moves.applied(node, sequence)
                self._moves.put(moved, node, reason=cause.why)
            except (NetemuError, OSError) as error:  # it has failed as well: they stay for now
                problems.append(f"{node} takes nobody: {error}")
            self._watching.poke()

        # In parallel: one may hang, and guests that go elsewhere need not wait for it.
        async with asyncio.TaskGroup() as group:
            for node, guests in moves.items():
                group.create_task(take(node, guests))
        return problems

    async def receive(self, guests: Sequence[Guest], known: Known, cause: Cause) -> list[str]:
        """Bring guests from another machine, which are off, to nodes here.

        Returns why some are on none.
        """
        problems = []
        for guest in guests:  # they are off, whatever their events would have done
            started = [one.id for one in known.events if one.started and guest.name in one.guests]
            self._carried_out.note(guest.name, started)
        async with self._changing:
            for domain in sorted({one.fault_domain for one in guests}):
                some = [one for one in guests if one.fault_domain == domain]
                moves = spread(some, domain, self._moves.candidates(""))
                if sum(map(len, moves.values())) < len(some):
                    problems.append("no node has room for all of them")
                problems += await self._take(moves, known, cause)
        return problems

    def _tell_problem(self, host: NodeServices, problem: str) -> None:
        """Say why guests stay on a failed node; once, and not at every attempt."""
        if self.problems.get(host.name) != problem:
            self.problems[host.name] = problem
            self._event_log.write("node", node=host.name, problem=problem)

    async def _explain(self, cause: Cause, node: str, names: Sequence[str]) -> None:
        """Have the guests find out at their new node what has happened.

        Should its agent refuse: a guest that is not told why it was booted is still booted.
        """
        told = ",".join(names)  # others may follow later: that is another event
        event_id = str(uuid5(cause.id, f"{node}/{told}"))
        reboot = calls.schedule(
            names, EventType.REBOOT, notice=0.0, description=cause.why, event_id=event_id
        )
        try:
            await self._store.settle(node, reboot)
        except (AgentRefuses, AgentSilent) as error:
            # An earlier attempt may have told them: the node has failed since, and come back.
            if not (isinstance(error, AgentRefuses) and error.code == "conflict"):
                log.warning("guests are not told that %s: %s", cause.why, error)
                return
        for name in names:  # they are off already
            self._carried_out.note(name, (event_id,))


def _require_failed(host: NodeServices) -> None:
    if not host.failed:
        raise NotSo(f"{host.name} has not failed")


def _require_running(host: NodeServices) -> None:
    if host.failed:
        raise NodeFailed(f"{host.name} has failed again")
