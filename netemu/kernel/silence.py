"""Silences a guest's port in the guard: nothing comes in or goes out.

The port is an element of a set in the node's rules. The state of the bridge's port would not do:
the guest can reset that by setting its link down and up.
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

    Raises KernelError, for instance if the table does not exist.
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
