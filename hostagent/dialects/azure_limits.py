"""How Azure paces a guest: requests a second, requests at once, and when events begin. Pure."""

from collections import deque
from typing import Final

from hostagent.model import MAX_GUESTS
from hostagent.rates import Rate

RATE: Final = 5.0
"""Requests a second from one guest: Azure's own limit."""

IDENTITY_RATE: Final = 20.0
IDENTITY_AT_ONCE: Final = 5
"""Token requests of one guest a second, and at the same time: Azure's own limits."""

IDENTITY_TAKES: Final = 1 / IDENTITY_RATE
"""Seconds for which a token request counts as being answered, so that two can be simultaneous. A
client that waits for each answer before it asks again is never refused."""

EVENTS_END: Final = 24 * 3600.0
"""Seconds without a request for events after which they are switched off."""


class AtOnce:
    """Up to IDENTITY_AT_ONCE requests of each name at a time, each of which takes a while."""

    def __init__(self) -> None:
        """None is under way."""
        self._ends: dict[str, deque[float]] = {}

    def begins(self, name: str, now: float) -> float | None:
        """Return when the request that begins now will end; None if there are too many."""
        if len(self._ends) >= MAX_GUESTS and name not in self._ends:
            self._ends.clear()
        ends = self._ends.setdefault(name, deque())
        while ends and not now < ends[0] <= now + IDENTITY_TAKES:  # over, or the clock was set
            ends.popleft()
        if len(ends) >= IDENTITY_AT_ONCE:
            return None
        ends.append(now + IDENTITY_TAKES)
        return ends[-1]


class Beginnings:
    """When each name's events begin: `delay` seconds after its first request, and after its first
    request since they were switched off.
    """

    def __init__(self, delay: float) -> None:
        """With a delay of 0 events are always on."""
        self._delay = delay
        self._known: dict[str, tuple[float, float]] = {}  # the beginning, and the last request

    def asked(self, name: str, now: float) -> float:
        """Return when the events of the name that asks now have begun, or will."""
        if not self._delay:
            return now
        begin, last = self._known.get(name, (now + self._delay, now))
        if now - last > EVENTS_END:
            begin = now + self._delay
        if len(self._known) >= MAX_GUESTS and name not in self._known:
            self._known.clear()
        self._known[name] = begin, now
        return begin


def rates(rate: float) -> tuple[Rate, Rate]:
    """Return the limit of a guest's requests, `rate` a second, and that of its token requests;
    0: neither has one.
    """
    identity = IDENTITY_RATE if rate else 0.0
    return Rate(rate, max(rate, 1.0), MAX_GUESTS), Rate(identity, IDENTITY_RATE, MAX_GUESTS)
