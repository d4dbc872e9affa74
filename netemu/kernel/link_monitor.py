"""Watches which links of a namespace have a carrier. Runs in the supervisor's loop, and never
waits.

The kernel runs one dump for a socket at a time, and refuses a second with EBUSY. A dump is
interrupted when links change under it. Notifications are lost when the socket is full. After each
of these a dump is owed, and the caller starts it after a pause: see `LinkMonitor.owed`.
"""

import errno
import socket
import struct
from typing import Final

from netemu.kernel.netlink import AF_BRIDGE, DELLINK, DUMP, NEWLINK, REQUEST
from netemu.kernel.netlink_walk import Received, messages

_GETLINK = 18
_RTMGRP_LINK = 1
_ERROR, _DONE = 2, 3
_DUMP_INTERRUPTED = 0x10
_IFF_RUNNING, _IFF_LOWER_UP = 0x40, 0x10000
# The second is the carrier; with the first the kernel has also made the link, and the bridge that
# it is a port of, ready for it.
_PASSES = _IFF_RUNNING | _IFF_LOWER_UP

# The sequence number of a dump. A question about one link has the link's index instead.
_ALL = 0
# Datagrams read before the loop turns to others: some 30 links in each.
_AT_A_TIME: Final = 64


class LinkMonitor:
    """Tells which links of the namespace in which it was opened have a carrier, as it changes."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._dumping = False
        self._owed = False

    @classmethod
    def open(cls) -> "LinkMonitor":
        """Open a socket in the namespace of this thread."""
        opened = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            socket.NETLINK_ROUTE,
        )
        opened.bind((0, _RTMGRP_LINK))
        return cls(opened)

    def fileno(self) -> int:
        """The socket to wait for: it is readable when something has changed."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    @property
    def owed(self) -> bool:
        """Whether something was missed, so that `ask_all` has to be called after a pause."""
        return self._owed and not self._dumping

    def ask(self, link: int) -> None:
        """Ask for the state of one link. Any number of such questions may be open."""
        try:
            self._socket.send(_question(REQUEST, link, link))
        except OSError:  # no memory for it
            self._owed = True

    def ask_all(self) -> None:
        """Ask for the state of every link, after the dump that runs, if one does."""
        self._owed = self._dumping
        if not self._dumping:
            try:
                self._socket.send(_question(REQUEST | DUMP, _ALL, 0))
                self._dumping = True
            except OSError:
                self._owed = True

    def changes(self) -> list[tuple[int, bool]]:
        """Pairs of a link's index and whether it has a carrier, in the kernel's order.

        With very many, some are left for the next call: the socket stays readable.
        """
        told: list[tuple[int, bool]] = []
        for _ in range(_AT_A_TIME):
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._owed = True  # notifications are lost; a dump's own messages never are
                continue
            for message in messages(data):
                self._take(message, told)
        return told

    def _take(self, message: Received, told: list[tuple[int, bool]]) -> None:
        kind, flags, number, body = message
        if flags & _DUMP_INTERRUPTED:
            self._owed = True
        if kind in (NEWLINK, DELLINK) and len(body) >= 16:
            index, state = struct.unpack_from("=iI", body, 4)
            # A bridge speaks of its ports too (AF_BRIDGE): not of the links themselves.
            if body[0] != AF_BRIDGE:
                told.append((index, kind == NEWLINK and state & _PASSES == _PASSES))
        elif kind == _DONE:
            self._dumping = False
        elif kind == _ERROR and len(body) >= 4:
            self._refused(number, -struct.unpack_from("=i", body)[0], told)

    def _refused(self, number: int, code: int, told: list[tuple[int, bool]]) -> None:
        if number != _ALL and code == errno.ENODEV:
            told.append((number, False))
            return
        self._owed = True
        if number == _ALL:
            # With EBUSY a dump runs that is still to be done with; with anything else none does.
            self._dumping = code == errno.EBUSY


def _question(flags: int, number: int, link: int) -> bytes:
    head = struct.pack("=IHHII", 32, _GETLINK, flags, number, 0)
    return head + struct.pack("=BxHiII", 0, 0, link, 0, 0)
