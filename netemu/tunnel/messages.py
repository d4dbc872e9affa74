"""What the supervisor and the carrier say to each other. Each goes in a packet of its own."""

from msgspec import Struct


class Hello(Struct, array_like=True, tag=True):
    """The carrier has begun, and knows nobody."""


class Peer(Struct, array_like=True, frozen=True):
    """Another machine in its present term, and where its packets come from and go to."""

    term: str
    host: str
    port: int


class Peers(Struct, array_like=True, tag=True):
    """All other machines that are there; the lab's secret; and this machine's own term."""

    secret: bytes
    term: str
    peers: list[Peer]
