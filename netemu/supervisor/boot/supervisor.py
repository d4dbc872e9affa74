"""Builds the lab, runs its claims, keeps its services running, and answers questions about it.

Runs as PID 1 of the sandbox. It leaves what happens to guests to `control`.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hostagent.signing import Signer
from netemu.errors import BadInput, NotSo
from netemu.kernel import namespaces as ns
from netemu.kernel.factory_client import Factory
from netemu.linklocal.timing import Timing
from netemu.supervisor.boot import readiness
from netemu.supervisor.boot.guest_questions import GuestQuestions
from netemu.supervisor.boot.lab_log import keep_short
from netemu.supervisor.boot.parts import Parts, WholeLab
from netemu.supervisor.boot.plan_questions import PlanQuestions
from netemu.supervisor.boot.status import lab_status, machine_seen, of_factory
from netemu.supervisor.control.agent_feeds import AgentFeeds
from netemu.supervisor.control.agent_store import AgentStore
from netemu.supervisor.control.carried_out import CarriedOut
from netemu.supervisor.control.control_server import Beside, ControlServer, Handler
from netemu.supervisor.control.event_log import EventLog
from netemu.supervisor.control.faults import Faults
from netemu.supervisor.control.impact import Impact
from netemu.supervisor.control.links import Links
from netemu.supervisor.control.maintenance import Maintenance
from netemu.supervisor.control.other_machines import NoOthers, Others
from netemu.supervisor.control.placement import Placement
from netemu.supervisor.control.relocation import Relocation
from netemu.supervisor.control.store import Store
from netemu.supervisor.guests.logs import Logs
from netemu.supervisor.guests.machine import Capability
from netemu.supervisor.nodes.claims import Claims
from netemu.supervisor.nodes.hardware import Hardware
from netemu.supervisor.nodes.node_services import NodeServices, keep_signing_key
from netemu.supervisor.nodes.ports import Ports
from netemu.supervisor.nodes.services import GRACE, Overseer, Service
from netemu.supervisor.nodes.tenant import TenantNetwork
from netemu.supervisor.nodes.wiring import Manner, WiredNode, wire
from netemu.supervisor.nodes.zygote import Zygote
from netemu.wire import questions, runtime_dir
from netemu.wire.order import Order
from netemu.wire.profile import Identity
from netemu.wire.progress import Progress
from netemu.wire.status import LabStatus, MachineSeen

if TYPE_CHECKING:
    from netemu.supervisor.boot.shared_lab import SharedLab
    from netemu.supervisor.nodes.tunnel import Tunnel

log = logging.getLogger(__name__)

# Seconds that `up` waits at time scale 1. A claim takes seven. A guest after MAX_CONFLICTS
# conflicts tries one address a minute (RFC 3927 section 2.2.1).
CLAIMING_AT_MOST: Final = 180.0
# … and for the first answers: to start a thousand processes takes a small machine half of it.
ANSWERING_AT_MOST: Final = 60.0
# Seconds that other machines may take to be seen: a user watches them, one frame a second.
SEEN_WITHIN: Final = 2.0


class Supervisor:
    """The lab, from its first namespace to its last."""

    def __init__(
        self,
        order: Order,
        directory: int,
        progress: Progress,
        owner: int,
        dialler: socket.socket | None,
        outer: socket.socket | None,
        zygote: Zygote,
    ) -> None:
        self._order = order
        self._lab = order.here
        self._directory = Path(f"/proc/self/fd/{directory}")
        self._progress = progress
        self._owner: int | None = owner  # a pidfd, for as long as the lab goes down with it
        self._dialler = dialler  # the way to the servers of the lab's store, if it has one
        self._outer = outer  # to other machines, if its tenant network crosses
        self._tunnel: Tunnel | None = None
        self._shared: SharedLab | None = None
        self._factory = Factory(self._factory_ended, order.shared, order.readable)
        self._zygote = zygote
        self._event_log = EventLog()
        self._nodes: list[WiredNode] = []
        self._hosts: list[NodeServices] = []
        self._claims: Claims | None = None
        self._parts: Parts | None = None
        self._control: ControlServer | None = None
        self._orphaned = False
        self._ready = asyncio.Event()
        self._down = asyncio.Event()
        self._sandbox = {kind: ns.open_own(kind) for kind in ("user", "mnt", "pid", "net")}

    async def run(self, control: socket.socket, agents: list[socket.socket]) -> bool:
        """Bring the lab up, and stay until it goes down. Returns whether its owner has ended."""
        loop = asyncio.get_running_loop()
        assert self._owner is not None
        loop.add_reader(self._owner, self._owner_ended)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._down.set)
        self._factory.start()
        self._factory.watch()
        self._zygote.watch()
        overseer = Overseer(self._services, also=[self._factory, self._zygote])
        self._control = ControlServer(
            control, self._handlers(), {questions.Follow: self._event_log.follow}
        )
        self._control.start()
        going_up = asyncio.create_task(self._come_up(agents))
        going_down = asyncio.create_task(self._down.wait())
        overseeing = asyncio.create_task(overseer.run())
        shortening = asyncio.create_task(keep_short(self._directory / runtime_dir.LOG))
        failing = asyncio.create_task(self._watch_for_failing())
        first = {going_up, going_down, failing, overseeing}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        failing.cancel()
        for duty in (failing, overseeing):
            if duty.done():
                duty.result()
        if going_up.done():
            going_up.result()
            await self._live(going_down, overseeing)
        going_up.cancel()
        overseeing.cancel()
        shortening.cancel()
        log.info("lab %s goes down", self._lab.name)
        await self._stop_services()
        if self._shared is not None:
            await self._shared.end()
        return self._orphaned

    def _owner_ended(self) -> None:
        log.info("the process that ordered the lab has ended")
        self._orphaned = True
        self._let_go()
        self._down.set()

    def _let_go(self) -> None:
        """Stay up when the owner ends."""
        if self._owner is not None:
            asyncio.get_running_loop().remove_reader(self._owner)
            os.close(self._owner)
            self._owner = None

    def _factory_ended(self, reason: str) -> None:
        log.error("the factory %s", reason)
        self._event_log.write("service", service="factory", state="ended", reason=reason)

    def _relay_ended(self, reason: str) -> None:
        self._event_log.write("service", service="relay", state="ended", reason=reason)

    def _machine_told(self, guest: str, node: str, words: str) -> None:
        self._event_log.write("guest", guest=guest, node=node, told=words)

    async def _live(
        self, going_down: "asyncio.Task[bool]", overseeing: "asyncio.Task[None]"
    ) -> None:
        """Be up: keep the agents informed, carry out their events, and heal."""
        parts = self._parts
        assert parts is not None
        duties = [overseeing]
        if self._shared is not None:
            assert self._control is not None
            await self._shared.live(self._factory, parts, self._control)
            duties += self._shared.duties
        duties += [
            asyncio.create_task(duty)
            for duty in (
                parts.placement.follow(),
                parts.watching.run(),
                parts.impact.run(),
                parts.relocation.heal(),
            )
        ]
        if not self._order.owned:
            self._let_go()
        self._progress.ready()
        self._ready.set()
        log.info("lab %s is up", self._lab.name)
        await asyncio.wait({going_down, *duties}, return_when=asyncio.FIRST_COMPLETED)
        for duty in duties:
            if duty.done():
                duty.result()  # none of them ends except by a defect of ours
            duty.cancel()

    async def _come_up(self, command_sockets: list[socket.socket]) -> None:
        if self._order.store is not None and self._dialler is not None:
            # A lab of one machine does not import this.
            from netemu.supervisor.boot.shared_lab import SharedLab

            self._shared = SharedLab(
                self._order, self._dialler, self._outer, self._event_log, self._down.set
            )
            self._lab = await self._shared.begin()
        lab, scale, profile = self._lab, self._order.time_scale, self._order.profile
        leased = self._shared is not None and bool(self._order.elsewhere)
        manner = Manner(lab.policy, scale, profile, leased, lab.ipv6, lab.leasing)
        self._nodes = await wire(lab, self._factory, manner, progress=self._progress)
        if self._shared is not None and leased:
            self._shared.fence([node.net for node in self._nodes])
        network = await self._tenant_network()
        by_mark = profile.identity is Identity.MARK
        self._claims = claims = Claims(
            Timing().scaled(scale), resets=profile.resets, by_mark=by_mark
        )
        claims.begin(self._nodes)
        await claims.hold(self._factory)
        self._progress.step("claiming addresses", 0, len(lab.guests))  # they have begun
        key = keep_signing_key(self._order.signing_key)
        await self._zygote.ready()
        for number, node in enumerate(self._nodes):
            host = NodeServices(
                number,
                node,
                command_sockets[number],
                profile=profile,
                zygote=self._zygote,
                access_log=self._order.access_log,
                signing_key=key,
            )
            host.open()
            host.start()
            self._hosts.append(host)
            await asyncio.sleep(0)  # so that a 'down' need not wait for all of them
        agents = AgentStore(self._hosts)
        store: Store = agents if self._shared is None else self._shared.keep(agents)
        placement = Placement(store, self._nodes, claims, by_address=not by_mark)
        hardware = Hardware(
            self._order.lab,  # every guest knows the names of all tenants
            self._nodes,
            claims,
            Ports(manner, network),
            Logs(self._directory / runtime_dir.LOGS),
            properties=placement.properties,
            relay_ended=self._relay_ended,
            machine_told=self._machine_told,
        )
        await hardware.start_programs()
        carried_out = CarriedOut()
        watching = AgentFeeds(
            store,
            [*(one.name for one in self._hosts), *(one.name for one in self._order.elsewhere)],
            self._event_log,
            carried_out.forget,
        )
        relocation = Relocation(
            lab.name,
            store,
            self._hosts,
            hardware,
            placement,
            watching,
            carried_out,
            self._event_log,
        )
        impact = Impact(
            store, hardware, placement, relocation, watching, carried_out, self._event_log
        )
        maintenance = Maintenance(lab.name, store, self._nodes, watching, self._order.elsewhere)
        if self._shared is not None:
            maintenance.belongs = self._shared.belongs
        faults = Faults(lab, store, self._nodes, watching, maintenance.elsewhere)
        links = Links(lab, hardware)
        self._parts = Parts(
            hardware, placement, watching, relocation, impact, maintenance, faults, links
        )
        bound = claims.all_bound(lab.guests, self._progress)
        claiming = CLAIMING_AT_MOST * max(1.0, scale)
        async with readiness.within(claiming, lambda: readiness.unbound(self._nodes, claims)):
            if self._shared is not None:
                await self._shared.resume(agents, placement)
            await asyncio.gather(bound, placement.tell_all())
            await placement.tell_all()  # now with everybody's address
            await faults.add_those_of_the_file()
        async with readiness.within(ANSWERING_AT_MOST, lambda: "not every guest was answered"):
            await readiness.all_answered(
                self._nodes, self._progress, misled=faults.guests_of_the_file()
            )
        await self._parts.links.as_the_file_says()

    async def _tenant_network(self) -> TenantNetwork | None:
        """The network of guests that have an interface on it, if any has, on whichever machine."""
        wired = [one for node in self._nodes for one in node.guests if one.guest.tenant]
        if not wired and self._outer is None:
            return None
        (net,) = await self._factory.nodes(1)
        if self._outer is None or self._shared is None:
            return TenantNetwork.build(self._lab, wired, net)
        # A lab of one machine does not import this.
        from netemu.supervisor.nodes.tunnel import Tunnel

        here = {one.guest.name for one in wired}
        everybody = [guest for guest in self._order.lab.guests if guest.tenant]
        others = [guest for guest in everybody if guest.name not in here]
        network = TenantNetwork.build(self._lab, wired, net, others)
        self._tunnel = Tunnel.open(self._outer, network.tunnel())
        self._shared.connect(self._tunnel, net)
        return network

    async def _watch_for_failing(self) -> None:
        """Raise NotSo once a service fails to start, so that nobody waits for the lab."""
        while True:
            for service in self._services():
                if service.failing:
                    raise NotSo(f"{service.name} does not start: {service.trouble}")
            await asyncio.sleep(0.2)

    async def _stop_services(self) -> None:
        self._zygote.close()
        for host in self._hosts:
            host.stop()
        if self._parts is not None:
            self._parts.hardware.wires.close()
        if self._tunnel is not None:
            self._tunnel.stop()
        try:
            async with asyncio.timeout(GRACE):
                while self._zygote.pid or any(service.pid for service in self._services()):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            log.warning("some services did not end in time")

    def _services(self) -> list[Service]:
        relay = self._parts.hardware.wires.services if self._parts else ()
        carrier = [self._tunnel.service] if self._tunnel else []
        return [*(service for host in self._hosts for service in host.services), *relay, *carrier]

    # The questions.

    def _handlers(self) -> list[Handler[Any, Any]]:
        lab = WholeLab(self._lab.name, self._whole, self._require_here, self._shares, self._others)
        return [
            *GuestQuestions(lab).handlers(),
            *PlanQuestions(lab).handlers(),
            Handler(questions.Status, self._status),
            Handler(questions.Seen, self._seen),
            Handler(questions.Enter, self._enter),
            Handler(questions.Events, self._events),
            Handler(questions.Down, self._take_down),
            Handler(questions.Keep, self._keep),
            Handler(questions.Wait, self._wait),
            Handler(questions.Certificate, self._certificate),
        ]

    async def _wait(self, _: questions.Wait) -> None:
        await self._ready.wait()

    async def _status(self, _: questions.Status) -> LabStatus:
        return lab_status(
            self._order,
            is_up=self._ready.is_set(),
            hosts=self._hosts,
            claims=self._claims,
            parts=self._parts,
            shared=self._shared,
            services=[
                *(one.status() for one in self._services()),
                of_factory(self._factory),
                self._zygote.status(),
            ],
        )

    async def _seen(self, question: questions.Seen) -> list[MachineSeen]:
        if not question.here:
            others = self._others()
            asked = dict.fromkeys(others.there(), questions.Seen(here=True))
            return [one for some in await others.ask_soon(asked, SEEN_WITHIN) for one in some]
        machine = self._order.store.machine if self._order.store is not None else ""
        return [machine_seen(machine, self._hosts, self._claims, self._parts)]

    async def _enter(self, question: questions.Enter) -> Beside[list[str]]:
        """Descriptors of the namespaces of a guest, a node, or (None) the sandbox."""
        user, mnt, pid, net = (self._sandbox[kind] for kind in ("user", "mnt", "pid", "net"))
        sandbox = {"user": user, "mnt": mnt, "pid": pid, "net": net}
        target = question.target
        if target is None:
            found = sandbox
        elif self._parts is not None and target in self._parts.hardware:
            if not self._parts.hardware.can(target, Capability.ENTER):
                return Beside([], [])
            inner = await self._parts.hardware.enter(target)
            # The sandbox's user namespace first: from there the guest's others can be entered.
            found = {"sandbox": user, **inner}
        else:
            for node in self._nodes:
                if node.node.name == target:
                    found = {**sandbox, "net": node.net}
                    break
            else:
                self._require_here(target)
                raise BadInput(f"{target}: lab {self._lab.name} has no such guest or node")
        return Beside(list(found), list(found.values()))

    def _require_here(self, *names: str) -> None:
        """Raise NotSo, with where it is, if a guest or node is on another machine."""
        if self._shared is not None and self._parts is not None:
            self._shared.require_here(names, self._is_here, self._parts.maintenance.guests_on)

    def _shares(self, names: Sequence[str]) -> Mapping[str | None, list[str]]:
        """The guests and nodes of each machine; None is this one."""
        if self._shared is None or self._parts is None:
            return {None: list(names)}
        return self._shared.shares(names, self._is_here, self._parts.maintenance.guests_on)

    def _is_here(self, name: str) -> bool:
        """Whether a guest or node is here. Raises NotSo if it is on its way."""
        assert self._parts is not None
        hardware = self._parts.hardware
        if name in hardware and hardware.is_coming(name):
            raise NotSo(f"{name}: is being brought to this machine")
        return name in hardware or any(node.node.name == name for node in self._nodes)

    def _others(self) -> Others:
        return NoOthers() if self._shared is None else self._shared.others

    async def _whole(self) -> Parts:
        await self._ready.wait()
        assert self._parts is not None
        return self._parts

    async def _events(self, _: questions.Events) -> list[questions.Happening]:
        """What has happened, as far as it is kept."""
        return self._event_log.entries()

    async def _certificate(self, _: questions.Certificate) -> str:
        """The certificate that verifies the documents which the lab signs."""
        return Signer(self._order.signing_key.encode()).certificate.decode()

    async def _keep(self, _: questions.Keep) -> None:
        """Stay up when the owner ends."""
        await self._whole()
        self._let_go()

    async def _take_down(self, _: questions.Down) -> None:
        self._down.set()
