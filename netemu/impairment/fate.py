"""What happens to each frame of one direction of a wire, and when. Pure: no clock, no socket.

A frame passes, in this order: blackhole, loss, corruption, duplication, the queue's limit, rate or
trace, delay and jitter. Each of the five that draw has a stream of random numbers of its own, which
moves by one with each frame, whatever the terms are: the n-th frame of a seed always has the same
fate, and to change the delay does not change which frames are lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import NormalDist
from typing import Final, NamedTuple

from netemu.impairment.terms import CLEAN, Terms
from netemu.impairment.trace import Playing

_STREAMS: Final = ("loss", "corrupt", "duplicate", "reorder", "jitter", "model")
_NORMAL: Final = NormalDist()
# Bytes of a frame: a burst that was not cut takes the room of as many frames as it fills.
_FULL: Final = 1_515
# A normal distribution has no value for a draw of exactly 0.
_SMALLEST: Final = 1e-12


class Departure(NamedTuple):
    """A frame leaves at `due`; `flip` is the bit of it that is flipped, -1 is none.

    It takes the room of so many in the queue.
    """

    due: float
    flip: int
    room: int = 1


@dataclass
class Counts:
    """How many frames there were, and what happened to them."""

    heard: int = 0
    lost: int = 0
    blackholed: int = 0
    corrupted: int = 0
    duplicated: int = 0
    reordered: int = 0
    overflowed: int = 0


class Fate:
    """One direction of a wire. `name` tells its streams from others' of the same seed."""

    def __init__(self, seed: int, name: str, terms: Terms = CLEAN) -> None:
        self.counts = Counts()
        self.queued = 0
        draws = [Random(f"{seed}/{name}/{stream}").random for stream in _STREAMS]
        self._loss, self._corrupt, self._duplicate, self._reorder, self._jitter, self._model = draws
        self._bad = False  # the Gilbert-Elliott model's state
        self._free = 0.0  # when the link has sent all that it was given
        self._latest = 0.0  # the latest departure so far
        self._playing: Playing | None = None
        self.terms = CLEAN
        self.change(terms, {}, 0.0)

    def change(self, terms: Terms, traces: Mapping[str, Sequence[int]], now: float) -> None:
        """Have other terms from now on; a trace that is not the one before begins now."""
        if terms.trace != self.terms.trace:
            self._playing = Playing(traces[terms.trace], now) if terms.trace else None
        self.terms = terms

    def offer(self, length: int, now: float) -> list[Departure]:
        """A frame of so many bytes comes: its departures. `left` is to be called at each."""
        terms, counts = self.terms, self.counts
        counts.heard += 1
        lost = self._is_lost(terms)
        corrupt, duplicate = self._corrupt(), self._duplicate()
        reorder, jitter = self._reorder(), self._jitter()
        if terms.blackhole or terms.down:
            counts.blackholed += 1
            return []
        if lost:
            counts.lost += 1
            return []
        flip = -1
        if corrupt < terms.corrupt:
            counts.corrupted += 1
            flip = int(corrupt / terms.corrupt * length * 8)
        departures = []
        room = 1 + length // _FULL
        copies = 2 if duplicate < terms.duplicate else 1
        for copy in range(copies):
            if self.queued + room > terms.limit:
                counts.overflowed += 1
                break
            self.queued += room
            counts.duplicated += copy
            overtakes = reorder < terms.reorder
            departures.append(Departure(self._due(length, now, overtakes, jitter), flip, room))
        if departures and reorder < terms.reorder:
            counts.reordered += 1
        return departures

    def left(self, room: int = 1) -> None:
        """A departure has been made, of this room."""
        self.queued -= room

    def flush(self) -> None:
        """All that waits has been thrown away."""
        self.queued = 0
        self._free = self._latest = 0.0

    def _is_lost(self, terms: Terms) -> bool:
        drawn, turned = self._loss(), self._model()
        if terms.gemodel is None:
            return drawn < terms.loss
        to_bad, to_good, lost_in_bad, lost_in_good = terms.gemodel
        lost = drawn < (lost_in_bad if self._bad else lost_in_good)
        if turned < (to_good if self._bad else to_bad):
            self._bad = not self._bad
        return lost

    def _due(self, length: int, now: float, overtakes: bool, drawn: float) -> float:
        terms = self.terms
        leaves = now
        if self._playing is not None:
            leaves = self._playing.departure(length, now)
        elif terms.rate:
            leaves = self._free = max(self._free, now) + length * 8 / terms.rate
        if overtakes:
            return leaves
        due = leaves + terms.delay
        if terms.jitter:
            if terms.distribution == "normal":
                due += terms.jitter * _NORMAL.inv_cdf(max(drawn, _SMALLEST))
            else:
                due += terms.jitter * (2 * drawn - 1)
            due = max(due, leaves)
        if terms.ordered:
            due = max(due, self._latest)
        self._latest = max(self._latest, due)
        return due
