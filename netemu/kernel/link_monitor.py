"""Which links of a namespace have a carrier, as the kernel tells it."""

import errno
import socket
import struct

from netemu.kernel.netlink import AF_BRIDGE, DELLINK, DUMP, NEWLINK, REQUEST

_GETLINK = 18
_RTMGRP_LINK = 1
_IFF_RUNNING, _IFF_LOWER_UP = 0x40, 0x10000
# The second is the carrier; with the first the kernel has also made the link, and the bridge that
# it is a port of, ready for it.
_PASSES = _IFF_RUNNING | _IFF_LOWER_UP


class LinkMonitor:
    """Tells which links of the namespace in which it was made have a carrier, as it changes."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            socket.NETLINK_ROUTE,
        )
        self._socket.bind((0, _RTMGRP_LINK))

    def fileno(self) -> int:
        """To wait for: readable when something has changed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def ask(self) -> None:
        """Have the state of every link told once more."""
        header = struct.pack("=IHHII", 32, _GETLINK, REQUEST | DUMP, 0, 0)
        self._socket.send(header + bytes(16))

    def changes(self) -> list[tuple[int, bool]]:
        """(link's index, whether it has a carrier) in the order in which the kernel told them.

        If there was more than the socket could hold, everything is told anew.
        """
        told: list[tuple[int, bool]] = []
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return told
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.ask()
                continue
            offset = 0
            while offset + 16 <= len(data):
                length, kind = struct.unpack_from("=IH", data, offset)
                if kind in (NEWLINK, DELLINK) and offset + 32 <= len(data):
                    index, flags = struct.unpack_from("=iI", data, offset + 20)
                    family = data[offset + 16]
                    # A bridge speaks of its ports too (AF_BRIDGE): not of the links themselves.
                    if family != AF_BRIDGE:
                        told.append((index, kind == NEWLINK and flags & _PASSES == _PASSES))
                offset += max(16, (length + 3) & ~3)
