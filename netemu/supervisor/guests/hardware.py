"""The emulated hardware behind each guest: its power, its wires, its place, its program.

What is to happen to a guest, and when, others decide; here it is done, one action after another.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final

from netemu.errors import MachineCannot, NetemuError, NotSo
from netemu.kernel import guard, links, netlink
from netemu.kernel.factory_client import Factory, Program
from netemu.kernel.namespaces import inside
from netemu.kernel.silence import silence
from netemu.supervisor.guests import etc_hosts
from netemu.supervisor.guests.guest_init import GuestInits
from netemu.supervisor.guests.logs import Logs
from netemu.supervisor.guests.power import Action, Power
from netemu.supervisor.guests.tenant import TenantNetwork
from netemu.supervisor.nodes.claims import Claims
from netemu.supervisor.nodes.wiring import (
    Manner,
    WiredGuest,
    WiredNode,
    call,
    forget_name,
    go_dark,
    guard_ports,
    renew,
    unplug,
    unplug_all,
)
from netemu.topology import Lab

log = logging.getLogger(__name__)


class Hardware:
    """The guests of a lab that is wired, each of them running."""

    def __init__(
        self,
        lab: Lab,
        nodes: Iterable[WiredNode],
        factory: Factory,
        claims: Claims,
        manner: Manner,
        tenants: TenantNetwork | None,
        logs: Logs,
    ) -> None:
        self._lab = lab
        self._factory = factory
        self._inits = GuestInits(factory, self._hosts)
        self._tenant_names = etc_hosts.tenants(lab.guests)
        self._claims = claims
        self._manner = manner
        self._tenants = tenants
        self._logs = logs
        self._wired = {one.guest.name: one for node in nodes for one in node.guests}
        self._node_of = {one.guest.name: node for node in nodes for one in node.guests}
        self._power = dict.fromkeys(self._wired, Power.RUNNING)
        self._turns = {name: asyncio.Lock() for name in self._wired}

    async def start_programs(self) -> None:
        """Start what the guests run at boot."""
        for name in self._wired:
            async with self._turns[name]:
                await self._start_program(name)

    def __contains__(self, guest: str) -> bool:
        return guest in self._wired

    def __iter__(self) -> Iterator[str]:
        return iter(self._wired)

    def power(self, guest: str) -> Power:
        """Whether the guest runs."""
        return self._power[guest]

    def node_of(self, guest: str) -> WiredNode:
        """Give the node that the guest is on, or was on when it went."""
        return self._node_of[guest]

    def wired(self, guest: str) -> WiredGuest:
        """Give the guest with its namespace."""
        return self._wired[guest]

    def bound(self, guest: str) -> bool:
        """Whether the guest runs and has an address."""
        running = self._power[guest] is Power.RUNNING
        return running and self._claims.bound(self._wired[guest].guest)

    async def namespaces(self, guest: str) -> dict[str, int]:
        """Descriptors of a running guest's namespaces by kind. Raises NotSo if it does not run."""
        async with self._turns[guest]:
            if self._power[guest] is not Power.RUNNING:
                raise NotSo(f"{guest} is {self._power[guest]}: nothing can be run in it")
            return await self._inits.namespaces(guest, self._wired[guest].net)

    async def do(self, guest: str, action: Action) -> None:
        """Carry out an action, but for a move, which takes an agent's word: see `replace`."""
        async with self._turns[guest]:
            await _DO[action](self, guest)
            if action in _LEADS_TO:
                self._power[guest] = _LEADS_TO[action]

    def busy(self, guest: str) -> bool:
        """Whether something is being done to the guest: its power is about to change."""
        return self._turns[guest].locked()

    async def rewire(self, guests: Iterable[str], node: WiredNode) -> None:
        """Take the wires of guests away, and have `node`, to which they go, guard their ports."""
        moved = [self._wired[name] for name in guests]
        plugged: dict[str, list[WiredGuest]] = {}
        for one in moved:
            if one.plugged:
                plugged.setdefault(self._node_of[one.guest.name].node.name, []).append(one)
        for some in plugged.values():
            before = self._node_of[some[0].guest.name]
            await asyncio.to_thread(unplug_all, before, some, self._manner)
        if guard.follows_names():
            await asyncio.to_thread(guard_ports, node, moved, self._manner)

    def replace(self, wired: WiredGuest, node: WiredNode) -> None:
        """Put a guest that is off, and was rewired, on another node, where it will boot."""
        name = wired.guest.name
        before = self._node_of[name]
        self._claims.unplug(wired.guest)
        before.guests.remove(self._wired[name])
        wired.plugged = guard.follows_names()
        self._wired[name] = wired
        node.guests.append(wired)
        self._node_of[name] = node

    def set_ports(self, node: WiredNode, *, up: bool) -> None:
        """Set the node's ends of all its guests' wires up or down; of those that are off, down."""
        with inside(node.net), netlink.Netlink() as kernel:
            for one in node.guests:
                if one.plugged:
                    runs = self._power[one.guest.name] in (Power.RUNNING, Power.FROZEN)
                    change = links.up if up and runs else links.no_carrier
                    try:
                        kernel.run((change(one.guest.port, one.port_index),))
                    except NetemuError:  # its guest has destroyed it
                        pass

    def _hosts(self, guest: str) -> str:
        wired, node = self._wired[guest], self._node_of[guest]
        return etc_hosts.hosts(wired.guest, node.node, self._tenant_names)

    async def _freeze(self, guest: str) -> None:
        self._silence(guest, silent=True)
        self._claims.pause(self._wired[guest].guest)
        try:
            await self._inits.freeze(guest)
        except MachineCannot as error:
            log.error("%s: its wires are silent, but its processes go on: %s", guest, error)

    async def _thaw(self, guest: str) -> None:
        self._inits.thaw(guest)
        self._claims.resume(self._wired[guest].guest)
        self._silence(guest, silent=False)

    def _silence(self, guest: str, *, silent: bool) -> None:
        wired = self._wired[guest]
        try:
            silence(self._node_of[guest].net, "guard", wired.guest.port, silent=silent)
            if self._tenants is not None and wired.guest.tenant:
                self._tenants.silence(wired, silent=silent)
        except NetemuError as error:  # another guard has been loaded by hand
            log.warning("%s: %s", guest, error)

    async def _shut_down(self, guest: str) -> None:
        if self._power[guest] is Power.FROZEN:
            self._claims.resume(self._wired[guest].guest)
            self._silence(guest, silent=False)
        self._end(guest)

    def _end(self, guest: str) -> None:
        """End all that runs in a guest, and set its wires down."""
        wired = self._wired[guest]
        self._inits.end(guest)
        self._claims.unplug(wired.guest)
        go_dark(self._node_of[guest], wired)
        if self._tenants is not None and wired.guest.tenant:
            self._tenants.go_dark(wired)

    async def _boot(self, guest: str) -> None:
        """Boot a guest that is off, in a new namespace and by new wires. It is off if that fails.

        Nothing of the namespace before is looked at, and nobody waits until it is gone.
        """
        wired, node = self._wired[guest], self._node_of[guest]
        (net,) = await self._factory.guests(1)
        old = wired.net
        try:
            wired.net = net
            # Not in the loop: it waits for locks of the kernel's that guests can hold, and for nft.
            await asyncio.to_thread(renew, node, wired, self._manner)
            if self._tenants is not None and wired.guest.tenant:
                self._tenants.renew(wired)
            self._claims.boot(wired, node)
            call(guest, net)
            await self._start_program(guest)
        except BaseException:
            wired.net = old
            call(guest, old)
            os.close(net)
            with suppress(NetemuError, OSError):  # the next boot makes everything again
                self._end(guest)
            raise
        os.close(old)

    async def _remove(self, guest: str) -> None:
        wired, node = self._wired[guest], self._node_of[guest]
        await asyncio.to_thread(unplug, node, wired, self._manner)
        if self._tenants is not None and wired.guest.tenant:
            self._tenants.remove(wired)
        forget_name(guest)

    async def _start_program(self, name: str) -> None:
        guest = self._wired[name].guest
        if not guest.run:
            return
        output = self._logs.open(name)
        environment = {"NETEMU_LAB": self._lab.name, "NETEMU_GUEST": name}
        try:
            await self._inits.boot(
                name,
                self._wired[name].net,
                Program(guest.run, self._lab.directory, environment, output),
            )
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
