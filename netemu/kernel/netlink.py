"""Route netlink in acknowledged batches: many requests, one exchange.

`links` makes the requests about links, `addressing` those about addresses and routes. The messages
are pyroute2's. The socket is a plain one: pyroute2's own forks a process for each namespace.
"""

import socket
import struct
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from netemu.kernel.errors import KernelError
from netemu.kernel.namespaces import inside
from netemu.kernel.netlink_walk import attributes, messages
from netemu.kernel.netlink_walk import text as text_of

# linux/rtnetlink.h, linux/netlink.h: kinds that more than one room speaks of, and flags.
NEWLINK, DELLINK, NEWNEIGH, DELNEIGH = 16, 17, 28, 29
REQUEST, _ACK, _REPLACE, DUMP, _EXCL, _CREATE = 0x1, 0x4, 0x100, 0x300, 0x200, 0x400
MAKE = REQUEST | _ACK | _CREATE | _EXCL
PUT = REQUEST | _ACK | _CREATE | _REPLACE
DO = REQUEST | _ACK
_NLMSG_ERROR = 2
_NLMSGERR_ATTR_MSG = 1
_NLM_F_ACK_TLVS = 0x200
_SOL_NETLINK, _EXT_ACK, _CAP_ACK = 270, 11, 10
AF_BRIDGE = 7

# An acknowledgement takes about 800 bytes of the socket's default 208 KiB: well within it.
BATCH = 64


class Message(NamedTuple):
    """A request in bytes, and in words for errors. `tolerate` is an errno that is not an error."""

    what: str
    data: bytes
    tolerate: int = 0


class Netlink:
    """A route netlink socket in the namespace in which it was opened."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened

    @classmethod
    def open(cls) -> "Netlink":
        """Open a socket in the namespace of this thread."""
        opened = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        opened.bind((0, 0))
        for option in (_EXT_ACK, _CAP_ACK):
            opened.setsockopt(_SOL_NETLINK, option, 1)
        return cls(opened)

    def __enter__(self) -> "Netlink":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def close(self) -> None:
        self._socket.close()

    def run(self, messages: Iterable[Message]) -> None:
        """Carry out all messages in order; raise KernelError for the first that is refused."""
        rest = iter(messages)
        while batch := list(islice(rest, BATCH)):
            self._exchange(batch)

    def _exchange(self, batch: Sequence[Message]) -> None:
        # Each message gets its place in the batch as sequence number (bytes 8 to 12).
        self._socket.send(
            b"".join(
                message.data[:8] + struct.pack("=I", number) + message.data[12:]
                for number, message in enumerate(batch)
            )
        )
        refused: KernelError | None = None
        waiting = len(batch)
        while waiting:
            for number, code, text in _acknowledgements(self._socket.recv(65536)):
                waiting -= 1
                message = batch[number]
                if code and code != message.tolerate and refused is None:
                    refused = KernelError(message.what, code, text)
        if refused is not None:
            raise refused


def run_in(net: int, *messages: Message) -> None:
    """Carry out all messages in the namespace `net`; raises as `Netlink.run`."""
    with inside(net), Netlink.open() as kernel:
        kernel.run(messages)


def _acknowledgements(data: bytes) -> Iterable[tuple[int, int, str]]:
    """(sequence number, errno or 0, the kernel's own words) of each acknowledgement in `data`."""
    for message in messages(data):
        if message.kind == _NLMSG_ERROR and len(message.body) >= 4:
            (code,) = struct.unpack_from("=i", message.body)
            # With CAP_ACK an error comes back with the request's header only: 4 + 16 bytes.
            told = attributes(message.body, 20) if message.flags & _NLM_F_ACK_TLVS else ()
            words = (text_of(payload) for kind, payload in told if kind == _NLMSGERR_ATTR_MSG)
            yield message.number, -code, next(words, "")


def encode(message: Any, kind: int, flags: int, attributes: list[tuple[str, Any]]) -> bytes:
    """A message of pyroute2's in bytes."""
    message["attrs"] = attributes
    message["header"]["type"] = kind
    message["header"]["flags"] = flags
    message.encode()
    return bytes(message.data)


def fill(template: bytes, index: int, *more: bytes) -> bytes:
    """A message that was encoded before, for another link and with more attributes.

    pyroute2 takes some 150 µs to encode a message, of which only a few bytes differ between guests.
    The index stands at the same place in struct ifinfomsg and struct ndmsg.
    """
    data = b"".join((template[4:20], struct.pack("=i", index), template[24:], *more))
    return struct.pack("=I", 4 + len(data)) + data


def attribute(kind: int, payload: bytes) -> bytes:
    """An attribute in bytes."""
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + bytes(-length % 4)


def nested(*attributes: tuple[str, Any]) -> dict[str, Any]:
    """Attributes within an attribute, for pyroute2."""
    return {"attrs": list(attributes)}
