"""Packets between the machines of a lab: a VXLAN header, a frame, a number and a tag. Pure.

The tag is keyed by a secret that the lab's machines share, and by the sender's term: nobody else
makes a packet, changes one, or says that it is another machine's. The number refuses a packet that
comes twice. The frame can be read by anybody on the way, as with any VXLAN. A reader of VXLAN that
knows nothing of the number and the tag takes them for a trailer.
"""

import struct
from hashlib import blake2b
from hmac import compare_digest
from typing import Final

_HEADER: Final = struct.Struct("!II")
_HAS_VNI: Final = 0x08 << 24
_NUMBER: Final = struct.Struct("!Q")
_TAG: Final = 16
OVERHEAD: Final = _HEADER.size + _NUMBER.size + _TAG
# An Ethernet header; and among how many numbers the network may change the order.
_SHORTEST: Final = 14
_WINDOW: Final = 1024
_NEWEST: Final = (1 << _WINDOW) - 1


def _header(secret: bytes) -> bytes:
    """The header of all packets of a lab, whose VNI is drawn from its secret."""
    vni = int.from_bytes(blake2b(secret, digest_size=3, person=b"vni").digest(), "big")
    return _HEADER.pack(_HAS_VNI, vni << 8)


def _key(secret: bytes, term: str) -> bytes:
    return blake2b(term.encode(), key=secret, digest_size=32).digest()


class Sealer:
    """Makes the packets of a machine's term, numbered from `first` on.

    The time in nanoseconds is such a first number: one that seals again is ahead of the one before.
    """

    def __init__(self, secret: bytes, term: str, first: int) -> None:
        self._header = _header(secret)
        self._key = _key(secret, term)
        self._number = first

    def seal(self, frame: bytes) -> bytes:
        """Return the packet that carries the frame."""
        self._number += 1
        packet = self._header + frame + _NUMBER.pack(self._number)
        return packet + blake2b(packet, key=self._key, digest_size=_TAG).digest()


class Opener:
    """Opens the packets of a machine's term, each once."""

    def __init__(self, secret: bytes, term: str) -> None:
        self._header = _header(secret)
        self._key = _key(secret, term)
        self._highest = 0
        self._seen = 0  # bit n: the number that is n below the highest has come

    def open(self, packet: bytes) -> bytes | None:
        """Return the frame; None: it is not that machine's, has come before, or is too late."""
        if len(packet) < OVERHEAD + _SHORTEST or not packet.startswith(self._header):
            return None
        sealed, tag = packet[:-_TAG], packet[-_TAG:]
        if not compare_digest(blake2b(sealed, key=self._key, digest_size=_TAG).digest(), tag):
            return None
        (number,) = _NUMBER.unpack(sealed[-_NUMBER.size :])
        if not self._is_new(number):
            return None
        return sealed[_HEADER.size : -_NUMBER.size]

    def _is_new(self, number: int) -> bool:
        behind = self._highest - number
        if behind < 0:
            self._seen = 1 if -behind >= _WINDOW else (self._seen << -behind | 1) & _NEWEST
            self._highest = number
            return True
        if behind >= _WINDOW or self._seen >> behind & 1:
            return False
        self._seen |= 1 << behind
        return True
