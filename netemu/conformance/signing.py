"""Marks frames so that they are recognised wherever they turn up: an attack's, and the canaries
behind it.
"""

from typing import Final

_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
# The DSCP of an attack's IPv4 packets (RFC 2474); nothing else here sets one.
_DSCP: Final = 0x44
# What canaries carry instead of Ethernet's padding.
ATTACKERS, NODES = b"\xca\x9a", b"\xca\x9b"
_CANARY_LENGTH: Final = 52


def sign(whole: bytes, token: bytes) -> bytes:
    """The frame with the token behind it and in the IP header.

    A bridge that calls iptables cuts off what follows an IP packet.
    """
    frame = bytearray(whole)
    if frame[12:14] == _IPV4 and len(frame) >= 34 and frame[14] >> 4 == 4:
        _rewrite(frame, 14, bytes((frame[14], _DSCP)))
        _rewrite(frame, 18, token[2:4])
    elif frame[12:14] == _IPV6 and len(frame) >= 54:
        frame[16:18] = token[2:4]  # the flow label, which no checksum covers
    return bytes(frame) + token


def is_signed(frame: bytes, token: bytes) -> bool:
    """Whether this frame results from one that was signed with this token."""
    if token in frame:
        return True
    if frame[12:14] == _IPV4:
        return frame[15] == _DSCP and frame[18:20] == token[2:4]
    return frame[12:14] == _IPV6 and frame[16:18] == token[2:4]


def is_canary(frame: bytes) -> bool:
    """Whether it is a canary, of either kind."""
    return frame[42:44] in (ATTACKERS, NODES) and len(frame) == _CANARY_LENGTH


def _rewrite(frame: bytearray, at: int, word: bytes) -> None:
    """Replace a 16-bit word of an IPv4 header, and correct the checksum (RFC 1624)."""
    old = int.from_bytes(frame[at : at + 2], "big")
    checksum = int.from_bytes(frame[24:26], "big")
    total = (~checksum & 0xFFFF) + (~old & 0xFFFF) + int.from_bytes(word, "big")
    for _ in range(2):
        total = (total & 0xFFFF) + (total >> 16)
    frame[at : at + 2] = word
    frame[24:26] = (~total & 0xFFFF).to_bytes(2, "big")
