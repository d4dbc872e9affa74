"""Wires a lab: namespaces, bridges, wires, guards and listeners, until all ports are up. Runs in
the supervisor.

The order keeps a port from ever being open: wires are made with their port down, then the guard of
the whole node is loaded, and only then do the ports come up.
"""

import asyncio
import os
import socket
from collections.abc import Sequence
from functools import cached_property
from itertools import count

from msgspec import Struct, field
from msgspec.structs import replace

from netemu.errors import MachineCannot
from netemu.interfaces import BRIDGE, GUEST_WIRE, Mark
from netemu.kernel import addressing, guard, links, namespaces, netlink, nft, sockets, sysctl
from netemu.kernel.factory_client import Factory
from netemu.kernel.namespaces import inside
from netemu.linklocal import addresses, ipv6
from netemu.linklocal.addresses import BROADCAST_TEXT
from netemu.supervisor.guests.kinds import leave_to_others, made_ahead
from netemu.supervisor.guests.machine import Machine, Port
from netemu.topology import Guest, Lab, Node, Policy
from netemu.wire.profile import Profile
from netemu.wire.progress import Progress

BRIDGE_INDEX = 2
# Ports' links are numbered by their marks, from here on: nothing has to be looked up. A guest's
# later ports get later numbers: the link before may still be there, with its dying namespace.
_FIRST_PORT_INDEX = 100
_later_port_indices = count(1 << 24)
METADATA = addresses.METADATA_TEXT


class WiredGuest:
    """A guest on a node: its machine, and the port that the machine hangs on.

    `plugged` is whether there is a wire, or what a failure has left of one; `guarded` is whether
    the node guards it. `port_index` is the index of the link that is the port.
    """

    def __init__(self, guest: Guest, machine: Machine, plugged: bool = True) -> None:
        self.guest = guest
        self.machine = machine
        self.plugged = self.guarded = plugged
        self.port_index = _FIRST_PORT_INDEX + guest.mark

    def port(self, manner: "Manner") -> Port:
        """The port, as its machine is to hang on it."""
        guest = self.guest
        return Port(
            guest.port, self.port_index, BRIDGE_INDEX, guest.mac, GUEST_WIRE, ipv6=manner.ipv6
        )

    def renumber(self) -> None:
        """Let the port be another link: the one before may still be there, dying."""
        self.port_index = next(_later_port_indices)

    def taken_over(self, guest: Guest) -> "WiredGuest":
        """The same machine for what the guest is now; this object is of no more use."""
        made = WiredGuest(guest, self.machine)
        made.port_index = self.port_index
        return made


class WiredNode(Struct):
    """A node: its namespace, its guests', and the sockets on which its responder will listen."""

    node: Node
    net: int
    guests: list[WiredGuest] = field(default_factory=list)
    listeners: list[socket.socket] = field(default_factory=list)

    @property
    def links(self) -> dict[int, Mark]:
        """The mark of each port by the index of its link."""
        return {wired.port_index: wired.guest.mark for wired in self.guests}


class Manner(Struct, frozen=True, dict=True):
    """How a lab is wired: its policy, its pace, and how its guests are kept apart.

    `leasing` are the ports whose guests may be leased an address.
    Where it is `leased`, guests are silent unless the lease of their node's guard is renewed.
    """

    policy: Policy
    time_scale: float = 1.0
    profile: Profile = field(default_factory=Profile)
    leased: bool = False
    ipv6: bool = False
    leasing: frozenset[str] = frozenset()

    @cached_property
    def rules(self) -> guard.Rules:
        """The guard of a node."""
        rules = self.profile.rules.with_ipv6() if self.ipv6 else self.profile.rules
        return rules.with_dhcp(self.leasing) if self.leasing else rules

    def has_wire_server(self, node: Node) -> bool:
        """Whether a node has Azure's wire server: its route is told with a lease."""
        return bool(self.leasing) and node.dialects.azure

    def listeners(self, node: Node) -> Sequence[sockets.Listener]:
        """Where a node's responder listens."""
        found = [self.profile.listener]
        if self.has_wire_server(node) and found[0].address == METADATA:
            found.append(replace(found[0], address=addresses.WIRE_SERVER_TEXT))
        return (*found, *self.profile.ipv6_listeners) if self.ipv6 else found

    @property
    def same_node(self) -> bool:
        """Whether guests of a node may reach each other."""
        return self.policy is Policy.SAME_NODE


async def wire(
    lab: Lab, factory: Factory, manner: Manner, *, progress: Progress
) -> list[WiredNode]:
    """Build the whole lab. Every port is up and guarded when this returns; nobody has spoken."""
    if manner.ipv6 and not links.has_ipv6():
        raise MachineCannot("this kernel has no IPv6, which the lab file asks for: 'ipv6: true'")
    total = len(lab.guests)
    made: list[Machine] = []
    namespaces.NAMES.mkdir(exist_ok=True)
    wired = []
    nets = [net for _ in lab.nodes for net in await factory.nodes(1)]
    machines = made_ahead(factory, lab.guests)
    for node, net in zip(lab.nodes, nets, strict=True):
        mine = [await anext(machines) for _ in node.guests]
        made += mine
        guests = [WiredGuest(*one) for one in zip(node.guests, mine, strict=True)]
        one = WiredNode(node, net, guests)
        _wire(one, manner)
        wired.append(one)
        progress.step("wiring guests", len(made), total)
        await asyncio.sleep(0)  # so that status questions are answered meanwhile
    await leave_to_others(factory, made)
    return wired


def _wire(wired: WiredNode, manner: Manner) -> None:
    node, net, profile = wired.node, wired.net, manner.profile
    namespaces.call(node.name, f"/proc/{os.getpid()}/fd/{net}")
    with inside(net), netlink.Netlink.open() as kernel:
        sysctl.write(profile.sysctls)
        sysctl.write(sysctl.NODE_BRIDGE, optional=True)
        if manner.ipv6:
            sysctl.write(profile.ipv6_sysctls)
        kernel.run(_bridge(node))
        if manner.has_wire_server(node):
            kernel.run((_wire_server(),))
        if manner.ipv6:
            sysctl.write(sysctl.speaking_ipv6(BRIDGE))
            kernel.run(_ipv6_of_bridge())
        wired.listeners = [
            sockets.listen(at, shared=node.processes > 1)
            for _ in range(node.processes)
            for at in manner.listeners(node)
        ]
    for one in wired.guests:
        one.machine.attach(net, one.port(manner))
    netlink.run_in(net, *(told for one in wired.guests for told in settled(one, manner)))
    for rules in manner.rules.pieces(
        [guarded(guest) for guest in node.guests],
        bridge_mac=node.mac,
        same_node=manner.same_node,
        time_scale=manner.time_scale,
        leased=manner.leased,
    ):
        nft.load(rules, net)
    netlink.run_in(net, *(links.up(one.guest.port, one.port_index) for one in wired.guests))


def _bridge(node: Node) -> list[netlink.Message]:
    return [
        links.up("lo", 1),
        links.bridge(BRIDGE, BRIDGE_INDEX, node.mac),
        links.up(BRIDGE, BRIDGE_INDEX),
        addressing.address(BRIDGE_INDEX, METADATA, addresses.PREFIX_LENGTH, BROADCAST_TEXT),
    ]


def _wire_server() -> netlink.Message:
    text = addresses.WIRE_SERVER_TEXT
    return addressing.address(BRIDGE_INDEX, text, 32, text)


def _ipv6_of_bridge() -> list[netlink.Message]:
    return [
        links.no_ipv6_of_its_own(BRIDGE, BRIDGE_INDEX),
        addressing.ipv6_address(BRIDGE_INDEX, ipv6.LINK_LOCAL, ipv6.PREFIX_LENGTH),
        addressing.ipv6_address(BRIDGE_INDEX, ipv6.UNIQUE_LOCAL, 128),
    ]


def settled(
    wired: WiredGuest, manner: Manner, link: int | None = None
) -> Sequence[netlink.Message]:
    """How a port that a machine hangs on is to behave on the bridge, before it comes up.

    `link` is the index of its link, if that is not the guest's own.
    """
    guest, index = wired.guest, wired.port_index if link is None else link
    settled = (
        links.port_options(guest.port, index, manner.profile.ports[manner.policy]),
        links.station(guest.port, index, guest.mac),
    )
    if not manner.ipv6:
        return settled
    return (*settled, addressing.neighbour(BRIDGE_INDEX, ipv6.of_mac(guest.mac), guest.mac))


def left(wired: WiredGuest, manner: Manner) -> Sequence[netlink.Message]:
    """What a node forgets about a guest that leaves it, besides its port."""
    if not manner.ipv6:
        return ()
    return (addressing.no_neighbour(BRIDGE_INDEX, ipv6.of_mac(wired.guest.mac)),)


def guarded(guest: Guest) -> guard.Port:
    """The guest's port, as the guard knows it."""
    return guest.port, guest.mark, guest.mac
