"""Sockets of a namespace: makes the responder's listener, and resets connections."""

import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Final

import msgspec

from netemu.interfaces import BRIDGE, Mark
from netemu.kernel.errors import KernelError
from netemu.kernel.netlink_walk import messages

# EC2's default hop limit, and RFC 3927 section 2.7's "sensible default": an answer does not
# outlive the link.
ANSWER_TTL = 1
# Where a metadata service is asked.
HTTP = 80
# Somewhat more than the guests of a full node, in case all connect at once.
BACKLOG = 2048

SO_RCVMARK = 75
_MARK = struct.Struct("=I")
_SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY = 20, 21
_REQUEST, _DUMP = 0x1, 0x300
_NETLINK_SOCK_DIAG = 4
_DONE, _ERROR = 3, 2
# Every TCP state but LISTEN (10), as a mask.
_CONNECTED = 0xFFF & ~(1 << 10)
# struct inet_diag_req_v2: family, protocol, extensions, states, then struct inet_diag_sockid.
_REQUEST_V2 = struct.Struct("=BBBxI")


class Listener(msgspec.Struct, frozen=True):
    """Where a responder listens: an address, and an interface ("" is any). `ttl` is the IP TTL, or
    the hop limit, of its answers.
    """

    address: str
    interface: str
    ttl: int = ANSWER_TTL
    port: int = HTTP


def listen(at: Listener, *, shared: bool = False) -> socket.socket:
    """A listening socket of the present namespace.

    `shared`: with more such sockets (SO_REUSEPORT), each for a process of its own.
    """
    family = socket.AF_INET6 if ":" in at.address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, at.interface.encode() + b"\0")
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, at.ttl)
            scope = socket.if_nametoindex(at.interface) if at.interface else 0
            made.bind((at.address, at.port, 0, scope))
        else:
            made.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, at.ttl)
            made.bind((at.address, at.port))
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError as error:
        made.close()
        raise KernelError(f"listening on {at.address}:{at.port}", error.errno or 0) from None
    return made


def for_names(address: str, port: int) -> socket.socket:
    """A UDP socket of the present namespace on br0, which tells the mark of each datagram."""
    made = socket.socket(
        socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    )
    try:
        made.setsockopt(socket.SOL_SOCKET, SO_RCVMARK, 1)
        made.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ANSWER_TTL)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, BRIDGE.encode() + b"\0")
        made.bind((address, port))
    except OSError as error:
        made.close()
        raise KernelError(f"listening on {address}:{port}", error.errno or 0) from None
    return made


def receive_from(made: socket.socket, longest: int) -> tuple[bytes, Mark, tuple[str, int]]:
    """The next datagram, its mark (0: none) and its sender. Raises OSError."""
    data, ancillary, _, peer = made.recvmsg(longest, 64)
    for level, kind, value in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SO_MARK):
            return data, Mark(_MARK.unpack(value)[0]), peer
    return data, Mark(0), peer


def send_marked(made: socket.socket, data: bytes, mark: Mark, peer: tuple[str, int]) -> None:
    """Send a datagram with a mark: the guard lets it out by that port alone. Raises OSError."""
    made.sendmsg([data], [(socket.SOL_SOCKET, socket.SO_MARK, _MARK.pack(mark))], 0, peer)


def reset_connections(address: str) -> None:
    """Abort the TCP connections of the present namespace that have `address` as their own.

    RFC 3927 section 2.5: a host should reset its connections before it moves. Peers get an RST. A
    guest may have a hundred thousand, which take half a second: not to be called in the loop.
    """
    _abort({socket.inet_aton(address)}, _OWN)


def reset_connections_with(peers: Iterable[str]) -> None:
    """Abort the connections that have one of these addresses as their peer's, before another guest
    gets it.
    """
    _abort({socket.inet_aton(one) for one in peers}, _PEER)


# struct inet_diag_sockid: ports, then the own address and the peer's, 16 bytes each.
_OWN, _PEER = slice(4, 8), slice(20, 24)
# Sockets destroyed by one message: 29 KB of them.
_AT_ONCE: Final = 400


def _abort(addresses: set[bytes], place: slice) -> None:
    """Abort what the kernel lets be aborted: nothing on a kernel without INET_DIAG_DESTROY."""
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
    ) as diag:
        diag.bind((0, 0))
        with suppress(OSError):
            found = (one for one in list(_connections(diag)) if one[place] in addresses)
            # No answers are asked for: they would take as long as the aborting.
            while batch := list(islice(found, _AT_ONCE)):
                diag.send(b"".join(_diag(_SOCK_DESTROY, _REQUEST, one) for one in batch))


def _connections(diag: socket.socket) -> Iterator[bytes]:
    """The struct inet_diag_sockid (48 bytes) of each TCP connection."""
    diag.send(_diag(_SOCK_DIAG_BY_FAMILY, _REQUEST | _DUMP, bytes(48)))
    while True:
        for message in messages(diag.recv(65536)):
            if message.kind in (_DONE, _ERROR):
                return
            # struct inet_diag_msg: family, state, timer, retrans, then the socket's identity.
            yield message.body[4:52]


def _diag(kind: int, flags: int, socket_id: bytes) -> bytes:
    body = _REQUEST_V2.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, _CONNECTED) + socket_id
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body
