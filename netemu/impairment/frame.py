"""Frames as packet sockets give them with PACKET_VNET_HDR: ten octets, then Ethernet. Pure.

The ten are struct virtio_net_hdr, in the machine's byte order: of a burst that is to be cut into
segments (TSO) how, and of a checksum that is not filled in yet where it goes.
"""

import struct
import sys
from typing import Final

HEADER: Final = struct.Struct("=BBHHHH")  # flags, burst's kind, head's length, segment, checksum's
_NEEDS_CHECKSUM: Final = 1
_DESTINATION_AND_SOURCE: Final = 12
_TAG: Final = struct.Struct("!HH")


def size(frame: bytes) -> tuple[int, int]:
    """Return how many octets go over the wire, and in how many frames."""
    length = len(frame) - HEADER.size
    _, burst, head, segment, _, _ = HEADER.unpack_from(frame)
    if not burst or not segment:
        return length, 1
    frames = max(1, -(-(length - head) // segment))
    return length + (frames - 1) * head, frames


def with_tag(frame: bytes, protocol: int, tag: int) -> bytes:
    """Put a VLAN's tag back, which the kernel gives beside the frame.

    A relay that forgets it takes the tag off: what the guard refuses would pass.
    """
    flags, burst, head, segment, start, offset = HEADER.unpack_from(frame)
    if flags & _NEEDS_CHECKSUM:
        start += _TAG.size
    header = HEADER.pack(flags, burst, head + _TAG.size if burst else head, segment, start, offset)
    at = HEADER.size + _DESTINATION_AND_SOURCE
    return header + frame[HEADER.size : at] + _TAG.pack(protocol, tag) + frame[at:]


def flipped(frame: bytes, bit: int) -> bytes | None:
    """Flip one bit. The checksum is filled in first: it has to be wrong then.

    None for a burst: its segments would all get checksums that are right. It is to be dropped, as
    the receiver would drop what is corrupt.
    """
    flags, burst, _, _, start, offset = HEADER.unpack_from(frame)
    if burst:
        return None
    body = bytearray(frame[HEADER.size :])
    if flags & _NEEDS_CHECKSUM and start + offset + 2 <= len(body):
        # Where it goes stands the sum of the pseudo-header.
        body[start + offset : start + offset + 2] = _checksum(body[start:]).to_bytes(2, "big")
    body[bit // 8] ^= 1 << bit % 8
    return bytes(HEADER.size) + bytes(body)


def _checksum(data: bytearray) -> int:
    """RFC 1071's, never 0: that would say of UDP that there is none."""
    padded = bytes(data) + b"\0" * (len(data) % 2)
    total = sum(memoryview(padded).cast("H"))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    if sys.byteorder == "little":
        total = (total & 0xFF) << 8 | total >> 8
    return ~total & 0xFFFF or 0xFFFF
