"""Wires a lab: namespaces, bridges, wires, guards and listeners, down to ports that are up.

The order is what keeps a port from ever being open: wires are made with their port down, the
guard of the whole node is loaded, and only then do the ports come up.
"""

import asyncio
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from netemu.kernel import guard, netlink, sockets, sysctl
from netemu.kernel.factory import Factory
from netemu.kernel.namespaces import inside
from netemu.kernel.protections import Protection, Without
from netemu.lab.progress import Progress
from netemu.linklocal import addresses
from netemu.linklocal.shell import BROADCAST
from netemu.topology import Guest, Lab, Node, Policy

BRIDGE = "br0"
BRIDGE_INDEX = 2
# Ports' links are numbered by their marks, from here on: nothing has to be looked up.
_FIRST_PORT_INDEX = 100
METADATA = addresses.to_text(addresses.METADATA)
HTTP = 80
NAMES = Path("/run/netns")
# Guests whose namespaces are made while those before them are wired: some 50 ms of work.
_AHEAD = 50


@dataclass
class WiredGuest:
    """A guest, and a descriptor of its network namespace."""

    guest: Guest
    net: int


@dataclass
class WiredNode:
    """A node: its namespace, its guests', and the socket on which its responder will listen."""

    node: Node
    net: int
    guests: list[WiredGuest] = field(default_factory=list)
    listener: socket.socket | None = None

    @property
    def links(self) -> dict[int, int]:
        """The mark of each port by the index of its link."""
        return {port_index(wired.guest): wired.guest.mark for wired in self.guests}


def port_index(guest: Guest) -> int:
    """The index of the link that is this guest's port."""
    return _FIRST_PORT_INDEX + guest.mark


async def wire(
    lab: Lab, factory: Factory, *, time_scale: float, progress: Progress, without: Without = ()
) -> list[WiredNode]:
    """Build the whole lab. Every port is up and guarded when this returns; nobody has spoken."""
    total = len(lab.guests)
    done = 0
    NAMES.mkdir(exist_ok=True)
    wired = []
    nets = [factory.nodes(1)[0] for _ in lab.nodes]
    guest_nets = _made_ahead(factory, total)
    for node, net in zip(lab.nodes, nets, strict=True):
        one = WiredNode(node, net, [WiredGuest(guest, next(guest_nets)) for guest in node.guests])
        same_node = lab.policy is Policy.SAME_NODE
        _wire(one, same_node=same_node, scale=time_scale, without=without)
        wired.append(one)
        done += len(node.guests)
        progress.step("wiring guests", done, total)
        await asyncio.sleep(0)  # whoever asks for the lab's state gets an answer meanwhile
    return wired


def _made_ahead(factory: Factory, count: int) -> Iterator[int]:
    """Namespaces of guests, made in the factory's process while those before are being wired."""
    while count:
        now = min(count, _AHEAD)
        count -= now
        yield from factory.guests(now, following=min(count, _AHEAD))


def _wire(wired: WiredNode, *, same_node: bool, scale: float, without: Without) -> None:
    node, net = wired.node, wired.net
    _call(node.name, net)
    for one in wired.guests:
        _call(one.guest.name, one.net)
    with inside(net), netlink.Netlink() as kernel:
        sysctl.write(sysctl.NODE_AS_BORN if Protection.SYSCTLS in without else sysctl.NODE)
        sysctl.write(sysctl.NODE_BRIDGE, optional=True)
        kernel.run(_bridge(node))
        if Protection.BRIDGE in without:
            kernel.run(_plain_wire(one) for one in wired.guests)
        else:
            kernel.run(message for one in wired.guests for message in _port(one, not same_node))
        careless = Protection.LISTENER in without
        wired.listener = sockets.listener(METADATA, HTTP, BRIDGE, careless=careless)
    rules = guard.render(
        bridge_mac=node.mac,
        ports=[(guest.port, guest.mark, guest.mac) for guest in node.guests],
        same_node=same_node,
        time_scale=scale,
        without=without,
    )
    guard.load(rules, net)
    for one in wired.guests:
        _guest(one)
    with inside(net), netlink.Netlink() as kernel:
        kernel.run(netlink.up(guest.port, port_index(guest)) for guest in node.guests)


def _bridge(node: Node) -> list[netlink.Message]:
    return [
        netlink.up("lo", 1),
        netlink.bridge(BRIDGE, BRIDGE_INDEX, node.mac),
        netlink.up(BRIDGE, BRIDGE_INDEX),
        netlink.address(BRIDGE_INDEX, METADATA, addresses.PREFIX_LENGTH, BROADCAST),
    ]


def _plain_wire(wired: WiredGuest) -> netlink.Message:
    guest, index = wired.guest, port_index(wired.guest)
    return netlink.wire(guest.port, index, BRIDGE_INDEX, wired.net, guest.mac, guest.name)


def _port(wired: WiredGuest, isolated: bool) -> list[netlink.Message]:
    guest, index = wired.guest, port_index(wired.guest)
    return [
        _plain_wire(wired),
        netlink.port_options(guest.port, index, isolated=isolated),
        netlink.station(guest.port, index, guest.mac),
    ]


def _guest(wired: WiredGuest) -> None:
    with inside(wired.net), netlink.Netlink() as kernel:
        sysctl.write(sysctl.GUEST)
        kernel.run(
            (
                netlink.up("lo", 1),
                netlink.direct_rule("169.254.0.0", addresses.PREFIX_LENGTH),
                # RFC 3927 section 2.5: the state machine answers ARP, by broadcast; the kernel
                # would by unicast. Its own requests go out by broadcast, too.
                netlink.silent_arp("eth0", netlink.GUEST_INDEX),
                netlink.broadcast_arp("eth0", netlink.GUEST_INDEX),
                netlink.up("eth0", netlink.GUEST_INDEX),
            )
        )


def _call(name: str, net: int) -> None:
    """Let `ip netns` in the bottle find a namespace by its name, at no mount's cost."""
    (NAMES / name).symlink_to(f"/proc/{os.getpid()}/fd/{net}")
