"""Traces as mahimahi has them: when a link delivers, read from a file and played. Pure.

A trace is a text of whole numbers, one a line: the milliseconds at which the link could deliver
1,500 bytes. It is repeated when it ends.
"""

import zlib
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

# What an opportunity delivers: mahimahi's packet.
BYTES: Final = 1_500
# mahimahi's own longest, of an hour, has a third of this.
MAX_OPPORTUNITIES: Final = 1_000_000
MAX_MILLISECONDS: Final = 2**32 - 1


def read(text: str) -> Sequence[int]:
    """Read a trace: its opportunities, in milliseconds. Raises ValueError."""
    times = array("I")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        if not line.strip().isascii() or not line.strip().isdecimal():
            raise ValueError(f"line {number}: {line.strip()[:40]!r} is not a whole number")
        at = int(line) if len(line) < 20 else MAX_MILLISECONDS + 1
        if at > MAX_MILLISECONDS:
            raise ValueError(f"line {number}: {line.strip()[:40]} is more than 49 days")
        if times and at < times[-1]:
            raise ValueError(f"line {number}: {at} is before {times[-1]}: times do not go back")
        times.append(at)
        if len(times) > MAX_OPPORTUNITIES:
            raise ValueError(f"has more than {MAX_OPPORTUNITIES:,} lines")
    if not times or times[-1] == 0:
        raise ValueError("has to say a time after 0, in milliseconds, one a line")
    return times


def pack(times: Sequence[int]) -> bytes:
    """The trace as it travels: a third of a megabyte for an hour of a busy link."""
    return zlib.compress(array("I", times).tobytes())


def unpack(packed: bytes) -> Sequence[int]:
    """What `pack` was given. Raises ValueError for anything else."""
    longest = MAX_OPPORTUNITIES * array("I").itemsize
    times = array("I")
    try:
        times.frombytes(zlib.decompressobj().decompress(packed, longest))
    except zlib.error as error:
        raise ValueError(f"no packed trace: {error}") from None
    if not times or not times[-1]:
        raise ValueError("no packed trace: it has no end")
    return times


class Playing:
    """A trace that began at `begin`, seconds."""

    def __init__(self, times: Sequence[int], begin: float) -> None:
        self._times = times
        self._begin = begin
        self._next = 0  # the opportunity that is used now, counted over all rounds
        self._left = BYTES  # what is left of it

    def departure(self, length: int, now: float) -> float:
        """When the last of so many bytes that come now will have left."""
        first = self._first(now)
        if first > self._next:
            self._next, self._left = first, BYTES
        while length > self._left:
            length -= self._left
            self._next, self._left = self._next + 1, BYTES
        self._left -= length
        return max(now, self._at(self._next))

    def _first(self, now: float) -> int:
        """The first opportunity at `now` or later."""
        rounds, rest = divmod((now - self._begin) * 1000.0, self._times[-1])
        return int(rounds) * len(self._times) + bisect_left(self._times, rest)

    def _at(self, opportunity: int) -> float:
        rounds, place = divmod(opportunity, len(self._times))
        return self._begin + (rounds * self._times[-1] + self._times[place]) / 1000.0
