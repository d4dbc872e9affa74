"""A lab of nodes on a simulated loop: real agents and responders' minds, the real lab above them.

What is simulated is what the kernel does in a lab: processes are started again when they end, disks
keep what was committed. `stand_ins` has the clock, wires and machines.
"""

import asyncio
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from hostagent.agent import Agent
from hostagent.dialects import Dialects, Options
from hostagent.dialects.outcomes import Approval
from hostagent.http import Request
from hostagent.repository import Repository, RepositoryError
from hostagent.responder import feed
from hostagent.responder.answers import BY_MARK, Answers, Pending
from hostagent.responder.approvals import Approvals
from hostagent.responder.faults import Faults
from hostagent.responder.knowledge import Knowledge
from netemu.errors import NotSo
from netemu.linklocal.addresses import METADATA_TEXT
from netemu.simulation import seams
from netemu.simulation.loop import Loop, Process
from netemu.simulation.network import Network
from netemu.simulation.stand_ins import Claims, Clock, Machine, Ports
from netemu.supervisor.control.agent_feeds import AgentFeeds
from netemu.supervisor.control.agent_store import AgentStore
from netemu.supervisor.control.carried_out import CarriedOut
from netemu.supervisor.control.event_log import EventLog
from netemu.supervisor.control.faults import Faults as UserFaults
from netemu.supervisor.control.impact import Impact
from netemu.supervisor.control.placement import Placement
from netemu.supervisor.control.relocation import Relocation
from netemu.supervisor.nodes.hardware import Hardware
from netemu.supervisor.nodes.node_services import NodeServices
from netemu.supervisor.nodes.wiring import WiredGuest, WiredNode
from netemu.topology import Guest, Lab, parse

LAB: Final = """
name: simulated
nodes:
  n1: {fault_domain: 0, availability_set: s, guests: [a, b, c]}
  n2: {fault_domain: 1, guests: [{name: d, availability_set: s}, e]}
  n3: {fault_domain: 2, availability_set: s, guests: [f, g]}
"""
# Seconds until a process that has ended is started again; twice that the next time.
_FIRST_RESTART, _LAST_RESTART = 0.05, 5.0
_START: Final = (0.05, 0.4)  # seconds until a process that was started serves
# Seconds until a process that was killed has ended.
_ENDS, _ENDS_LATE = 0.003, (0.5, 12.0)


class Service:
    """A process of a node that is started again when it ends, as `services.Service` does it."""

    def __init__(self, cluster: "Cluster", name: str, main: Callable[[Process], Any]) -> None:
        self.name = name
        self.process: Process | None = None
        self.failing = False
        self.trouble = ""
        self._cluster = cluster
        self._main = main
        self._wanted = True
        self._delay = _FIRST_RESTART
        self._numbers = 0

    @property
    def pid(self) -> int | None:
        return None if self.process is None else 1

    @property
    def state(self) -> str:
        return "running" if self.process is not None else "starting"

    def start(self) -> None:
        process = self.process = Process(self._cluster.loop, self.name)
        process.at_end(lambda: self._ended(process))
        delay = self._cluster.draw.uniform(*_START)
        self._cluster.loop.call_later(
            delay, lambda: process.spawn(self._run(process)), context=process.context()
        )

    async def _run(self, process: Process) -> None:
        try:
            await self._main(process)
        except RepositoryError as error:
            self.trouble = str(error)
            self._cluster.loop.call_soon(process.crash, context=self._cluster.outside)

    def kill(self) -> None:
        """End it, and do not start it again. It does nothing more; at times the kernel takes long
        for it, and what it has open stays so.
        """
        self._wanted = False
        if self.process is not None:
            process, draw = self.process, self._cluster.draw
            process.pause()
            lasts = _ENDS if draw.random() < 0.8 else draw.uniform(*_ENDS_LATE)
            self._cluster.loop.call_later(lasts, process.crash, context=self._cluster.outside)

    def _ended(self, process: Process) -> None:
        if self.process is process:
            self.process = None
        if self._wanted:
            self._cluster.loop.call_later(self._delay, self._again, context=self._cluster.outside)
            self._delay = min(2 * self._delay, _LAST_RESTART)

    def _again(self) -> None:
        if self._wanted and self.process is None:
            self.start()


class Host(NodeServices):
    """One node's software. It behaves as in a lab; what it starts is simulated."""

    services: Sequence[Service]  # type: ignore[assignment]

    def __init__(self, cluster: "Cluster", wired: WiredNode) -> None:
        self._cluster = cluster
        self.wired = wired
        self.failed = self.returning = False
        self.services = ()
        self.store = cluster.directory / wired.node.name
        self.commands = Path(f"/{self.name}/command")
        self.feed = Path(f"/{self.name}/feed")
        self._listeners = [cluster.network.listen(str(path)) for path in (self.commands, self.feed)]
        self.opened: Repository | None = None  # by the living agent
        self._file: sqlite3.Connection | None = None  # the living agent's
        self._full = False
        self.mind: Mind | None = None

    responders = 1

    def start(self) -> None:
        self.store.mkdir(exist_ok=True)
        self.failed = False
        self.services = [
            Service(self._cluster, f"{self.name}/agent", self._agent_main),
            Service(self._cluster, f"{self.name}/responder", self._responder_main),
        ]
        for service in self.services:
            service.start()

    def _make_store(self) -> None:
        self.store.mkdir()

    @contextmanager
    def disk(self) -> Iterator[Repository | None]:
        """What is on its disk, whether its agent runs or not; None: nothing."""
        if self.opened is not None or not self.repository.exists():
            yield self.opened
            return
        repository = Repository.open(self.repository)
        try:
            yield repository
        finally:
            repository.close()

    def fill(self, *, full: bool) -> None:
        """Have its disk be full, or not: the agent reads what there is, and stores nothing more."""
        self._full = full
        if self._file is not None:
            self._file.execute(f"PRAGMA query_only = {full:d}")

    def _connect(self, *args: Any, **options: Any) -> sqlite3.Connection:
        self._file = sqlite3.connect(*args, **options)
        return self._file

    async def _agent_main(self, process: Process) -> None:
        repository = self.opened = Repository.open(self.repository, self._connect)
        self.fill(full=self._full)

        def gone() -> None:
            repository.close()
            if self.opened is repository:
                self.opened = self._file = None

        process.at_end(gone)
        executor: Any = seams.INLINE
        agent = Agent(self.name, repository, wall=self._cluster.wall, executor=executor)
        commands, feeds = self._listeners
        await agent.serve(commands, feeds, asyncio.Event())  # type: ignore[arg-type]

    async def _responder_main(self, process: Process) -> None:
        mind = Mind(self._cluster)
        self.mind = mind

        def gone() -> None:
            if self.mind is mind:
                self.mind = None

        process.at_end(gone)
        mind.process = process
        heard = asyncio.Event()
        await feed.follow(self.feed, mind.knowledge, heard, mind.approvals, mind.faults)


class Mind:
    """A responder without its sockets: its knowledge, and its answers."""

    def __init__(self, cluster: "Cluster") -> None:
        self.process: Process | None = None
        self.knowledge = Knowledge()
        self.approvals = Approvals(new_id=cluster.new_id)
        self.faults = Faults()
        self.answers = Answers(
            self.knowledge,
            Dialects(Options(ec2_secret=bytes(32), azure_rate=0)),
            look_up=BY_MARK[1],
            allowed_hosts=frozenset({METADATA_TEXT}),
            wall=cluster.wall,
            faults=self.faults,
            clock=cluster.loop.time,
        )

    def ask(
        self, mark: int, method: str, path: str, query: str | None = None, body: bytes = b""
    ) -> Any:
        """A reply, or a request that waits; None while the process does nothing."""
        if self.process is None or self.process.paused or not self.process.alive:
            return None
        headers = {"host": METADATA_TEXT, "metadata": "true"}
        request = Request(method, path, query, (1, 1), headers, True, body)
        return self.answers.reply(mark, request)

    def approve(self, pending: Pending, told: Callable[[str], None]) -> None:
        """Pass an approval on, as the responder does."""
        approval = pending.outcome
        assert isinstance(approval, Approval)
        assert self.process is not None
        self.process.context().run(self.approvals.submit, pending.guest, approval.event_ids, told)


class Cluster:
    """The lab. All its objects are made on `loop`, which runs meanwhile."""

    def __init__(self, loop: Loop, seed: int, directory: Path) -> None:
        self.loop = loop
        self.draw = random.Random(f"{seed}/cluster")
        self._latest = 0.0
        self._ids = random.Random(f"{seed}/ids")
        self.directory = directory
        self.wall = Clock(loop)
        seams.install(loop, self.wall, seed)
        self.network = Network(loop, seed)
        self.outside = Process(loop, "outside").context()
        self.supervisor = Process(loop, "supervisor")
        self.lab: Lab = parse(LAB, source="the simulation")
        self.refusing: set[str] = set()
        """The guests whose machines do not boot."""
        self.on_shut_down: list[Callable[[str], None]] = []
        """Called with each guest that is being shut down."""
        self.nodes = [
            WiredNode(node, -1, [WiredGuest(guest, self._machine(guest)) for guest in node.guests])
            for node in self.lab.nodes
        ]
        self.marks = {guest.name: guest.mark for guest in self.lab.guests}
        self.hosts = {wired.node.name: Host(self, wired) for wired in self.nodes}
        hosts: Any = list(self.hosts.values())
        self.event_log = EventLog()
        self.claims = Claims(loop, self.draw)
        claims: Any = self.claims
        self.ports = Ports(self.claims)
        ports: Any = self.ports
        self.left_away: str | None = None
        """The node that does not come back after the last fault."""
        logs: Any = None  # no guest has a program
        self.hardware = Hardware(self.lab, self.nodes, claims, ports, logs)
        self.store = AgentStore(hosts)
        self.placement = Placement(self.store, self.nodes, claims)
        carried_out = CarriedOut()
        self.feeds = AgentFeeds(self.store, self.hosts, self.event_log, carried_out.forget)
        self.faults = UserFaults(self.lab, self.store, self.nodes, self.feeds)
        self.relocation = Relocation(
            self.lab.name,
            self.store,
            hosts,
            self.hardware,
            self.placement,
            self.feeds,
            carried_out,
            self.event_log,
        )
        self.impact = Impact(
            self.store,
            self.hardware,
            self.placement,
            self.relocation,
            self.feeds,
            carried_out,
            self.event_log,
        )

    def _machine(self, guest: Guest) -> Any:
        return Machine(guest.name, self.refusing, self.on_shut_down)

    def new_id(self) -> str:
        """An ID as the code under test makes them, but from the seed."""
        return str(seams.uuid(self._ids))

    async def come_up(self) -> None:
        """Start all processes; the supervisor's duties run from here on."""
        for host in self.hosts.values():
            host.start()
        for node in self.nodes:
            for one in node.guests:
                self.claims.boot(one, node)
        await self.placement.tell_all()
        for duty in (
            self.placement.follow(),
            self.feeds.run(),
            self.impact.run(),
            self.relocation.heal(),
        ):
            task = self.supervisor.spawn(duty)
            task.add_done_callback(self._over)

    def _over(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise NotSo(f"a duty of the supervisor has ended: {error!r}") from error

    def latest(self) -> float:
        """The metadata plane's time: that of the node whose clock is furthest ahead."""
        known = (host.mind.knowledge.clock_offset for host in self.hosts.values() if host.mind)
        self._latest = max(self._latest, self.wall() + max(known, default=0.0))
        return self._latest

    def told(self, name: str) -> bytes | None:
        """The document of scheduled events that the guest gets now; None if it is not answered."""
        mind, mark = self.home(name).mind, self.marks[name]
        if mind is None or not self.hardware.bound(name):
            return None
        reply = mind.ask(mark, "GET", "/metadata/scheduledevents", "api-version=2020-07-01")
        if reply is None or not reply.frame.startswith(b"HTTP/1.1 200 "):
            return None
        return bytes(reply.frame.partition(b"\r\n\r\n")[2])

    def guest(self, name: str) -> Guest:
        """The guest as it is now."""
        return self.hardware.wired(name).guest

    def home(self, name: str) -> Host:
        """The node that the guest is on."""
        return self.hosts[self.hardware.node_of(name).node.name]
