"""The link-local range, and the candidates that a MAC draws from it."""

from hashlib import blake2b
from ipaddress import IPv4Address
from typing import Final

NETWORK: Final = 0xA9FE_0000  # 169.254/16
BROADCAST: Final = 0xA9FE_FFFF
# RFC 3927 2.1: the first and last 256 addresses of 169.254/16 are reserved and must not be picked.
FIRST: Final = 0xA9FE_0100  # 169.254.1.0
LAST: Final = 0xA9FE_FEFF  # 169.254.254.255
PREFIX_LENGTH: Final = 16  # RFC 3927 2.8: never subnetted

# This address is in the range that guests draw from: the RFC asks for uniform draws over the whole
# range, and the node defends this address as any host would.
METADATA: Final = 0xA9FE_A9FE  # 169.254.169.254

# Azure's wire server: not link-local, but asked by way of the node alone.
WIRE_SERVER: Final = 0xA83F_8110  # 168.63.129.16

# Keeps the draws apart from any other use of blake2b on a MAC.
_PERSON: Final = b"rfc3927-2.1"


def claimable(address: int) -> bool:
    """Whether RFC 3927 2.1 lets a host pick this address."""
    return FIRST <= address <= LAST


def candidate(mac: bytes, n: int) -> int:
    """Return the `n`-th draw (from 0) for this MAC: always the same, uniform over the range.

    RFC 3927 2.1: hosts must not generate the same sequence, and a restarted host should pick the
    same address again. Hence the MAC is the seed. Eight bytes of hash over 65,024 addresses leave
    a bias of about 2**-48.
    """
    draw = blake2b(mac + n.to_bytes(8, "big"), digest_size=8, person=_PERSON).digest()
    return FIRST + int.from_bytes(draw, "big") % (LAST - FIRST + 1)


def to_text(address: int) -> str:
    """Return dotted decimal: "169.254.169.254" for 0xA9FEA9FE."""
    return f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"


METADATA_TEXT: Final = to_text(METADATA)
WIRE_SERVER_TEXT: Final = to_text(WIRE_SERVER)
NETWORK_TEXT: Final = to_text(NETWORK)
BROADCAST_TEXT: Final = to_text(BROADCAST)


def from_text(text: str) -> int:
    """Parse dotted decimal; raises ValueError with the text if it is not an address."""
    return int(IPv4Address(text))
