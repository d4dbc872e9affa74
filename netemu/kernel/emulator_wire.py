"""The wire of a machine where there may be no tap: a veth, whose other end a relay reads.

Runs in the supervisor. The relay is `frame_carrier`.
"""

import socket

from netemu.interfaces import GUEST_WIRE
from netemu.kernel import links, netlink, packet
from netemu.kernel.namespaces import inside


def make(node: int, net: int, wire: netlink.Message, port: str) -> socket.socket:
    """Make a `port`, down, in the namespace `node`, and its other end in `net`: a socket there.

    Frames come as they are on a wire: whole, with their checksums. Raises KernelError.
    """
    with inside(node), netlink.Netlink.open() as kernel:
        kernel.run((wire,))
        packet.take_no_offloads(port)
    # The kernel of the other end's namespace has no address there, and says nothing.
    mute = links.no_ipv6_of_its_own(GUEST_WIRE, links.GUEST_INDEX)
    with inside(net), netlink.Netlink.open() as kernel:
        kernel.run(
            (*((mute,) if links.has_ipv6() else ()), links.up(GUEST_WIRE, links.GUEST_INDEX))
        )
        return packet.on_wire(GUEST_WIRE, offloads=False)
