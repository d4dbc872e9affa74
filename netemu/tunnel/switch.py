"""Which machine a frame of the tenant network is for. Pure.

As a VXLAN endpoint does, it learns from the frames that come: a station is where it was heard last.
Frames for everybody, and for a station that was not heard, go to all machines.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Generic, TypeVar

_GROUP: Final = 1  # the bit of a MAC's first octet: a frame for several
_MAC: Final = 6
# More stations than a tenant network has; beyond, frames go to all machines.
_MOST: Final = 4096

P = TypeVar("P")


class Switch(Generic[P]):
    """The machines of a lab, each a P."""

    def __init__(self) -> None:
        self._peers: tuple[P, ...] = ()
        self._stations: dict[bytes, P] = {}

    def become(self, peers: Iterable[P]) -> None:
        """Have these machines from now on. Stations of others may be anywhere."""
        self._peers = tuple(peers)
        self._stations = {mac: one for mac, one in self._stations.items() if one in self._peers}

    def heard(self, frame: bytes, peer: P) -> None:
        """A frame has come from a machine."""
        source = frame[_MAC : 2 * _MAC]
        if source in self._stations or len(self._stations) < _MOST:
            self._stations[source] = peer

    def machines(self, frame: bytes) -> Sequence[P]:
        """Where a frame goes that a guest here has sent."""
        peer = None if frame[0] & _GROUP else self._stations.get(frame[:_MAC])
        return self._peers if peer is None else (peer,)
