"""What a lab with a store outside adds: its place in the store, arrivals, and questions to others.

Runs in the supervisor, only where the lab has such a store.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple, TypeAlias

import msgspec

from hostagent.controller import calls
from hostagent.model import sees
from netemu.errors import NetemuError, NotSo
from netemu.etcd import Client
from netemu.etcd.http import Endpoint, context
from netemu.kernel.factory_client import Factory
from netemu.kernel.lease import Lease
from netemu.supervisor.boot.parts import Parts
from netemu.supervisor.boot.store_client import WITHIN, Outside
from netemu.supervisor.control.arrivals import Arrivals
from netemu.supervisor.control.control_server import ControlServer, Elsewhere
from netemu.supervisor.control.event_log import EventLog
from netemu.supervisor.control.forwarding import Forwarding
from netemu.supervisor.control.lost_machines import LostMachines, resumed
from netemu.supervisor.control.membership import Membership, Part
from netemu.supervisor.control.other_machines import NoOthers, OtherMachines, Others
from netemu.supervisor.control.placement import Placement
from netemu.supervisor.control.places import Places
from netemu.supervisor.control.published_state import Left, left_by
from netemu.supervisor.control.shared_store import SharedStore
from netemu.supervisor.control.store import NodeFailed, Store
from netemu.supervisor.guests.kinds import leave_to_others, made_ahead
from netemu.supervisor.guests.machine import Machine
from netemu.supervisor.nodes.tunnel import Tunnel
from netemu.topology import Guest, Lab
from netemu.tunnel.messages import Peer, Peers
from netemu.wire.order import Begun, Order, part_of

log = logging.getLogger(__name__)

_AGAIN: Final = 1.0
# Seconds between looks at who the other machines are.
_LOOK: Final = 0.5
_SECRET: Final = 32


GuestsOn: TypeAlias = Callable[[str], Iterable[str]]


class Home(NamedTuple):
    """The machine that a guest or node is on, if it has joined; and where it is, in words."""

    machine: str | None
    where: str


class SharedLab:
    """This machine's part of a lab; `ended` is called when it is over."""

    def __init__(
        self,
        order: Order,
        link: socket.socket,
        outer: socket.socket | None,
        event_log: EventLog,
        ended: Callable[[], None],
    ) -> None:
        address = order.store
        assert address is not None
        endpoints = [Endpoint(*one) for one in address.servers]
        self._client = Client(
            endpoints,
            tls=context(address.ca, address.cert, address.key),
            dial=Outside(link, endpoints).dial,
            within=WITHIN,
        )
        self._part = Part(
            lab=order.lab.name,
            machine=address.machine,
            here=[node.name for node in order.here.nodes],
            elsewhere=[node.name for node in order.elsewhere],
            activity=address.activity,
            whole=msgspec.json.encode(Begun(order.lab, order.time_scale)),
            tunnel=None if outer is None else outer.getsockname()[:2],
        )
        self._order = order
        self._event_log = event_log
        self._ended = ended
        self._membership = Membership(self._client, self._part)
        self.places = Places(order.lab, self._client, self._membership)
        self._fence = Fence()
        self._left = Left(0.0, {}, ())
        self._secret = b""  # of the machines, for the tenant network
        self.store: SharedStore | None = None
        self.others: Others = NoOthers()
        self._local: Store | None = None
        self._arrivals: Arrivals | None = None
        self.duties: list[asyncio.Task[None]] = []

    @property
    def trouble(self) -> str:
        """Why the store is away, if it is, and what follows from it."""
        if self.store is None:
            return "not asked yet"
        silent = self.store.trouble and self._part.elsewhere and self._fence.is_over
        return f"{self.store.trouble}; guests here are silent" if silent else self.store.trouble

    async def begin(self) -> Lab:
        """Take the machine's place in the store. Returns what is to be here of the lab.

        Raises NotSo; see `Membership.begin`.
        """
        await self._membership.begin()
        await self.places.read()
        if self._part.tunnel is not None:
            key = self._membership.key("tunnel")
            self._secret = (await self._client.create(key, os.urandom(_SECRET)))[0].value
        if self._part.elsewhere:
            self._left = await left_by(self._client, self._membership, self._part.here)
            self.places.resume(self._part.machine, partial(resumed, self._left))
        stay = self._membership.stay(self._tell, self._fence.last_until, self._returned)
        self.duties.append(asyncio.create_task(stay))
        here = self._order.here
        return part_of(here, {guest.name for guest in here.guests} - self._elsewhere())

    async def resume(self, local: Store, placement: Placement) -> None:
        """Tell the agents here what this machine's agents had kept, if it was there before."""
        for node in self._order.here.nodes:
            names = {guest.name for guest in node.guests} - self._elsewhere()
            placed = [one for name, one in self._left.guests.items() if name in names]
            if placed:
                seen = [e for e in self._left.events if any(sees(one.guest, e) for one in placed)]
                await local.settle(node.name, calls.adopt(placed, seen, self._left.clock_offset))
            for one in placed:
                placement.admit(one.guest.name, one.guest.properties)

    def _elsewhere(self) -> set[str]:
        """The guests that are on other machines, or were terminated."""
        brought = self.places.brought().items()
        there = {name for name, place in brought if place.machine != self._part.machine}
        return there | self.places.gone

    def fence(self, nets: Sequence[int]) -> None:
        """Let these nodes' guests be heard only while this machine is there."""
        for net in nets:
            self._fence.add(Lease.open(net))

    def connect(self, tunnel: Tunnel, net: int) -> None:
        """Connect the tenant network in `net` with those of other machines, while all are there."""
        self._fence.add(Lease.open(net, "tenant"))
        self.duties.append(asyncio.create_task(self._keep_connected(tunnel)))

    async def _keep_connected(self, tunnel: Tunnel) -> None:
        while True:
            there = self.places.machines.items()
            peers = [
                Peer(one.run, *one.tunnel)
                for name, one in sorted(there)
                if name != self._part.machine and one.tunnel is not None
            ]
            tunnel.tell(Peers(self._secret, self._membership.run, peers))
            await asyncio.sleep(_LOOK)

    async def _forget(self, guests: Sequence[str]) -> None:
        """Withdraw these guests from every agent here, whatever it knew in an earlier term."""
        assert self._local is not None
        for node in self._part.here:
            with suppress(NodeFailed):  # it forgets them when it comes back
                known = {one.guest.name for one in (await self._local.snapshot(node)).guests}
                if names := sorted(known.intersection(guests)):
                    await self._local.settle(node, calls.withdraw(names))

    def keep(self, local: Store) -> Store:
        """The lab's store; `local` reaches the agents here."""
        self._local = local
        self.store = SharedStore(
            self._client, self._part, self._membership, self.places, local, self._store_changed
        )
        duties = [
            self.store.run(),
            *([self.places.run(self._tell)] if self._part.elsewhere else []),
        ]
        self.duties += map(asyncio.create_task, duties)
        return self.store

    def _removed(self, guest: str) -> None:
        """Have no machine bring back a guest that was terminated."""
        self.duties.append(asyncio.create_task(self._keep_gone(guest)))

    async def _keep_gone(self, guest: str) -> None:
        while True:
            with suppress(NotSo):
                return await self.places.terminated(guest)
            await asyncio.sleep(_AGAIN)

    async def live(self, factory: Factory, parts: Parts, control: ControlServer) -> None:
        """Take in guests and answer other machines, now that the lab is up."""
        if not self._part.elsewhere or self.store is None:
            return
        with suppress(NotSo):  # what is left is shown a little longer
            await self.store.sweep()
        forwarding = Forwarding(
            self._client, self._membership, self.places, self._part.machine, control.here
        )
        control.elsewhere = forwarding.ask
        self.others = OtherMachines(self.places, self._part.machine, forwarding.ask)

        async def make(guests: Sequence[Guest]) -> Sequence[Machine]:
            made = [one async for one in made_ahead(factory, guests)]
            await leave_to_others(factory, made)
            return made

        parts.placement.removed = self._removed
        lab = self._order.lab
        self._arrivals = Arrivals(
            lab,
            self._part.machine,
            self.places,
            make,
            parts.hardware,
            parts.placement,
            parts.relocation,
            self._forget,
            self._event_log,
        )
        lost = LostMachines(lab, self._client, self._membership, self.places, self._event_log)
        duties = (self._arrivals.run(), lost.heal(), forwarding.run(self._tell))
        self.duties += [asyncio.create_task(one) for one in duties]

    async def end(self) -> None:
        """Leave the store."""
        for duty in self.duties:
            duty.cancel()
        await self._membership.end()
        self._client.close()

    async def _returned(self) -> None:
        """This machine was away for so long that its guests may be elsewhere."""
        await self.places.read()
        if self._arrivals is not None:
            try:
                await self._arrivals.let_go()
            except (NetemuError, OSError) as error:
                raise NotSo(f"guests that are elsewhere do not end here: {error}") from None
        elif self._elsewhere():
            log.error("machine %s was lost while it came up", self._part.machine)
            self._ended()

    def _tell(self, trouble: str) -> None:
        if self.store is not None:
            self.store.tell(trouble)

    def _store_changed(self, trouble: str) -> None:
        state = "away" if trouble else "back"
        self._event_log.write("store", state=state, reason=trouble or None)

    # What is where.

    def belongs(self, guest: str, node: str) -> bool:
        """Whether a guest that a node elsewhere had, or has by the lab file, may be there still."""
        machine, of_node = self.places.machine_of(guest), self.places.machine_of_node(node)
        return machine is None or of_node is None or machine == of_node

    def require_here(
        self, names: Sequence[str], is_here: Callable[[str], bool], guests_on: GuestsOn
    ) -> None:
        """Raise Elsewhere if guests or nodes are on another machine, and NotSo if only some are.

        `guests_on` are those that a node elsewhere is known to have.
        """
        there = {name: self._home(name, guests_on) for name in names if not is_here(name)}
        homes = {name: home for name, home in there.items() if home is not None}
        for name, (machine, where) in homes.items():
            if any(map(is_here, names)) or len({home.machine for home in homes.values()}) > 1:
                raise NotSo(f"{name}: is on {where}, and others are not: name those of one machine")
            raise Elsewhere(machine, f"{name}: is on {where}: that can only be done there")

    def shares(
        self, names: Iterable[str], is_here: Callable[[str], bool], guests_on: GuestsOn
    ) -> Mapping[str | None, list[str]]:
        """The guests and nodes of each machine; None is this one, or nobody knows them.

        Raises NotSo for one whose machine has not joined.
        """
        found: dict[str | None, list[str]] = {}
        for name in names:
            home = None if is_here(name) else self._home(name, guests_on)
            if home is not None and home.machine is None:
                raise NotSo(f"{name}: is on {home.where}, which has not joined")
            found.setdefault(None if home is None else home.machine, []).append(name)
        return found

    def _home(self, name: str, guests_on: GuestsOn) -> Home | None:
        """Where a guest or node is that is not here; None if nothing has that name."""
        named = {node.name: node.machine or "the first" for node in self._order.lab.nodes}
        homes = {one.name: node.name for node in self._order.lab.nodes for one in node.guests}
        if name in named:
            machine = self.places.machine_of_node(name)
            return Home(machine, f"machine {machine or named[name]}")
        if name not in homes:
            return None
        for node in self._part.elsewhere:
            if name in guests_on(node):
                machine = self.places.machine_of_node(node)
                return Home(machine, f"machine {machine or named[node]}, node {node}")
        home, machine = homes[name], self.places.machine_of(name)
        return Home(
            machine, f"machine {machine}" if machine else f"machine {named[home]}, node {home}"
        )


class Fence:
    """The leases of what is here, which end the hearing of its guests at a deadline."""

    def __init__(self) -> None:
        self._leases: list[Lease] = []
        self._deadline = 0.0
        self._trouble = ""

    @property
    def is_over(self) -> bool:
        """Whether no guest is heard."""
        return asyncio.get_running_loop().time() >= self._deadline

    def add(self, lease: Lease) -> None:
        """A node, or the tenant network, has been wired."""
        self._leases.append(lease)
        self.last_until(self._deadline)

    def last_until(self, deadline: float) -> None:
        """Let all guests be heard until then, and no longer unless this is called again."""
        self._deadline = deadline
        now = asyncio.get_running_loop().time
        for lease in self._leases:
            try:
                lease.last_until(deadline, now)
            except (NetemuError, OSError) as error:  # another guard has been loaded by hand
                if str(error) != self._trouble:
                    self._trouble = str(error)
                    log.error("guests are silent: %s", error)
