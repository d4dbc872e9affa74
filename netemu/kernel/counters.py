"""The traffic counters of all links of a namespace, read by one netlink dump."""

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from netemu.kernel.errors import KernelError
from netemu.kernel.netlink_walk import attributes, messages, text

# linux/rtnetlink.h, linux/netlink.h, linux/if_link.h
_NEWLINK, _GETLINK = 16, 18
_REQUEST, _DUMP = 0x1, 0x300
_ERROR, _DONE = 2, 3
_IFLA_IFNAME, _IFLA_STATS64 = 3, 23
_IFINFOMSG = 16
# The first eight members of struct rtnl_link_stats64.
_STATS = struct.Struct("=8Q")


class Counters(NamedTuple):
    """The traffic of a link since it was made. "Received" is what came in by it."""

    received_frames: int
    sent_frames: int
    received_bytes: int
    sent_bytes: int
    received_errors: int
    sent_errors: int
    received_dropped: int
    sent_dropped: int


class LinkCounters:
    """Reads the counters of all links of a namespace."""

    def __init__(self, made: socket.socket) -> None:
        """`made` is a route netlink socket in the namespace to be read. This object closes it."""
        self._socket = made

    def close(self) -> None:
        self._socket.close()

    def read(self) -> dict[str, Counters]:
        """The counters of each link, by its name. Raises KernelError."""
        self._socket.send(struct.pack("=IHHII", 32, _GETLINK, _REQUEST | _DUMP, 0, 0) + bytes(16))
        found: dict[str, Counters] = {}
        while True:
            data = self._socket.recv(65536)
            for kind, _, _, message in messages(data):
                if kind == _DONE:
                    return found
                if kind == _ERROR:
                    (code,) = struct.unpack_from("=i", message)
                    raise KernelError("reading the links", -code)
                if kind == _NEWLINK:
                    found.update(_counted(message))


def _counted(link: bytes) -> Iterator[tuple[str, Counters]]:
    name, counters = None, None
    for kind, payload in attributes(link, _IFINFOMSG):
        if kind == _IFLA_IFNAME:
            name = text(payload)
        elif kind == _IFLA_STATS64:
            counters = Counters(*_STATS.unpack_from(payload))
    if name is not None and counters is not None:
        yield name, counters
