"""Wires a lab: namespaces, bridges, wires, guards and listeners, down to ports that are up.

The order is what keeps a port from ever being open: wires are made with their port down, the
guard of the whole node is loaded, and only then do the ports come up.
"""

import asyncio
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import ClassVar

from netemu.errors import NetemuError
from netemu.interfaces import BRIDGE, GUEST_WIRE, Mark
from netemu.kernel import addressing, guard, links, netlink, sockets, sysctl
from netemu.kernel.factory import BATCH, FIRST_HELD
from netemu.kernel.factory_client import Factory
from netemu.kernel.namespaces import inside
from netemu.linklocal import addresses
from netemu.linklocal.shell import BROADCAST
from netemu.topology import Guest, Lab, Node, Policy
from netemu.wire.limits import MANY, MOST_OPENED
from netemu.wire.profile import Profile
from netemu.wire.progress import Progress

BRIDGE_INDEX = 2
# Ports' links are numbered by their marks, from here on: nothing has to be looked up. A guest's
# later ports get later numbers: the link before may still be there, with its dying namespace.
_FIRST_PORT_INDEX = 100
_later_port_indices = count(1 << 24)
METADATA = addresses.METADATA_TEXT
NAMES = Path("/run/netns")
# Guests whose namespaces are made while those before them are wired: some 50 ms of work.
_AHEAD = 50


class WiredGuest:
    """A guest, and a descriptor of its network namespace, which is another after each boot.

    `plugged` is whether there is a wire between it and its node, `port_index` the index of the link
    that is its port.
    """

    _opened: ClassVar[deque["WiredGuest"]] = deque()

    def __init__(self, guest: Guest, net: int, plugged: bool = True) -> None:
        self.guest = guest
        self.plugged = plugged
        self.port_index = _FIRST_PORT_INDEX + guest.mark
        self._net: int | None = net
        self._elsewhere = ""

    @property
    def net(self) -> int:
        """The namespace's descriptor, good until as many others as MOST_OPENED have been used."""
        if self._net is None:
            self._net = os.open(self._elsewhere, os.O_RDONLY | os.O_CLOEXEC)
            self._opened.append(self)
            if len(self._opened) > MOST_OPENED:
                self._opened.popleft()._close()
        return self._net

    @net.setter
    def net(self, net: int) -> None:
        if self in self._opened:
            self._opened.remove(self)
        self._net, self._elsewhere = net, ""

    def taken_over(self, guest: Guest) -> "WiredGuest":
        """The same namespace for what the guest is now; this object is of no more use."""
        made = WiredGuest(guest, self.net)
        made.port_index = self.port_index
        if self in self._opened:
            self._opened.remove(self)
        return made

    def leave_to(self, process: int, descriptor: int) -> None:
        """The namespace is held there, and need not be held here."""
        self._elsewhere = f"/proc/{process}/fd/{descriptor}"
        forget_name(self.guest.name)
        (NAMES / self.guest.name).symlink_to(self._elsewhere)
        self._close()

    def _close(self) -> None:
        if self._net is not None:
            os.close(self._net)
            self._net = None


@dataclass
class WiredNode:
    """A node: its namespace, its guests', and the sockets on which its responder will listen."""

    node: Node
    net: int
    guests: list[WiredGuest] = field(default_factory=list)
    listeners: list[socket.socket] = field(default_factory=list)

    @property
    def links(self) -> dict[int, Mark]:
        """The mark of each port by the index of its link."""
        return {wired.port_index: wired.guest.mark for wired in self.guests}


@dataclass(frozen=True)
class Manner:
    """How a lab is wired: its policy, its pace, and how its guests are kept apart."""

    policy: Policy
    time_scale: float = 1.0
    profile: Profile = field(default_factory=Profile)

    @property
    def same_node(self) -> bool:
        """Whether guests of a node may reach each other."""
        return self.policy is Policy.SAME_NODE


async def wire(
    lab: Lab, factory: Factory, manner: Manner, *, progress: Progress
) -> list[WiredNode]:
    """Build the whole lab. Every port is up and guarded when this returns; nobody has spoken."""
    total = len(lab.guests)
    done = 0
    NAMES.mkdir(exist_ok=True)
    wired = []
    nets = [net for _ in lab.nodes for net in await factory.nodes(1)]
    guest_nets = _made_ahead(factory, total)
    for node, net in zip(lab.nodes, nets, strict=True):
        guests = [WiredGuest(guest, await anext(guest_nets)) for guest in node.guests]
        one = WiredNode(node, net, guests)
        _wire(one, manner)
        wired.append(one)
        done += len(node.guests)
        progress.step("wiring guests", done, total)
        await asyncio.sleep(0)  # whoever asks for the lab's state gets an answer meanwhile
    if total > MANY:
        await _leave_to_others(factory, [guest for one in wired for guest in one.guests])
    return wired


async def _leave_to_others(factory: Factory, guests: list[WiredGuest]) -> None:
    for start in range(0, len(guests), BATCH):
        batch = guests[start : start + BATCH]
        process = await factory.hold([one.net for one in batch])
        for descriptor, one in enumerate(batch, start=FIRST_HELD):
            one.leave_to(process, descriptor)


async def _made_ahead(factory: Factory, count: int) -> AsyncIterator[int]:
    """Namespaces of guests, made in the factory's process while those before are being wired."""
    ahead = asyncio.create_task(factory.guests(min(count, _AHEAD)))
    while count:
        made = await ahead
        count -= len(made)
        if count:
            ahead = asyncio.create_task(factory.guests(min(count, _AHEAD)))
            await asyncio.sleep(0)  # it is asked before the caller goes on
        for net in made:
            yield net


def _wire(wired: WiredNode, manner: Manner) -> None:
    node, net, profile = wired.node, wired.net, manner.profile
    call(node.name, net)
    for one in wired.guests:
        call(one.guest.name, one.net)
    with inside(net), netlink.Netlink() as kernel:
        sysctl.write(profile.sysctls)
        sysctl.write(sysctl.NODE_BRIDGE, optional=True)
        kernel.run(_bridge(node))
        kernel.run(message for one in wired.guests for message in _port(one, manner))
        wired.listeners = [
            sockets.listen(profile.listener, shared=node.processes > 1)
            for _ in range(node.processes)
        ]
    for rules in profile.rules.pieces(
        [_guarded(guest) for guest in node.guests],
        bridge_mac=node.mac,
        same_node=manner.same_node,
        time_scale=manner.time_scale,
    ):
        guard.load(rules, net)
    for one in wired.guests:
        configure(one)
    with inside(net), netlink.Netlink() as kernel:
        kernel.run(links.up(one.guest.port, one.port_index) for one in wired.guests)


def _bridge(node: Node) -> list[netlink.Message]:
    return [
        links.up("lo", 1),
        links.bridge(BRIDGE, BRIDGE_INDEX, node.mac),
        links.up(BRIDGE, BRIDGE_INDEX),
        addressing.address(BRIDGE_INDEX, METADATA, addresses.PREFIX_LENGTH, BROADCAST),
    ]


def _port(wired: WiredGuest, manner: Manner) -> list[netlink.Message]:
    guest, index = wired.guest, wired.port_index
    wire = links.wire(guest.port, index, BRIDGE_INDEX, wired.net, guest.mac, guest.name)
    return [
        wire,
        links.port_options(guest.port, index, manner.profile.ports[manner.policy]),
        links.station(guest.port, index, guest.mac),
    ]


def _guarded(guest: Guest) -> guard.Port:
    return guest.port, guest.mark, guest.mac


def plug(node: WiredNode, wired: WiredGuest, manner: Manner) -> None:
    """Wire one more guest to a node that is up; its port comes up last, as ever.

    If it fails, the guest has no wire.
    """
    guest = wired.guest
    try:
        _make_port(node, wired, manner)
        guard.load(manner.profile.rules.more([_guarded(guest)]), node.net)
        _open_port(node, wired)
    except BaseException:
        unplug(node, wired, manner)
        raise
    wired.plugged = True


def unplug(node: WiredNode, wired: WiredGuest, manner: Manner) -> None:
    """Take a guest's wire away, and all that the node knows of its port."""
    guest, index = wired.guest, wired.port_index
    wired.plugged = False
    with inside(node.net), netlink.Netlink() as kernel:
        try:
            kernel.run((links.down(guest.port, index),))
        except NetemuError:  # its guest has destroyed it
            pass
    guard.unload(manner.profile.rules.one_less(_guarded(guest)), node.net)
    with inside(node.net), netlink.Netlink() as kernel:
        kernel.run((links.no_link(guest.port, index),))


def unplug_all(node: WiredNode, guests: Sequence[WiredGuest], manner: Manner) -> None:
    """Take the wires of many guests away at once; their namespaces are soon to end.

    A thousand take the kernel as long as a few do one after another. Not to be called in the loop.
    """
    for one in guests:
        one.plugged = False
    with inside(node.net), netlink.Netlink() as kernel:
        kernel.run(
            message for one in guests for message in links.retire(one.guest.port, one.port_index)
        )
    guard.unload_all(
        [manner.profile.rules.one_less(_guarded(one.guest)) for one in guests], node.net
    )


def guard_ports(node: WiredNode, guests: Sequence[WiredGuest], manner: Manner) -> None:
    """Have the node guard the ports that these guests will get: `renew` makes them.

    Where the guard follows names only. Not to be called in the loop.
    """
    ports = [_guarded(one.guest) for one in guests]
    for start in range(0, len(ports), guard.PORTS_AT_ONCE):
        some = ports[start : start + guard.PORTS_AT_ONCE]
        guard.load(manner.profile.rules.more(some), node.net)


def renew(node: WiredNode, wired: WiredGuest, manner: Manner) -> None:
    """Wire a guest that boots, whose network namespace is a new one.

    Its wire is new as well: nothing that the guest did to the one before is left, or looked at.
    """
    if wired.plugged and guard.follows_names():
        _make_port(node, wired, manner)
        _open_port(node, wired)
        return
    if wired.plugged:
        unplug(node, wired, manner)
    plug(node, wired, manner)


def _make_port(node: WiredNode, wired: WiredGuest, manner: Manner) -> None:
    with inside(node.net), netlink.Netlink() as kernel:
        kernel.run(links.retire(wired.guest.port, wired.port_index))
        wired.port_index = next(_later_port_indices)
        kernel.run(_port(wired, manner))


def _open_port(node: WiredNode, wired: WiredGuest) -> None:
    configure(wired)
    with inside(node.net), netlink.Netlink() as kernel:
        kernel.run((links.up(wired.guest.port, wired.port_index),))


def go_dark(node: WiredNode, wired: WiredGuest) -> None:
    """Set a guest's wire down, from the node's side: what its own end is like does not matter."""
    if wired.plugged:
        with inside(node.net), netlink.Netlink() as kernel:
            kernel.run((links.no_carrier(wired.guest.port, wired.port_index),))


def configure(wired: WiredGuest) -> None:
    """Make a guest's new namespace ready, and set its eth0 up."""
    with inside(wired.net), netlink.Netlink() as kernel:
        kernel.run(
            (
                links.up("lo", 1),
                addressing.direct_rule(addresses.NETWORK_TEXT, addresses.PREFIX_LENGTH),
                # RFC 3927 section 2.5: the state machine answers ARP, by broadcast; the kernel
                # would by unicast. Its own requests go out by broadcast, too.
                links.manners(GUEST_WIRE, links.GUEST_INDEX, arp_ignore=8),
                links.broadcast_arp(GUEST_WIRE, links.GUEST_INDEX),
                links.up(GUEST_WIRE, links.GUEST_INDEX),
            )
        )


def forget_name(name: str) -> None:
    """Let `ip netns` no longer find it."""
    (NAMES / name).unlink(missing_ok=True)


def call(name: str, net: int) -> None:
    """Let `ip netns` in the sandbox find a namespace by its name, at no mount's cost."""
    forget_name(name)
    (NAMES / name).symlink_to(f"/proc/{os.getpid()}/fd/{net}")
