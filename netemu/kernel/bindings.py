"""A node's bindings in the kernel: elements of the guard's set `bound`, and permanent neighbours.

All bindings that change together take one exchange with nf_tables. The messages are written by
hand: an `nft` process for each change costs some 18 ms, and pyroute2's nftables supports neither
sets with interface names nor transactions of several objects. The numbers are those of
linux/netfilter/nf_tables.h. A key is its parts, each padded to four bytes: name (16), MAC (6 → 8),
address (4).
"""

import errno
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from netemu.interfaces import octets
from netemu.kernel import addressing, netlink
from netemu.kernel.errors import KernelError
from netemu.kernel.netlink import attribute

NETFILTER = 12
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
NEWSETELEM, DELSETELEM = 12, 14
_NETDEV = 5  # NFPROTO_NETDEV
_REQUEST, _ACK, _CREATE = 0x1, 0x4, 0x400
_NESTED = 0x8000
# NFTA_SET_ELEM_LIST_TABLE, …_SET, …_ELEMENTS; NFTA_LIST_ELEM; NFTA_SET_ELEM_KEY, …_TIMEOUT;
# NFTA_DATA_VALUE
_TABLE, _SET, _ELEMENTS, _ELEMENT, _KEY, _TIMEOUT, _VALUE = 1, 2, 3, 1, 1, 4, 1

# An attribute's length is 16 bits: 40 bytes an element stay far below it.
_AT_ONCE = 500


class Binding(NamedTuple):
    """A port's name, the MAC behind it, and the address that it holds, as text."""

    port: str
    mac: str
    address: str


class Bindings:
    """Changes the bindings of one node."""

    def __init__(self, bridge_index: int, route: netlink.Netlink, netfilter: socket.socket) -> None:
        self._bridge = bridge_index
        self._route = route
        self._netfilter = netfilter

    @classmethod
    def open(cls, bridge_index: int) -> "Bindings":
        """Open its sockets, inside the node's namespace; they stay there."""
        netfilter = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETFILTER
        )
        netfilter.bind((0, 0))
        return cls(bridge_index, netlink.Netlink.open(), netfilter)

    def close(self) -> None:
        self._route.close()
        self._netfilter.close()

    def add(self, bindings: Sequence[Binding]) -> None:
        """Let these ports send from these addresses, and enter the addresses as neighbours."""
        self._route.run(addressing.neighbour(self._bridge, b.address, b.mac) for b in bindings)
        for start in range(0, len(bindings), _AT_ONCE):
            self._change(NEWSETELEM, bindings[start : start + _AT_ONCE])

    def remove(self, bindings: Sequence[Binding]) -> None:
        """Remove these bindings. It is not an error if some are gone."""
        for start in range(0, len(bindings), _AT_ONCE):
            self._change(DELSETELEM, bindings[start : start + _AT_ONCE])
        self._route.run(addressing.no_neighbour(self._bridge, b.address) for b in bindings)

    def _change(self, kind: int, bindings: Sequence[Binding]) -> None:
        code = exchange(self._netfilter, transaction(kind, bindings))
        if kind == DELSETELEM and code == errno.ENOENT:
            # The kernel refuses the whole batch if one element is gone: remove them one by one.
            if len(bindings) > 1:
                for one in bindings:
                    self._change(kind, [one])
        elif code:
            raise KernelError("a change of the guard's bindings", code)


def exchange(netfilter: socket.socket, request: bytes) -> int:
    """Send a transaction. Returns 0, or the error number with which the kernel refuses it."""
    netfilter.send(request)
    (length, _, _, _) = struct.unpack_from("=IHHI", data := netfilter.recv(65536))
    (code,) = struct.unpack_from("=i", data, 16) if length >= 20 else (0,)
    return -int(code)


def transaction(kind: int, bindings: Sequence[Binding]) -> bytes:
    """The bytes of one nf_tables transaction that adds or removes elements of the set `bound`."""
    return change(kind, "guard", "bound", map(key, bindings))


def change(kind: int, table: str, set_name: str, keys: Iterable[bytes]) -> bytes:
    """The same for any set of a netdev table, by its elements' keys."""
    elements = b"".join(
        attribute(_ELEMENT | _NESTED, attribute(_KEY | _NESTED, attribute(_VALUE, one)))
        for one in keys
    )
    flags = _ACK | (_CREATE if kind == NEWSETELEM else 0)
    body = _of_set(table, set_name) + attribute(_ELEMENTS | _NESTED, elements)
    return _batch(_change(kind, flags, body))


def renewal(table: str, set_name: str, key: bytes, milliseconds: int) -> bytes:
    """A transaction after which `key` is all that a set has, for so long; with 0, it is empty.

    To add an element that is there does not renew its timeout: the set is emptied first.
    """
    emptied = _of_set(table, set_name)
    if milliseconds <= 0:
        return _batch(_change(DELSETELEM, _ACK, emptied))
    one = attribute(_KEY | _NESTED, attribute(_VALUE, key))
    one += attribute(_TIMEOUT, struct.pack(">Q", milliseconds))
    filled = emptied + attribute(_ELEMENTS | _NESTED, attribute(_ELEMENT | _NESTED, one))
    return _batch(_change(DELSETELEM, 0, emptied) + _change(NEWSETELEM, _ACK | _CREATE, filled))


def _of_set(table: str, set_name: str) -> bytes:
    named = attribute(_TABLE, table.encode() + b"\0")
    return named + attribute(_SET, set_name.encode() + b"\0")


def _change(kind: int, flags: int, body: bytes) -> bytes:
    family = bytes((_NETDEV, 0, 0, 0))
    return _message(_SUBSYSTEM << 8 | kind, _REQUEST | flags, family + body)


def _batch(changes: bytes) -> bytes:
    subsystem = b"\0\0" + struct.pack(">H", _SUBSYSTEM)
    begin = _message(_BATCH_BEGIN, _REQUEST, subsystem)
    return begin + changes + _message(_BATCH_END, _REQUEST, subsystem)


def key(binding: Binding) -> bytes:
    """The 28 bytes under which nf_tables keeps `ifname . ether_addr . ipv4_addr`."""
    return struct.pack(
        "16s6s2x4s",
        binding.port.encode(),
        octets(binding.mac),
        socket.inet_aton(binding.address),
    )


def _message(kind: int, flags: int, payload: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, flags, 1, 0) + payload
