"""The nodes' ports once a lab is up: made again at boots, silenced, set down, and moved. Runs in
the supervisor.

What may wait for the kernel's locks, which guests can hold, or for nft, runs outside the loop.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from netemu.errors import NetemuError
from netemu.kernel import guard, links, netlink, nft
from netemu.kernel.namespaces import inside
from netemu.kernel.silence import silence
from netemu.supervisor.nodes.splice import Place
from netemu.supervisor.nodes.tenant import TenantNetwork
from netemu.supervisor.nodes.wires import Wire
from netemu.supervisor.nodes.wiring import (
    BRIDGE_INDEX,
    Manner,
    WiredGuest,
    WiredNode,
    guarded,
    left,
    settled,
)

log = logging.getLogger(__name__)


class Ports:
    """The ports of a lab, and those on its tenant network where guests have one."""

    def __init__(self, manner: Manner, tenants: TenantNetwork | None) -> None:
        self._manner = manner
        self._tenants = tenants

    async def renew(self, node: WiredNode, wired: WiredGuest) -> None:
        """Wire a machine that boots, by a new wire: nothing that its guest did to the old one is
        left.

        If it fails, the guest has no wire; or what is left of one is removed the next time.
        """
        await asyncio.to_thread(self._renew, node, wired)
        if (tenants := self._tenants_of(wired)) is not None:
            tenants.renew(wired)

    def _renew(self, node: WiredNode, wired: WiredGuest) -> None:
        guarded = wired.guarded and self.guarded_ahead
        if wired.plugged and not guarded:
            self._unplug(node, wired)
        guest = wired.guest
        try:
            netlink.run_in(node.net, *links.retire(guest.port, wired.port_index))
            wired.renumber()
            wired.machine.attach(node.net, wired.port(self._manner))
            netlink.run_in(node.net, *settled(wired, self._manner))
            if not guarded:
                self._guard(node, [wired])
            netlink.run_in(node.net, links.up(guest.port, wired.port_index))
        except BaseException:
            if not guarded:
                self._unplug(node, wired)
            raise
        wired.plugged = wired.guarded = True

    async def remove(self, node: WiredNode, wired: WiredGuest) -> None:
        """Remove a guest's wires for good."""
        await asyncio.to_thread(self._unplug, node, wired)
        if (tenants := self._tenants_of(wired)) is not None:
            tenants.remove(wired)

    def _unplug(self, node: WiredNode, wired: WiredGuest) -> None:
        """Remove a guest's wire, and all that the node knows of its port."""
        guest, index = wired.guest, wired.port_index
        wired.guarded = False
        with suppress(NetemuError):  # the guest may have destroyed it
            netlink.run_in(node.net, links.down(guest.port, index))
        nft.unload(self._less(wired), node.net)
        netlink.run_in(node.net, links.no_link(guest.port, index), *left(wired, self._manner))
        wired.plugged = False

    async def withdraw(self, node: WiredNode, guests: Sequence[WiredGuest]) -> None:
        """Remove the wires of many guests that are off.

        A thousand at once take the kernel as long as a few one after another. If it fails, what is
        left is removed the next time.
        """
        for one in guests:
            one.guarded = False
        await asyncio.to_thread(self._withdraw, node, guests)
        for one in guests:
            one.plugged = False

    def _withdraw(self, node: WiredNode, guests: Sequence[WiredGuest]) -> None:
        gone: list[netlink.Message] = []
        for one in guests:
            gone += (*links.retire(one.guest.port, one.port_index), *left(one, self._manner))
        netlink.run_in(node.net, *gone)
        nft.unload_all([self._less(one) for one in guests], node.net)

    @property
    def guarded_ahead(self) -> bool:
        """Whether a node can guard ports that are not there yet: the guard follows names."""
        return nft.follows_names()

    async def expect(self, node: WiredNode, guests: Sequence[WiredGuest]) -> None:
        """Load the guard of ports that guests will get, if the node can: `renew` makes them."""
        if self.guarded_ahead:
            await asyncio.to_thread(self._guard, node, guests)

    def _guard(self, node: WiredNode, guests: Sequence[WiredGuest]) -> None:
        ports = [guarded(one.guest) for one in guests]
        for start in range(0, len(ports), guard.PORTS_AT_ONCE):
            some = ports[start : start + guard.PORTS_AT_ONCE]
            nft.load(self._manner.rules.more(some), node.net)

    def _less(self, wired: WiredGuest) -> str:
        return self._manner.rules.one_less(guarded(wired.guest))

    def go_dark(self, node: WiredNode, wired: WiredGuest) -> None:
        """Set a guest's wires down from the node's side, whatever its own ends are like."""
        if wired.plugged:
            netlink.run_in(node.net, links.no_carrier(wired.guest.port, wired.port_index))
        if (tenants := self._tenants_of(wired)) is not None:
            tenants.go_dark(wired)

    def place(self, node: WiredNode, wired: WiredGuest, wire: Wire) -> Place | None:
        """The node's end of a guest's wire; None if the guest has no such wire now."""
        if not wired.guarded:
            return None
        if wire is Wire.TENANT:
            tenants = self._tenants_of(wired)
            return None if tenants is None else tenants.place(wired)
        chains = [one for one in self._less(wired).splitlines() if one.startswith("delete chain")]
        return Place(
            node.net,
            wired.guest.port,
            wired.port_index,
            BRIDGE_INDEX,
            partial(settled, wired, self._manner),
            self._manner.rules.more([guarded(wired.guest)]),
            "\n".join(chains),
        )

    def set_one(self, node: WiredNode, wired: WiredGuest, wire: Wire, *, up: bool) -> None:
        """Set one of a guest's wires up or down, from the node's side."""
        place = self.place(node, wired, wire)
        if place is not None:
            change = links.up if up else links.no_carrier
            with suppress(NetemuError):
                netlink.run_in(place.net, change(place.port, place.link))

    def silence(self, node: WiredNode, wired: WiredGuest, *, silent: bool) -> None:
        """Silence a guest's port: nothing comes from it or reaches it. The carriers stay."""
        try:
            silence(node.net, "guard", wired.guest.port, silent=silent)
            if (tenants := self._tenants_of(wired)) is not None:
                tenants.silence(wired, silent=silent)
        except NetemuError as error:  # another guard has been loaded by hand
            log.warning("%s: %s", wired.guest.name, error)

    def set(self, node: WiredNode, up: Callable[[str], bool]) -> None:
        """Set the ports of all guests of a node up or down, by their names."""
        with inside(node.net), netlink.Netlink.open() as kernel:
            for one in node.guests:
                if one.plugged:
                    change = links.up if up(one.guest.name) else links.no_carrier
                    with suppress(NetemuError):  # its guest has destroyed it
                        kernel.run((change(one.guest.port, one.port_index),))

    def _tenants_of(self, wired: WiredGuest) -> TenantNetwork | None:
        return self._tenants if wired.guest.tenant else None
