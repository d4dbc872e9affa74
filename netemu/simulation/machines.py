"""A lab on three machines in virtual time, which share a store: who heals, who is heard, who knows.

What runs is the code of labs: membership, places, the shared store, the healer and arrivals, and
the agents' repositories. Simulated are the store's servers, the processes, and the kernel: guests
that boot a moment later, and the lease until which they are heard.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from hostagent.channel.requests import Command
from hostagent.controller import calls
from hostagent.model import Guest as PlacedGuest
from hostagent.model import sees
from hostagent.repository import Repository
from netemu.errors import NotSo
from netemu.simulation.loop import Loop, Process
from netemu.simulation.servers import Servers, ServersClient
from netemu.supervisor.control.arrivals import Arrivals
from netemu.supervisor.control.event_log import EventLog
from netemu.supervisor.control.lost_machines import LostMachines, resumed
from netemu.supervisor.control.membership import Membership, Part
from netemu.supervisor.control.places import Places
from netemu.supervisor.control.published_state import left_by
from netemu.supervisor.control.relocation import Cause
from netemu.supervisor.control.repository_store import RepositoryStore
from netemu.supervisor.control.shared_store import SharedStore
from netemu.supervisor.control.store import Known
from netemu.supervisor.nodes.wiring import WiredGuest, WiredNode
from netemu.topology import Guest, Lab, parse

LAB: Final = """
name: simulated
nodes:
  n1: {machine: a, fault_domain: 0, guests: [g1, g2]}
  n2: {machine: b, fault_domain: 1, guests: [g3, g4]}
  n3: {machine: c, fault_domain: 2, guests: [g5, g6]}
"""
HOMES: Final = {"a": "n1", "b": "n2", "c": "n3"}
_WORK: Final = (0.001, 0.02)  # seconds that an agent takes for a command
_BOOT: Final = (0.2, 1.5)


class Agents(RepositoryStore):
    """The agent of a machine's one node, on a disk of its own. Each question takes it a while."""

    def __init__(
        self, node: str, repository: Repository, wall: Callable[[], float], draw: random.Random
    ) -> None:
        super().__init__({node: repository}, wall)
        self.repository = repository
        self._draw = draw

    async def _ask(self, node: str, question: Any) -> list[Any]:
        await asyncio.sleep(self._draw.uniform(*_WORK))
        try:
            return await super()._ask(node, question)
        finally:
            if isinstance(question, Command):
                await asyncio.sleep(self._draw.uniform(*_WORK))


class Guests:
    """The guests of a machine, in the places of its hardware, its placement and its nodes."""

    def __init__(self, machine: "Machine", here: Iterable[str]) -> None:
        self.running = set(here)
        self._coming: dict[str, WiredGuest] = {}
        self._machine = machine
        self._node = WiredNode(machine.lab.node(machine.node), -1)
        self._wired: dict[str, WiredGuest] = {}

    def __contains__(self, name: str) -> bool:
        return name == self._machine.node or name in self.running or name in self._coming

    def is_coming(self, name: str) -> bool:
        return name in self._coming

    def node_of(self, _: str) -> WiredNode:
        return self._node

    def wired(self, name: str) -> WiredGuest:
        return self._coming[name]

    def admit(self, came: WiredGuest | str, _: object) -> None:
        """It is off; its placement has nothing to note."""
        if isinstance(came, WiredGuest):
            self._coming[came.guest.name] = came

    async def release(self, name: str) -> None:
        await asyncio.sleep(0.01)
        self.running.discard(name)
        self._coming.pop(name, None)

    async def forget(self, names: Sequence[str]) -> None:
        """Have the agent not know them."""
        agents = self._machine.agents
        assert agents is not None
        if known := [one for one in names if agents.repository.placed(one) is not None]:
            await agents.append(self._machine.node, calls.withdraw(known))

    async def receive(self, guests: Sequence[Guest], known: Known, _: Cause) -> list[str]:
        names = {guest.name for guest in guests}
        placed = [one for one in known.guests if one.guest.name in names]
        events = [one for one in known.events if any(sees(p.guest, one) for p in placed)]
        try:
            take = calls.adopt(placed, events, known.clock_offset)
            await self._machine.store.settle(self._machine.node, take)
        except NotSo as error:
            return [str(error)]
        await asyncio.sleep(self._machine.draw.uniform(*_BOOT))
        for name in names & self._coming.keys():
            del self._coming[name]
            self.running.add(name)
        return []


class Machine:
    """One of the three: its process, its guests, and until when they are heard."""

    def __init__(self, lab: "Machines", name: str) -> None:
        self.name, self.node, self.lab, self.draw = name, HOMES[name], lab, lab.draw
        self.client = ServersClient(lab.servers)
        self.process = Process(lab.loop, name)
        self.heard = 0.0
        self.guests: Guests | None = None
        self.agents: Agents | None = None
        self._lives = 0

    def begin(self) -> None:
        """Start its supervisor; it knows nothing of an earlier one."""
        self._lives += 1
        self.process = Process(self.lab.loop, self.name)
        self.process.spawn(self._run()).add_done_callback(self._ended)

    def _ended(self, run: "asyncio.Task[None]") -> None:
        """Its supervisor never ends by itself."""
        if not run.cancelled():
            told = {"message": f"{self.name} has ended", "exception": run.exception()}
            self.lab.loop.problems.append(told)

    def kill(self) -> None:
        """All of it ends at once, its guests too."""
        self.process.crash()
        self.guests = self.agents = None
        self.heard = 0.0

    def soon(self, work: Any) -> None:
        """Have something done in its process."""
        self.process.spawn(work)

    def answers(self, guest: str) -> bool:
        """Whether the guest runs here and is heard."""
        running = self.guests is not None and guest in self.guests.running
        return running and self.lab.loop.time() < self.heard

    async def _run(self) -> None:
        lab, node = self.lab, self.node
        client: Any = self.client
        part = Part(
            lab.topology.name,
            self.name,
            (node,),
            tuple(one for one in HOMES.values() if one != node),
            lab.activity(),
            b"lab",
        )
        membership = Membership(client, part)
        places = Places(lab.topology, client, membership)
        while True:
            try:
                await membership.begin()
                await places.read()
                left = await left_by(client, membership, (node,))
            except NotSo:
                await asyncio.sleep(1.0)
            else:
                break
        places.resume(self.name, partial(resumed, left))
        gone = {name for name, one in places.brought().items() if one.machine != self.name}
        here = [one.name for one in lab.node(node).guests if one.name not in gone]
        disk = Repository.open(lab.directory / f"{node}-{self._lives}.sqlite")
        self.agents = Agents(node, disk, lab.wall, self.draw)
        guests: Any = Guests(self, here)
        self.guests = guests
        self.store = SharedStore(client, part, membership, places, self.agents, lambda _: None)
        arrivals = Arrivals(
            lab.topology,
            self.name,
            places,
            _made,
            guests,
            guests,
            guests,
            guests.forget,
            lab.event_log,
        )
        lost = LostMachines(lab.topology, client, membership, places, lab.event_log)

        async def returned() -> None:
            await places.read()
            await arrivals.let_go()

        async with asyncio.TaskGroup() as group:
            group.create_task(membership.stay(self.store.tell, self._hear, returned))
            group.create_task(places.run(self.store.tell))
            group.create_task(self.store.run())
            group.create_task(lost.heal())
            if known := [one for name, one in left.guests.items() if name in here]:
                events = [e for e in left.events if any(sees(one.guest, e) for one in known)]
                await self.agents.append(node, calls.adopt(known, events, left.clock_offset))
            if new := [PlacedGuest(name=name) for name in here if name not in left.guests]:
                await self.agents.append(node, calls.place(new))
            while True:
                try:
                    await self.store.sweep()
                except NotSo:
                    await asyncio.sleep(1.0)
                else:
                    break
            group.create_task(arrivals.run())

    def _hear(self, until: float) -> None:
        self.heard = until


async def _made(guests: Sequence[Guest]) -> Any:
    return [None] * len(guests)


class Machines:
    """The lab. All its objects are made on `loop`, which runs meanwhile."""

    def __init__(self, loop: Loop, seed: int, directory: Path) -> None:
        self.loop, self.directory = loop, directory
        self.draw = random.Random(f"{seed}/machines")
        self.servers = Servers(loop, random.Random(f"{seed}/servers"))
        self.topology: Lab = parse(LAB, source="the simulation")
        self.guests = [guest.name for guest in self.topology.guests]
        self.event_log = EventLog()
        self.machines = {name: Machine(self, name) for name in HOMES}

    def wall(self) -> float:
        return 1_800_000_000.0 + self.loop.time()

    def node(self, name: str) -> Any:
        return next(one for one in self.topology.nodes if one.name == name)

    def activity(self) -> str | None:
        """The run of the lab, once it has begun."""
        entry = self.servers.keys.get(f"/netemu/{self.topology.name}/activity")
        return None if entry is None else entry.value.decode()

    def on(self, guest: str) -> list[Machine]:
        """The machines that answer a guest now."""
        return [one for one in self.machines.values() if one.answers(guest)]

    def place_of(self, guest: str) -> str:
        """The machine that the store has a guest on."""
        entry = self.servers.keys.get(
            f"/netemu/{self.topology.name}/{self.activity()}/places/{guest}"
        )
        if entry is not None:
            machine: str = msgspec.json.decode(entry.value)["machine"]
            return machine
        (home,) = (one for one in self.topology.nodes if guest in {g.name for g in one.guests})
        return str(home.machine)
