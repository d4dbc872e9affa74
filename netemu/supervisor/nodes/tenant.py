"""The tenant network: a second interface, eth1, for guests that serve each other. Runs in the
supervisor.

One bridge in a namespace of its own joins guests of all nodes, in 198.18.0.0/15. It has no
connection to the link-local network: its guard passes only packets with a tenant address at both
ends (`netemu/kernel/tenant.nft`).

Each machine of a lab on several has such a bridge. A port of it leads to the others: `tunnel`
carries what goes in there.
"""

import socket
from collections.abc import Sequence
from functools import partial
from itertools import count

from netemu.interfaces import TENANT_WIRE
from netemu.kernel import bridging, links, netlink, nft, packet, sysctl, tenant
from netemu.kernel.namespaces import inside
from netemu.kernel.silence import silence
from netemu.supervisor.guests.machine import Port
from netemu.supervisor.nodes.splice import Place
from netemu.supervisor.nodes.wiring import WiredGuest
from netemu.topology import Guest, Lab, mac_address

_BRIDGE, _BRIDGE_INDEX = "tenant0", 2
_FIRST_PORT_INDEX = 100
_MACHINES_INDEX, _TUNNEL_INDEX = 3, 4
# What the bridge does not know here is on another machine.
_TO_OTHERS = bridging.PortOptions(isolated=False, multicast_flood=True, unicast_flood=True)


class TenantNetwork:
    """The network of a lab. `net` is a descriptor of the namespace that becomes its own."""

    def __init__(self, lab: str, net: int, *, crosses: bool) -> None:
        self.net = net
        self._lab = lab
        self._crosses = crosses
        self._index: dict[str, int] = {}
        self._later = count(1 << 24)

    @classmethod
    def build(
        cls,
        lab: Lab,
        wired: Sequence[WiredGuest],
        net: int,
        elsewhere: Sequence[Guest] | None = None,
    ) -> "TenantNetwork":
        """Build the network, and wire the guests, which are up and have tenant addresses.

        `elsewhere` are those of other machines, if the lab has such. Raises NetemuError.
        """
        self = cls(lab.name, net, crosses=elsewhere is not None)
        self._index = {one.guest.name: _FIRST_PORT_INDEX + one.guest.mark for one in wired}
        mac = mac_address(lab.name, "tenant network")
        with inside(net), netlink.Netlink.open() as kernel:
            sysctl.write(sysctl.NODE)
            sysctl.write(sysctl.NODE_BRIDGE, optional=True)
            kernel.run((links.bridge(_BRIDGE, _BRIDGE_INDEX, mac), links.up(_BRIDGE, 2)))
            if self._crosses:
                kernel.run(
                    (
                        links.pair(tenant.TUNNEL, _TUNNEL_INDEX, tenant.MACHINES, _MACHINES_INDEX),
                        links.place(_MACHINES_INDEX, tenant.MACHINES, _BRIDGE_INDEX),
                        links.port_options(tenant.MACHINES, _MACHINES_INDEX, _TO_OTHERS),
                    )
                )
        options = [message for one in wired for message in self._attach(one)]
        ports = [self._guarded(one.guest) for one in wired]
        others = None if elsewhere is None else list(map(self._guarded, elsewhere))
        for rules in tenant.pieces(ports, others):
            nft.load(rules, net)
        with inside(net), netlink.Netlink.open() as kernel:
            kernel.run(options)
            kernel.run(links.up(_port(one.guest), self._index[one.guest.name]) for one in wired)
            if self._crosses:
                kernel.run(
                    (
                        links.up(tenant.MACHINES, _MACHINES_INDEX),
                        links.up(tenant.TUNNEL, _TUNNEL_INDEX),
                    )
                )
        return self

    def tunnel(self) -> socket.socket:
        """A socket on the carrier's end of the wire to other machines."""
        with inside(self.net):
            return packet.on_wire(tenant.TUNNEL)

    def renew(self, wired: WiredGuest) -> None:
        """Wire the guest's machine, which boots, by a new wire."""
        if wired.guest.name not in self._index:
            self._welcome(wired)
            return
        port, before = _port(wired.guest), self._index[wired.guest.name]
        self._index[wired.guest.name] = index = next(self._later)
        follows = nft.follows_names()
        gone = links.retire(port, before) if follows else (links.no_link(port, before),)
        netlink.run_in(self.net, *gone)
        options = self._attach(wired)
        if not follows:
            nft.unload(tenant.one_less(port), self.net)
            nft.load(tenant.one_more(port), self.net)
        netlink.run_in(self.net, *options, links.up(port, index))

    def _welcome(self, wired: WiredGuest) -> None:
        """Wire the machine of a guest that has come from another machine of the lab."""
        guest = wired.guest
        self._index[guest.name] = index = next(self._later)
        options = self._attach(wired)
        nft.load(tenant.comes(_port(guest), self._mac(guest)), self.net)
        netlink.run_in(self.net, *options, links.up(_port(guest), index))

    def go_dark(self, wired: WiredGuest) -> None:
        """Set the guest's wire down, from this side."""
        if (index := self._index.get(wired.guest.name)) is not None:  # else it has yet to boot here
            netlink.run_in(self.net, links.no_carrier(_port(wired.guest), index))

    def place(self, wired: WiredGuest) -> Place | None:
        """Where the guest's wire ends; None: it has yet to boot here."""
        port = _port(wired.guest)
        if wired.guest.name not in self._index:
            return None
        return Place(
            self.net,
            port,
            self._index[wired.guest.name],
            _BRIDGE_INDEX,
            partial(self._settled, wired.guest),
            tenant.one_more(port),
            tenant.one_less(port),
        )

    def silence(self, wired: WiredGuest, *, silent: bool) -> None:
        """Have nothing come from the guest; its carrier stays."""
        silence(self.net, "tenant", _port(wired.guest), silent=silent)

    def remove(self, wired: WiredGuest) -> None:
        """Take the guest's wire away for good."""
        index = self._index.pop(wired.guest.name, None)
        if index is None:
            return
        port = _port(wired.guest)
        netlink.run_in(self.net, links.no_link(port, index))
        if self._crosses:  # it may come again
            nft.unload(tenant.goes(port, self._mac(wired.guest)), self.net)

    def _attach(self, wired: WiredGuest) -> Sequence[netlink.Message]:
        """Wire the machine. Returns what the port is still to be told before it comes up."""
        guest, name, index = wired.guest, _port(wired.guest), self._index[wired.guest.name]
        mac = self._mac(guest)
        port = Port(name, index, _BRIDGE_INDEX, mac, TENANT_WIRE, guest.tenant)
        wired.machine.attach(self.net, port)
        return self._settled(guest, index)

    def _settled(self, guest: Guest, link: int) -> Sequence[netlink.Message]:
        return (
            links.port_options(_port(guest), link, bridging.TOGETHER),
            links.station(_port(guest), link, self._mac(guest)),
        )

    def _guarded(self, guest: Guest) -> tenant.Port:
        return _port(guest), self._mac(guest), guest.tenant

    def _mac(self, guest: Guest) -> str:
        return mac_address(self._lab, f"{guest.name} tenant")


def _port(guest: Guest) -> str:
    return f"t{guest.mark}"
