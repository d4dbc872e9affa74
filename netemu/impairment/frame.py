"""Frames as packet sockets give them with PACKET_VNET_HDR: ten octets, then Ethernet. Pure.

The ten are struct virtio_net_hdr, in the machine's byte order. It says how to cut a burst into
segments (TSO), and where a checksum goes that is not filled in yet.
"""

import struct
import sys
from typing import Final

HEADER: Final = struct.Struct("=BBHHHH")  # flags, burst's kind, head's length, segment, checksum's
_NEEDS_CHECKSUM: Final = 1
# Kinds of bursts: TCP over IPv4, UDP; and the bit for "only the first segment has CWR".
_TCP4, _UDP, _ECN = 1, 5, 0x80
_FIN_AND_PUSH, _CWR = 0x09, 0x80
_TCP_HEAD, _UDP_HEAD = 20, 8
# Linux's TCP_MIN_MSS: with less, a guest could have 64 KiB cut into 65,000 frames.
_SMALLEST: Final = 48
_DESTINATION_AND_SOURCE: Final = 12
_TAG: Final = struct.Struct("!HH")


def segments(frame: bytes) -> list[bytes]:
    """Cut a burst into the frames that it stands for, as a network card would; else the frame.

    Each frame then has a fate of its own, also where a guest's interface offloads. A burst with an
    impossible header becomes no frame: the guest's root may have made it up.
    """
    _, burst, _, size, start, offset = HEADER.unpack_from(frame)
    kind = burst & ~_ECN
    body = frame[HEADER.size :]
    ip = _network(body)
    if kind not in (_TCP4, _UDP) or not size or body[ip : ip + 1] != b"\x45" or start != ip + 20:
        return [frame]
    tcp = kind == _TCP4
    shortest = _TCP_HEAD if tcp else _UDP_HEAD
    if size < _SMALLEST or len(body) < start + shortest or offset > shortest - 2:
        return []
    head = start + ((body[start + 12] >> 4) * 4 if tcp else shortest)
    if not start + shortest <= head <= len(body):
        return []
    header = HEADER.pack(_NEEDS_CHECKSUM, 0, 0, 0, start, offset)
    cut: list[bytes] = []
    for at in range(head, len(body), size):
        payload = body[at : at + size]
        last = at + size >= len(body)
        mine = bytearray(body[:head])
        long = head - start + len(payload)
        _put(mine, ip + 2, 20 + long)
        _put(mine, ip + 4, int.from_bytes(body[ip + 4 : ip + 6], "big") + len(cut))
        _put(mine, ip + 10, 0)
        _put(mine, ip + 10, _checksum(mine[ip:start]))
        if tcp:
            number = int.from_bytes(body[start + 4 : start + 8], "big") + at - head
            mine[start + 4 : start + 8] = (number & 0xFFFF_FFFF).to_bytes(4, "big")
            mine[start + 13] &= 0xFF if last else ~_FIN_AND_PUSH
            mine[start + 13] &= ~_CWR if cut else 0xFF
        else:
            _put(mine, start + 4, long)
        pseudo = mine[ip + 12 : ip + 20] + bytes((0, mine[ip + 9])) + long.to_bytes(2, "big")
        _put(mine, start + offset, _sum(pseudo))
        cut.append(header + bytes(mine) + payload)
    return cut


def with_tag(frame: bytes, protocol: int, tag: int) -> bytes:
    """Put a VLAN's tag back, which the kernel gives beside the frame.

    A relay that forgets it takes the tag off: what the guard refuses would pass.
    """
    flags, burst, head, segment, start, offset = HEADER.unpack_from(frame)
    if flags & _NEEDS_CHECKSUM:
        start = (start + _TAG.size) & 0xFFFF
    header = HEADER.pack(flags, burst, head, segment, start, offset)
    at = HEADER.size + _DESTINATION_AND_SOURCE
    return header + frame[HEADER.size : at] + _TAG.pack(protocol, tag) + frame[at:]


def flipped(frame: bytes, bit: int) -> bytes:
    """Flip one bit. The checksum is filled in first: it has to be wrong then."""
    body = bytearray(complete(frame))
    body[bit // 8] ^= 1 << bit % 8
    return bytes(HEADER.size) + bytes(body)


def complete(frame: bytes) -> bytes:
    """The frame as it is on a wire: without the header, its checksum filled in."""
    flags, _, _, _, start, offset = HEADER.unpack_from(frame)
    body = frame[HEADER.size :]
    if not flags & _NEEDS_CHECKSUM or start + offset + 2 > len(body):
        return body
    filled = bytearray(body)
    # The field holds the sum of the pseudo-header.
    _put(filled, start + offset, _checksum(filled[start:]) or 0xFFFF)  # to UDP 0 says: none
    return bytes(filled)


def _network(body: bytes) -> int:
    """Where the network layer begins: behind any tags."""
    at = _DESTINATION_AND_SOURCE
    while body[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += _TAG.size
    return at + 2


def _put(data: bytearray, at: int, value: int) -> None:
    data[at : at + 2] = (value & 0xFFFF).to_bytes(2, "big")


def _checksum(data: bytes | bytearray) -> int:
    """RFC 1071's."""
    return ~_sum(data) & 0xFFFF


def _sum(data: bytes | bytearray) -> int:
    total = sum(memoryview(bytes(data) + b"\0" * (len(data) % 2)).cast("H"))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFF) << 8 | total >> 8 if sys.byteorder == "little" else total
