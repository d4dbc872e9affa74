"""Which user is at the other end of a Unix socket, according to the kernel.

A socket file has an owner and a mode, which the kernel checks. An abstract name has neither: any
process of the network namespace may connect to it.
"""

import os
import socket
import struct
from typing import Final

_UCRED: Final = "iII"  # process, user, group
_ROOT: Final = 0


def may_connect(link: socket.socket) -> bool:
    """Whether the peer of this accepted connection may be served."""
    return not _is_abstract(link.getsockname()) or _user(link) in (_ROOT, os.geteuid())


def _is_abstract(address: str | bytes) -> bool:
    return address[:1] in (b"\0", "\0")


def _user(link: socket.socket) -> int:
    told = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(_UCRED))
    return int(struct.unpack(_UCRED, told)[1])
