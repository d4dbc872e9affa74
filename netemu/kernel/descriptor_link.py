"""Messages with descriptors beside them, between two of our processes on one machine.

The socket is a SOCK_SEQPACKET pair: a packet is a message, in msgpack. Both ends keep to small
modules: the factory, which is one of them, is forked for each guest.
"""

import array
import os
import socket
from contextlib import suppress
from typing import Any, Final

import msgpack

_LONGEST: Final = 65536
_MOST_DESCRIPTORS: Final = 253  # SCM_MAX_FD
# A path or a variable of the environment may be no text.
_TEXT: Final = "surrogateescape"


def send(link: socket.socket, message: list[Any], descriptors: list[int]) -> None:
    """Send one message with descriptors beside it. Raises OSError."""
    ancillary = (
        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())]
        if descriptors
        else []
    )
    link.sendmsg([msgpack.packb(message, unicode_errors=_TEXT)], ancillary)


def receive(link: socket.socket) -> tuple[list[Any], list[int], bool]:
    """One message, its descriptors, and whether some of them were lost; no message is the end.

    Raises OSError, and ValueError for what is not a message.
    """
    data, ancillary, flags, _ = link.recvmsg(
        _LONGEST, socket.CMSG_SPACE(4 * _MOST_DESCRIPTORS), socket.MSG_CMSG_CLOEXEC
    )
    received = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            received.frombytes(content[: len(content) - len(content) % received.itemsize])
    message = msgpack.unpackb(data, unicode_errors=_TEXT) if data else []
    return message, list(received), bool(flags & socket.MSG_CTRUNC)


def close_all(descriptors: list[int]) -> None:
    """Close descriptors, of which some may be closed already."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)
