"""Raw packet sockets for ARP, narrowed in the kernel to the frames that matter."""

import ctypes
import fcntl
import socket
import struct

from hostagent.classic_bpf import Program
from netemu.interfaces import BRIDGE, GUEST_WIRE, Mark
from netemu.kernel.errors import KernelError

ETH_P_ARP = 0x0806
_ETH_P_ALL = 0x0003
_ETH_P_IP = 0x0800
_SO_ATTACH_FILTER = 26
_SO_RCVMARK = 75
# Bytes: a thousand guests' probes of one moment, with the kernel's own 768 bytes for each.
_ROOM_OF_A_NODE = 1 << 20
_CMSG_MARK = struct.Struct("=I")
_SIOCGIFFLAGS = 0x8913
_SIOCETHTOOL = 0x8946
_ETHTOOL_GLINK, _ETHTOOL_STXCSUM = 0x0A, 0x17
# linux/if_packet.h
_SOL_PACKET, _PACKET_AUXDATA, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 263, 8, 15, 23
_IFF_RUNNING = 0x40
_IFREQ = 40  # bytes of struct ifreq
_NAME = 16  # … of which an interface's name


def on_guest(filter_program: bytes) -> socket.socket:
    """A socket on eth0 of the present namespace that sends frames and hears ARP."""
    return _open(GUEST_WIRE, ETH_P_ARP, filter_program)


def on_bridge(filter_program: bytes) -> socket.socket:
    """A socket on br0 of the present namespace. `receive_marked` also returns the port's mark.

    It does not hear what the guard has dropped.
    """
    made = _open(BRIDGE, ETH_P_ARP, filter_program)
    # Linux 5.19 and later: the mark that the guard has set travels beside the frame.
    made.setsockopt(socket.SOL_SOCKET, _SO_RCVMARK, 1)
    # The kernel allows up to net.core.rmem_max.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM_OF_A_NODE)
    return made


def for_leases(filter_program: bytes) -> socket.socket:
    """A socket on br0 of the present namespace that hears DHCP, with the port's mark."""
    made = _open(BRIDGE, _ETH_P_IP, filter_program)
    made.setsockopt(socket.SOL_SOCKET, _SO_RCVMARK, 1)
    return made


def on_every_port(filter_program: bytes) -> socket.socket:
    """A socket that hears every interface of the present namespace, before any guard."""
    # It hears every interface from the start: discard what came before the filter was set.
    made = socket.socket(
        socket.AF_PACKET,
        socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
        socket.htons(_ETH_P_ALL),
    )
    attach(made, filter_program)
    try:
        while made.recv(64):
            pass
    except BlockingIOError:
        pass
    return made


def on_wire(interface: str, *, offloads: bool = True) -> socket.socket:
    """A socket that takes every frame that comes in by an interface, and sends frames out of it.

    With each frame goes struct virtio_net_hdr in front (bursts, checksums that are not filled in),
    and beside it struct tpacket_auxdata (the tag of a VLAN). Without `offloads` there are neither.
    """
    options = (_PACKET_AUXDATA, _PACKET_VNET_HDR) if offloads else ()
    made = socket.socket(
        socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0
    )
    try:
        for option in (*options, _PACKET_IGNORE_OUTGOING):
            made.setsockopt(_SOL_PACKET, option, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM_OF_A_NODE)
        made.bind((interface, _ETH_P_ALL))
    except OSError as error:
        made.close()
        raise KernelError(f"taking frames from {interface}", error.errno or 0) from None
    return made


def _open(interface: str, protocol: int, filter_program: bytes) -> socket.socket:
    # Protocol 0 hears nothing: the filter is in place before the first frame is.
    made = socket.socket(
        socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0
    )
    try:
        attach(made, filter_program)
        made.bind((interface, protocol))
    except OSError as error:
        made.close()
        raise KernelError(f"listening on {interface}", error.errno or 0) from None
    return made


def attach(packet_socket: socket.socket, program: bytes) -> None:
    """Replace the socket's filter by `program`, an array of struct sock_filter."""
    packet_socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, Program(program))


def can_send(packet_socket: socket.socket) -> bool:
    """Whether the socket's interface sends frames now; an interface that is gone does not.

    An interface with a carrier may not send yet: the kernel's linkwatch has one queue for all
    namespaces, and until it reaches the interface, frames are discarded silently. This question
    makes it look at once (Linux 6.8 and later).
    """
    glink = ctypes.create_string_buffer(struct.pack("=II", _ETHTOOL_GLINK, 0))
    question = bytearray(_IFREQ)
    try:
        name = packet_socket.getsockname()[0].encode()  # its root may have renamed it
        struct.pack_into("=16sQ", question, 0, name, ctypes.addressof(glink))
        fcntl.ioctl(packet_socket, _SIOCETHTOOL, question)
        struct.pack_into("=16sQ", question, 0, name, 0)
        fcntl.ioctl(packet_socket, _SIOCGIFFLAGS, question)
    except OSError:
        return False
    (flags,) = struct.unpack_from("=H", question, _NAME)
    return bool(flags & _IFF_RUNNING)


def take_no_offloads(interface: str) -> None:
    """Have the kernel fill in checksums, and cut bursts into frames, before this interface."""
    value = ctypes.create_string_buffer(struct.pack("=II", _ETHTOOL_STXCSUM, 0))
    question = struct.pack("=16sQ16x", interface.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            fcntl.ioctl(asking, _SIOCETHTOOL, question)
        except OSError as error:
            raise KernelError(f"checksums at {interface}", error.errno or 0) from None


def receive_marked(packet_socket: socket.socket) -> tuple[bytes, Mark]:
    """The next frame and its mark (0: none). Raises BlockingIOError if there is none."""
    frame, ancillary, _, _ = packet_socket.recvmsg(2048, 64)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SO_MARK):
            return frame, Mark(_CMSG_MARK.unpack(data)[0])
    return frame, Mark(0)


def send_marked(packet_socket: socket.socket, frame: bytes, mark: Mark) -> None:
    """Send a frame with a mark: the guard lets it out by that port alone. Raises OSError."""
    beside = [(socket.SOL_SOCKET, socket.SO_MARK, _CMSG_MARK.pack(mark))]
    packet_socket.sendmsg([frame], beside)
