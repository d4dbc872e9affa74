"""The lease of a node's guard: until when its guests may be heard. The kernel ends it by itself.

Runs in the supervisor of a lab on several machines. While the guard's set `lease` is empty, nothing
comes in or goes out at any port. Its one element has a timeout, so no process has to be alive, or
to notice anything, for guests to go silent.
"""

import socket
import struct
from collections.abc import Callable
from typing import Final

from netemu.kernel import bindings
from netemu.kernel.errors import KernelError
from netemu.kernel.namespaces import inside

_KEY: Final = struct.pack("=H", 1)  # ARPHRD_ETHER, the type of every port
_PATIENCE: Final = 1.0
LATE: Final = 0.25


class Lease:
    """The lease of one node, or of the tenant network: of a table of rules."""

    def __init__(self, netfilter: socket.socket, table: str) -> None:
        self._netfilter = netfilter
        self._table = table

    @classmethod
    def open(cls, net: int, table: str = "guard") -> "Lease":
        """Open its socket in that namespace."""
        with inside(net):
            netfilter = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, bindings.NETFILTER
            )
        netfilter.bind((0, 0))
        netfilter.settimeout(_PATIENCE)
        return cls(netfilter, table)

    def close(self) -> None:
        """Close the socket; the lease goes on."""
        self._netfilter.close()

    def last_until(self, deadline: float, now: Callable[[], float]) -> None:
        """Have it end at `deadline` of the clock `now`; at once if that has passed.

        The kernel is told how long it lasts. If this process is stopped between reading the clock
        and telling the kernel, it tells it again. So the lease ends at most LATE seconds late.
        """
        while True:
            looked = now()
            self._set(max(0.0, deadline - looked))
            if now() - looked < LATE or looked >= deadline:
                return

    def _set(self, seconds: float) -> None:
        code = bindings.exchange(
            self._netfilter, bindings.renewal(self._table, "lease", _KEY, int(seconds * 1000))
        )
        if code:
            raise KernelError("renewing the lease of a guard", code)
