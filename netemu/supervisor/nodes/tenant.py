"""The tenant network: a second interface, eth1, for guests that serve each other. Runs in the
supervisor.

One bridge in a namespace of its own joins guests of all nodes, in 198.18.0.0/15. It has no
connection to the link-local network: its guard passes only packets with a tenant address at both
ends (`netemu/kernel/tenant.nft`).
"""

from collections.abc import Sequence
from functools import partial
from itertools import count

from netemu.interfaces import TENANT_WIRE
from netemu.kernel import bridging, links, netlink, nft, sysctl, tenant
from netemu.kernel.namespaces import inside
from netemu.kernel.silence import silence
from netemu.supervisor.guests.machine import Port
from netemu.supervisor.nodes.splice import Place
from netemu.supervisor.nodes.wiring import WiredGuest
from netemu.topology import Guest, Lab, mac_address

_BRIDGE, _BRIDGE_INDEX = "tenant0", 2
_FIRST_PORT_INDEX = 100


class TenantNetwork:
    """The network of a lab whose guests `wired` are those with tenant addresses, and up.

    `net` is a descriptor of the namespace that becomes its own.
    """

    def __init__(self, lab: Lab, wired: Sequence[WiredGuest], net: int) -> None:
        self._lab = lab.name
        self._net = net
        self._index = {one.guest.name: _FIRST_PORT_INDEX + one.guest.mark for one in wired}
        self._later = count(1 << 24)

    @classmethod
    def build(cls, lab: Lab, wired: Sequence[WiredGuest], net: int) -> "TenantNetwork":
        """Build the network, and wire the guests. Raises NetemuError."""
        self = cls(lab, wired, net)
        mac = mac_address(lab.name, "tenant network")
        with inside(self._net), netlink.Netlink.open() as kernel:
            sysctl.write(sysctl.NODE)
            sysctl.write(sysctl.NODE_BRIDGE, optional=True)
            kernel.run((links.bridge(_BRIDGE, _BRIDGE_INDEX, mac), links.up(_BRIDGE, 2)))
        options = [message for one in wired for message in self._attach(one)]
        ports = [(_port(one.guest), self._mac(one.guest), one.guest.tenant) for one in wired]
        for rules in tenant.pieces(ports):
            nft.load(rules, self._net)
        with inside(self._net), netlink.Netlink.open() as kernel:
            kernel.run(options)
            kernel.run(links.up(_port(one.guest), self._index[one.guest.name]) for one in wired)
        return self

    def renew(self, wired: WiredGuest) -> None:
        """Wire the guest's machine, which boots, by a new wire."""
        port, before = _port(wired.guest), self._index[wired.guest.name]
        self._index[wired.guest.name] = index = next(self._later)
        follows = nft.follows_names()
        gone = links.retire(port, before) if follows else (links.no_link(port, before),)
        netlink.run_in(self._net, *gone)
        options = self._attach(wired)
        if not follows:
            nft.unload(tenant.one_less(port), self._net)
            nft.load(tenant.one_more(port), self._net)
        netlink.run_in(self._net, *options, links.up(port, index))

    def go_dark(self, wired: WiredGuest) -> None:
        """Set the guest's wire down, from this side."""
        index = self._index[wired.guest.name]
        netlink.run_in(self._net, links.no_carrier(_port(wired.guest), index))

    def place(self, wired: WiredGuest) -> Place:
        """Where the guest's wire ends."""
        port = _port(wired.guest)
        return Place(
            self._net,
            port,
            self._index[wired.guest.name],
            _BRIDGE_INDEX,
            partial(self._settled, wired.guest),
            tenant.one_more(port),
            tenant.one_less(port),
        )

    def silence(self, wired: WiredGuest, *, silent: bool) -> None:
        """Have nothing come from the guest; its carrier stays."""
        silence(self._net, "tenant", _port(wired.guest), silent=silent)

    def remove(self, wired: WiredGuest) -> None:
        """Take the guest's wire away for good."""
        index = self._index[wired.guest.name]
        netlink.run_in(self._net, links.no_link(_port(wired.guest), index))

    def _attach(self, wired: WiredGuest) -> Sequence[netlink.Message]:
        """Wire the machine. Returns what the port is still to be told before it comes up."""
        guest, name, index = wired.guest, _port(wired.guest), self._index[wired.guest.name]
        mac = self._mac(guest)
        port = Port(name, index, _BRIDGE_INDEX, mac, TENANT_WIRE, guest.tenant)
        wired.machine.attach(self._net, port)
        return self._settled(guest, index)

    def _settled(self, guest: Guest, link: int) -> Sequence[netlink.Message]:
        return (
            links.port_options(_port(guest), link, bridging.TOGETHER),
            links.station(_port(guest), link, self._mac(guest)),
        )

    def _mac(self, guest: Guest) -> str:
        return mac_address(self._lab, f"{guest.name} tenant")


def _port(guest: Guest) -> str:
    return f"t{guest.mark}"
