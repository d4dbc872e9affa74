"""The emulated hardware: each guest's power, its node, and its machine. Runs in the supervisor.

It carries out what others decide, one action after another, in the same way for every kind of
machine.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Final

from netemu.errors import MachineCannot, NetemuError, NotSo
from netemu.kernel.factory_client import Program
from netemu.supervisor.guests import etc_hosts
from netemu.supervisor.guests.endings import Ending
from netemu.supervisor.guests.logs import Logs
from netemu.supervisor.guests.machine import Capability, MachineWithConsole
from netemu.supervisor.guests.power import Action, Power
from netemu.supervisor.nodes.claims import Claims
from netemu.supervisor.nodes.ports import Ports
from netemu.supervisor.nodes.splice import Place
from netemu.supervisor.nodes.wires import Key, Wire, Wires
from netemu.supervisor.nodes.wiring import METADATA, WiredGuest, WiredNode
from netemu.topology import Lab

log = logging.getLogger(__name__)

_RUNNING: Final = (Power.RUNNING, Power.FROZEN)


class Hardware:
    """The guests of a lab that is wired, each of them running."""

    def __init__(
        self,
        lab: Lab,
        nodes: Iterable[WiredNode],
        claims: Claims,
        ports: Ports,
        logs: Logs,
        properties: Callable[[str], Mapping[str, str]] = lambda _: {},
        relay_ended: Callable[[str], None] = lambda _: None,
        machine_told: Callable[[str, str, str], None] = lambda _guest, _node, _words: None,
    ) -> None:
        """`properties` returns what a guest that boots is told of itself, by default nothing.

        `machine_told` is called with a guest, its node, and what its machine has done by itself.
        """
        self._properties = properties
        self._lab = lab
        self._tenant_names = etc_hosts.tenants(lab.guests)
        self._claims = claims
        self._ports = ports
        self._logs = logs
        self._wired = {one.guest.name: one for node in nodes for one in node.guests}
        self._node_of = {one.guest.name: node for node in nodes for one in node.guests}
        self._power = dict.fromkeys(self._wired, Power.RUNNING)
        self._turns = {name: asyncio.Lock() for name in self._wired}
        self._ending: set[str] = set()  # asked to shut down, and not off yet
        self._dark: set[str] = set()  # nodes whose ports are all down
        self._coming: set[str] = set()  # guests from elsewhere that are on no node yet
        self.wires = Wires(self._place, self._set_carrier, relay_ended)
        self._machine_told = machine_told
        for name, one in self._wired.items():
            if isinstance(one.machine, MachineWithConsole):
                one.machine.listen(partial(self._told, name))

    def admit(self, wired: WiredGuest, node: WiredNode) -> None:
        """Take in a guest from elsewhere. It is off, and on no node here until `replace`."""
        name = wired.guest.name
        self._wired[name], self._node_of[name] = wired, node
        self._power[name] = Power.OFF
        self._turns[name] = asyncio.Lock()
        self._coming.add(name)

    async def release(self, guest: str) -> None:
        """End a guest here that is elsewhere now, and forget it."""
        async with self._turns[guest]:
            wired, node = self._wired[guest], self._node_of[guest]
            if guest in self._coming:
                wired.machine.remove()
            elif self._power[guest] is not Power.GONE:
                await self._shut_down(guest)
                await self._remove(guest)
            self._claims.forget(wired.guest)
            self._coming.discard(guest)
            node.guests.remove(wired)
            for known in (self._wired, self._node_of, self._power, self._turns):
                del known[guest]

    async def start_programs(self) -> None:
        """Start what the guests run at boot."""
        for name in self._wired:
            async with self._turns[name]:
                await self._start(name)

    def __contains__(self, guest: str) -> bool:
        return guest in self._wired

    def __iter__(self) -> Iterator[str]:
        return iter(self._wired)

    def power(self, guest: str) -> Power:
        """Whether the guest runs."""
        return self._power[guest]

    def told_power(self, guest: str) -> str:
        """Its power in words. What runs in a guest that shuts down ends before its power does."""
        return "shutting down" if guest in self._ending else str(self._power[guest])

    def is_coming(self, guest: str) -> bool:
        """Whether the guest came from elsewhere and is on no node yet."""
        return guest in self._coming

    def node_of(self, guest: str) -> WiredNode:
        """The node that the guest is on, or was on when it went."""
        return self._node_of[guest]

    def wired(self, guest: str) -> WiredGuest:
        """The guest with its namespace."""
        return self._wired[guest]

    def bound(self, guest: str) -> bool:
        """Whether the guest runs and has an address."""
        running = self._power.get(guest) is Power.RUNNING  # or it is elsewhere by now
        return running and self._claims.bound(self._wired[guest].guest)

    async def enter(self, guest: str) -> Mapping[str, int]:
        """Descriptors of a running guest's namespaces by kind. Raises NotSo if it has none."""
        machine = self._wired[guest].machine
        async with self._turns[guest]:
            if self._power[guest] is not Power.RUNNING:
                raise NotSo(f"{guest} is {self._power[guest]}: nothing can be run in it")
            if guest in self._ending:
                raise NotSo(f"{guest} is shutting down: nothing can be run in it")
            return await machine.enter()

    def can(self, guest: str, capability: Capability) -> bool:
        """Whether a guest's machine is capable of this."""
        return capability in self._wired[guest].machine.capabilities

    def with_console(self, guest: str) -> MachineWithConsole:
        """The running machine of a guest that has a kernel of its own. Raises NotSo."""
        machine = self._wired[guest].machine
        if not isinstance(machine, MachineWithConsole):
            raise NotSo(f"{guest} has no kernel of its own, and no console")
        if self._power[guest] is not Power.RUNNING:
            raise NotSo(f"{guest} is {self._power[guest]}: nothing can be run in it")
        return machine

    def _told(self, guest: str, words: str, off: bool) -> None:
        """Note what a machine has done by itself. The lab does not boot one that is off."""
        if off:
            wired = self._wired[guest]
            self._claims.unplug(wired.guest)
            self._ports.go_dark(self._node_of[guest], wired)
            self.wires.flush(guest)
        self._machine_told(guest, self._node_of[guest].node.name, words)

    async def do(self, guest: str, action: Action) -> None:
        """Carry out an action. A move needs an agent's answer: see `replace`."""
        async with self._turns[guest]:
            await _DO[action](self, guest)
            if action in _LEADS_TO:
                self._power[guest] = _LEADS_TO[action]

    async def ask_to_end(self, guest: str, grace: float) -> Ending | None:
        """Give a guest's programs so many seconds to end by themselves. SHUT_DOWN has to follow.

        What they did, if it is known; `cut` ends it at once. Nothing waits for it but its caller.
        """
        if self._power[guest] is not Power.RUNNING:
            return None
        self._ending.add(guest)
        try:
            return await self._wired[guest].machine.shut_down(grace)
        except (MachineCannot, OSError) as error:
            log.error("%s: its programs are not asked to end: %s", guest, error)
            return None

    def cut(self, guest: str) -> None:
        """End the grace period of a guest that shuts down."""
        if guest in self._ending:
            self._wired[guest].machine.cut()

    def busy(self, guest: str) -> bool:
        """Whether an action on the guest is under way: its power is about to change."""
        return self._turns[guest].locked()

    @asynccontextmanager
    async def hold(self, guests: Iterable[str]) -> AsyncIterator[None]:
        """Keep other actions from these guests meanwhile."""
        async with AsyncExitStack() as held:
            for name in sorted(set(guests)):
                await held.enter_async_context(self._turns[name])
            yield

    def has(self, guest: str, wire: Wire) -> bool:
        """Whether a guest has such a wire, plugged in or not."""
        return wire is not Wire.TENANT or bool(self._wired[guest].guest.tenant)

    def _place(self, key: Key) -> Place | None:
        guest, wire = key
        if self._power[guest] is Power.GONE:
            return None
        return self._ports.place(self._node_of[guest], self._wired[guest], wire)

    def _set_carrier(self, key: Key, up: bool) -> None:
        guest, wire = key
        node = self._node_of[guest]
        if up and (self._power[guest] not in _RUNNING or node.node.name in self._dark):
            return  # it comes up with the guest
        self._ports.set_one(node, self._wired[guest], wire, up=up)

    async def rewire(self, guests: Iterable[str], node: WiredNode) -> None:
        """Remove the wires of guests, and have `node`, to which they move, guard their ports."""
        moved = [self._wired[name] for name in guests]
        await self.wires.detach(one.guest.name for one in moved)
        plugged: dict[str, list[WiredGuest]] = {}
        for one in moved:
            if one.plugged:
                plugged.setdefault(self._node_of[one.guest.name].node.name, []).append(one)
        for some in plugged.values():
            await self._ports.withdraw(self._node_of[some[0].guest.name], some)
        await self._ports.expect(node, moved)

    def replace(self, wired: WiredGuest, node: WiredNode) -> None:
        """Put a guest that is off, and was rewired, on another node, where it will boot."""
        name = wired.guest.name
        before = self._node_of[name]
        self._claims.unplug(wired.guest)
        before.guests.remove(self._wired[name])
        self._coming.discard(name)
        wired.plugged = wired.guarded = self._ports.guarded_ahead
        self._wired[name] = wired
        node.guests.append(wired)
        self._node_of[name] = node

    def set_ports(self, node: WiredNode, *, up: bool) -> None:
        """Set the node's ends of all its guests' wires up or down; of those that are off, down."""
        (self._dark.discard if up else self._dark.add)(node.node.name)
        self._ports.set(node, lambda guest: up and self._may_be_up(guest))
        for one in node.guests:
            if not up:
                self.cut(one.guest.name)
            self.wires.flush(one.guest.name)

    def _may_be_up(self, guest: str) -> bool:
        return self._power[guest] in _RUNNING and not self.wires.is_down((guest, Wire.LINK_LOCAL))

    def _names(self, guest: str) -> etc_hosts.Names:
        wired, node = self._wired[guest], self._node_of[guest]
        properties = self._properties(guest)
        hostname = properties.get("hostname", guest)
        hosts = etc_hosts.hosts(wired.guest, node.node, self._tenant_names, hostname)
        return etc_hosts.Names(hostname, hosts, METADATA if wired.guest.dhcp else "", properties)

    async def _freeze(self, guest: str) -> None:
        wired = self._wired[guest]
        self._ports.silence(self._node_of[guest], wired, silent=True)
        self._claims.pause(wired.guest)
        try:
            await wired.machine.freeze()
        except MachineCannot as error:
            log.error("%s: its wires are silent, but its processes go on: %s", guest, error)

    async def _thaw(self, guest: str) -> None:
        self._wired[guest].machine.thaw()
        self._hear(guest)

    def _hear(self, guest: str) -> None:
        """Let a guest that was frozen claim and speak again."""
        wired = self._wired[guest]
        self._claims.resume(wired.guest)
        self._ports.silence(self._node_of[guest], wired, silent=False)

    async def _shut_down(self, guest: str) -> None:
        if self._power[guest] is Power.FROZEN:
            self._hear(guest)
        self._end(guest)

    def _end(self, guest: str) -> None:
        """End all processes of a guest, and set its wires down."""
        wired = self._wired[guest]
        wired.machine.cut()
        self._ending.discard(guest)
        self._claims.unplug(wired.guest)
        self._ports.go_dark(self._node_of[guest], wired)
        self.wires.flush(guest)

    async def _boot(self, guest: str) -> None:
        """Boot a guest that is off. If that fails it stays off, and the next boot makes everything
        again.
        """
        wired, node = self._wired[guest], self._node_of[guest]
        try:
            await self.wires.detach([guest])
            await wired.machine.renew()
            await self._ports.renew(node, wired)
            await self.wires.attach(guest)
            self._claims.boot(wired, node)
            await self._start(guest)
        except BaseException:
            with suppress(NetemuError, OSError):
                self._end(guest)
            raise

    async def _remove(self, guest: str) -> None:
        wired = self._wired[guest]
        await self.wires.detach([guest])
        self.wires.forget(guest)
        await self._ports.remove(self._node_of[guest], wired)
        wired.machine.remove()

    async def _start(self, name: str) -> None:
        """Boot the machine, with the program that the guest runs at boot."""
        guest, machine = self._wired[name].guest, self._wired[name].machine
        names = partial(self._names, name)
        if not guest.run and Capability.CONSOLE not in machine.capabilities:
            await machine.boot(None, names)
            return
        output = self._logs.open(name)
        environment = {"NETEMU_LAB": self._lab.name, "NETEMU_GUEST": name}
        try:
            await machine.boot(Program(guest.run, self._lab.directory, environment, output), names)
        finally:
            os.close(output)


_DO: Final[Mapping[Action, Callable[[Hardware, str], Awaitable[None]]]] = {
    Action.FREEZE: Hardware._freeze,
    Action.THAW: Hardware._thaw,
    Action.SHUT_DOWN: Hardware._shut_down,
    Action.BOOT: Hardware._boot,
    Action.REMOVE: Hardware._remove,
}
_LEADS_TO: Final = {
    Action.FREEZE: Power.FROZEN,
    Action.THAW: Power.RUNNING,
    Action.SHUT_DOWN: Power.OFF,
    Action.BOOT: Power.RUNNING,
    Action.REMOVE: Power.GONE,
}
