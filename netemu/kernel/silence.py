"""Silences a guest's port by the guard: nothing comes in by it and nothing goes out.

An element of a set in the node's own rules. A bridge's port state would not do: the guest
enables the port again by setting its link down and up.
"""

import errno
import socket
import struct

from netemu.kernel import bindings
from netemu.kernel.errors import KernelError
from netemu.kernel.namespaces import inside

_NAME_LENGTH = 16  # IFNAMSIZ


def silence(net: int, table: str, port: str, *, silent: bool) -> None:
    """Put a port into the set `frozen` of a netdev table in the namespace of `net`, or take it out.

    Raises KernelError, if the table is not there for one.
    """
    kind = bindings.NEWSETELEM if silent else bindings.DELSETELEM
    key = struct.pack(f"{_NAME_LENGTH}s", port.encode())
    with (
        inside(net),
        socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, bindings.NETFILTER
        ) as link,
    ):
        link.bind((0, 0))
        code = bindings.exchange(link, bindings.change(kind, table, "frozen", [key]))
    if code and (silent or code != errno.ENOENT):
        raise KernelError(f"silencing {port}", code)
