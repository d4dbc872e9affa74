"""Walks over the messages that netlink has sent, and the attributes in them. Pure.

A wrong length ends the walk: nothing is read beyond the data.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

HEADER: Final = 16  # struct nlmsghdr
_ATTRIBUTE: Final = 4  # struct nlattr


class Received(NamedTuple):
    """One message: `number` is the sequence number, `body` what comes after the header."""

    kind: int
    flags: int
    number: int
    body: bytes


def messages(data: bytes) -> Iterator[Received]:
    """Each message in the data of one recv(2)."""
    offset = 0
    while offset + HEADER <= len(data):
        length, kind, flags, number = struct.unpack_from("=IHHI", data, offset)
        yield Received(kind, flags, number, data[offset + HEADER : offset + length])
        offset += max(HEADER, (length + 3) & ~3)


def attributes(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The kind (without its flags) and payload of each attribute from `offset` on."""
    while offset + _ATTRIBUTE <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        yield kind & 0x3FFF, data[offset + _ATTRIBUTE : offset + length]
        offset += max(_ATTRIBUTE, (length + 3) & ~3)


def text(payload: bytes) -> str:
    """A string, which the kernel ends with a zero byte."""
    return payload.rstrip(b"\0").decode(errors="replace")
