"""A machine that is a network namespace behind a veth: a guest that shares this kernel.

Runs in the supervisor. Its processes, if it has any, live in namespaces of the guest's own.
"""

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Final

from netemu.interfaces import GUEST_WIRE, TENANT_WIRE
from netemu.kernel import addressing, links, netlink
from netemu.kernel import namespaces as ns
from netemu.kernel.factory_client import Factory, Program
from netemu.kernel.namespaces import inside
from netemu.linklocal import addresses, ipv6
from netemu.linklocal.guest_shell import GuestShell
from netemu.supervisor.guests.endings import Ending
from netemu.supervisor.guests.etc_hosts import Names
from netemu.supervisor.guests.guest_init import GuestInit
from netemu.supervisor.guests.machine import Capability, Port
from netemu.wire.limits import MOST_OPENED

_INDEX: Final = {GUEST_WIRE: links.GUEST_INDEX, TENANT_WIRE: links.TENANT_INDEX}
_TENANT_PREFIX, _TENANT_BROADCAST = 15, "198.19.255.255"


class NamespaceMachine:
    """The machine of the guest `name`, whose first namespace is `net`, its own from here on.

    `net` is good until as many others as MOST_OPENED have been used.
    """

    capabilities = frozenset({Capability.ENTER, Capability.DIAL})
    _opened: ClassVar[deque["NamespaceMachine"]] = deque()

    def __init__(self, name: str, net: int, factory: Factory) -> None:
        self.name = name
        self._net: int | None = net
        self._elsewhere = ""
        self._factory = factory
        self._init = GuestInit(name, factory)

    @property
    def net(self) -> int:
        """A descriptor of its network namespace, which is another after each boot."""
        if self._net is None:
            self._net = os.open(self._elsewhere, os.O_RDONLY | os.O_CLOEXEC)
            self._opened.append(self)
            if len(self._opened) > MOST_OPENED:
                self._opened.popleft()._close()
        return self._net

    def leave_to(self, process: int, descriptor: int) -> None:
        """The namespace is held there, and need not be held here."""
        self._elsewhere = f"/proc/{process}/fd/{descriptor}"
        ns.call(self.name, self._elsewhere)
        self._close()

    def _close(self) -> None:
        if self._net is not None:
            os.close(self._net)
            self._net = None

    def _replace(self, net: int | None) -> None:
        if self in self._opened:
            self._opened.remove(self)
        self._close()
        self._net, self._elsewhere = net, ""

    async def renew(self) -> None:
        """Have a new namespace. Nobody waits until the one before is gone, or looks at it."""
        (net,) = await self._factory.guests(1)
        self._replace(net)
        self.call()

    def call(self) -> None:
        """Let `ip netns` in the sandbox find the namespace by the guest's name."""
        ns.call(self.name, f"/proc/{os.getpid()}/fd/{self.net}")

    def attach(self, node: int, port: Port) -> None:
        """Make a veth, and set the end in this namespace up."""
        index = _INDEX[port.interface]
        wire = links.wire(
            port.name,
            port.index,
            port.bridge,
            self.net,
            port.mac,
            self.name,
            (port.interface, index),
        )
        netlink.run_in(node, wire)
        told = _assigned(index, port.addresses) if port.addresses else _claiming(port)
        netlink.run_in(self.net, *told)

    def claim(self, start: Callable[[int], GuestShell]) -> GuestShell | None:
        """Have a claimant started."""
        return start(self.net)

    async def boot(self, program: Program | None, names: Callable[[], Names]) -> None:
        """Start its first process, if it has a program to run; else `enter` does."""
        self._init.end()
        self._init.names = names
        if program is not None:
            await self._init.boot(self.net, program)

    async def freeze(self) -> None:
        """Hold its processes where they are. Raises MachineCannot."""
        await self._init.freeze()

    def thaw(self) -> None:
        """Let its processes go on."""
        self._init.thaw()

    async def shut_down(self, grace: float) -> Ending | None:
        """Ask its programs to end. Raises MachineCannot."""
        return await self._init.shut_down(grace)

    def cut(self) -> None:
        """End its processes."""
        self._init.end()

    def remove(self) -> None:
        """Give its namespace back."""
        ns.forget_name(self.name)
        self._replace(None)

    async def enter(self) -> Mapping[str, int]:
        """Descriptors of its namespaces; its first process is started if need be."""
        return await self._init.namespaces(self.net)

    async def dial(self, host: str, port: int) -> socket.socket:
        """Connect from its network namespace. Raises OSError."""
        with inside(self.net):
            link = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await asyncio.get_running_loop().sock_connect(link, (host, port))
        except BaseException:
            link.close()
            raise
        return link

    def hung_up(self, host: str) -> None:
        """Take the host's MAC out of the neighbour table, of which all guests share one.

        gc_thresh3, 1,024 by default, bounds it for the whole machine: without this the guests
        beyond would wait for seconds until the kernel has thrown out those before them.
        """
        netlink.run_in(self.net, addressing.no_neighbour(links.GUEST_INDEX, host))


def _claiming(port: Port) -> Sequence[netlink.Message]:
    """The requests that ready a new namespace, and set up the end that claims its address."""
    index = links.GUEST_INDEX
    return (
        links.up("lo", 1),
        addressing.direct_rule(addresses.NETWORK_TEXT, addresses.PREFIX_LENGTH),
        # RFC 3927 section 2.5: the state machine answers ARP, by broadcast; the kernel would by
        # unicast. Its own requests go out by broadcast, too.
        links.manners(GUEST_WIRE, index, arp_ignore=8, ipv6=port.ipv6),
        links.broadcast_arp(GUEST_WIRE, index),
        links.up(GUEST_WIRE, index),
        *(_speaking_ipv6(index, port.mac) if port.ipv6 else ()),
    )


def _speaking_ipv6(index: int, mac: str) -> Sequence[netlink.Message]:
    """The address that the link's kernel gives itself, now and not in a second; and EC2's route."""
    return (
        addressing.ipv6_address(index, ipv6.of_mac(mac), ipv6.PREFIX_LENGTH),
        addressing.ipv6_route(index, ipv6.UNIQUE_LOCAL),
    )


def _assigned(index: int, given: Sequence[str]) -> Sequence[netlink.Message]:
    """The requests that set up the end that is given its addresses."""
    return (
        # Each link answers for its own addresses only (the kernel's default is the host's: RFC 1122
        # section 3.3.4.2 allows both), so that eth1 never tells of what eth0 has.
        links.manners(TENANT_WIRE, index, arp_ignore=1, arp_announce=2),
        links.up(TENANT_WIRE, index),
        *(
            addressing.address(index, one, _TENANT_PREFIX, _TENANT_BROADCAST, link_scope=False)
            for one in given
        ),
    )
