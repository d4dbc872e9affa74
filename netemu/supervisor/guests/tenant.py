"""The tenant network: a second interface, eth1, for guests that serve something to each other.

One bridge in a namespace of its own joins guests of all nodes, in 198.18.0.0/15. It is beside the
link-local network and touches it nowhere: what its guard lets pass has a tenant address at both
ends (`netemu/kernel/tenant.nft`).
"""

from collections.abc import Sequence
from itertools import count

from netemu.interfaces import TENANT_WIRE
from netemu.kernel import addressing, bridging, guard, links, netlink, sysctl, tenant
from netemu.kernel.namespaces import inside
from netemu.kernel.silence import silence
from netemu.supervisor.nodes.wiring import WiredGuest
from netemu.topology import Guest, Lab, mac_address

_BRIDGE, _BRIDGE_INDEX = "tenant0", 2
_FIRST_PORT_INDEX = 100
_PREFIX_LENGTH = 15
_BROADCAST = "198.19.255.255"


class TenantNetwork:
    """The network of a lab whose guests `wired` are those with tenant addresses, and up.

    `net` is a descriptor of the namespace that becomes its own.
    """

    def __init__(self, lab: Lab, wired: Sequence[WiredGuest], net: int) -> None:
        self._lab = lab.name
        self._net = net
        self._index = {one.guest.name: _FIRST_PORT_INDEX + one.guest.mark for one in wired}
        self._later = count(1 << 24)
        mac = mac_address(lab.name, "tenant network")
        with inside(self._net), netlink.Netlink() as kernel:
            sysctl.write(sysctl.NODE)
            sysctl.write(sysctl.NODE_BRIDGE, optional=True)
            kernel.run((links.bridge(_BRIDGE, _BRIDGE_INDEX, mac), links.up(_BRIDGE, 2)))
            kernel.run(message for one in wired for message in self._wire(one))
        ports = [(_port(one.guest), self._mac(one.guest), one.guest.tenant) for one in wired]
        for rules in tenant.pieces(ports):
            guard.load(rules, self._net)
        with inside(self._net), netlink.Netlink() as kernel:
            kernel.run(links.up(_port(one.guest), self._index[one.guest.name]) for one in wired)
        for one in wired:
            self._configure(one)

    def renew(self, wired: WiredGuest) -> None:
        """Put an eth1, by a wire that is new as well, into the guest's new namespace."""
        port, before = _port(wired.guest), self._index[wired.guest.name]
        self._index[wired.guest.name] = index = next(self._later)
        follows = guard.follows_names()
        with inside(self._net), netlink.Netlink() as kernel:
            kernel.run(links.retire(port, before) if follows else (links.no_link(port, before),))
            kernel.run(self._wire(wired))
        if not follows:
            guard.unload(tenant.one_less(port), self._net)
            guard.load(tenant.one_more(port), self._net)
        self._configure(wired)
        with inside(self._net), netlink.Netlink() as kernel:
            kernel.run((links.up(port, index),))

    def go_dark(self, wired: WiredGuest) -> None:
        """Set the guest's wire down, from this side."""
        with inside(self._net), netlink.Netlink() as kernel:
            kernel.run((links.no_carrier(_port(wired.guest), self._index[wired.guest.name]),))

    def silence(self, wired: WiredGuest, *, silent: bool) -> None:
        """Have nothing come from the guest; its carrier stays."""
        silence(self._net, "tenant", _port(wired.guest), silent=silent)

    def remove(self, wired: WiredGuest) -> None:
        """Take the guest's wire away for good."""
        with inside(self._net), netlink.Netlink() as kernel:
            kernel.run((links.no_link(_port(wired.guest), self._index[wired.guest.name]),))

    def _wire(self, wired: WiredGuest) -> list[netlink.Message]:
        guest, port, index = wired.guest, _port(wired.guest), self._index[wired.guest.name]
        mac = self._mac(guest)
        peer = (TENANT_WIRE, links.TENANT_INDEX)
        return [
            links.wire(port, index, _BRIDGE_INDEX, wired.net, mac, guest.name, peer),
            links.port_options(port, index, bridging.TOGETHER),
            links.station(port, index, mac),
        ]

    def _configure(self, wired: WiredGuest) -> None:
        with inside(wired.net), netlink.Netlink() as kernel:
            kernel.run(
                (
                    # Each link answers for its own addresses only (the kernel's default is the
                    # host's: RFC 1122 section 3.3.4.2 allows both), so that eth1 never tells of
                    # what eth0 has.
                    links.manners(TENANT_WIRE, links.TENANT_INDEX, arp_ignore=1, arp_announce=2),
                    links.up(TENANT_WIRE, links.TENANT_INDEX),
                )
            )
            kernel.run(
                addressing.address(
                    links.TENANT_INDEX, address, _PREFIX_LENGTH, _BROADCAST, link_scope=False
                )
                for address in wired.guest.tenant
            )

    def _mac(self, guest: Guest) -> str:
        return mac_address(self._lab, f"{guest.name} tenant")


def _port(guest: Guest) -> str:
    return f"t{guest.mark}"
