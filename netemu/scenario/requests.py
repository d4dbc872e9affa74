"""Judges what clients saw while guests were rebooted: counts, moves, problems. Pure.

Times are seconds since 1970.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from netemu.errors import NotSo


class Request(msgspec.Struct, frozen=True):
    """One line of the load's output: sent at `time`, over in `took` seconds.

    `server` is None if the request failed; `why` then says why.
    """

    time: float
    took: float
    client: str
    server: str | None
    ok: bool
    why: str | None = None


class Reboot(msgspec.Struct, frozen=True):
    """A guest's reboot: when it was announced, began, and the guest was in the pool again."""

    guest: str
    announced: float
    started: float
    back: float


class Move(msgspec.Struct, frozen=True):
    """A client was answered by another server than before.

    It asked at `time` and was answered at `until`.
    """

    time: float
    until: float
    client: str
    was: str
    now: str


class Run(msgspec.Struct, frozen=True):
    """One run under load, with or without drain agents; `requests` by time.

    `impaired`: whether the guests' wires lose frames, or delay them.
    """

    drained: bool
    requests: tuple[Request, ...]
    reboots: tuple[Reboot, ...]
    impaired: bool = False

    @property
    def failed(self) -> list[Request]:
        """Return the failed requests."""
        return [request for request in self.requests if not request.ok]

    def problems(self) -> list[str]:
        """Return the run's problems; none if it is as expected.

        With agents: a failed request, a client that moved although its guest was there, a guest
        that kept its clients while it was away. Without agents: that nothing failed, which would
        mean that no guest was rebooted.
        """
        if not self.drained:
            return [] if self.failed else ["without agents: no request failed"]
        moved = moves(self.requests)
        left = {move.was for move in moved}
        return [
            *([f"with agents: {len(self.failed)} requests failed"] if self.failed else []),
            # Where frames are lost HAProxy's own checks fail at times, and it moves clients.
            *(
                f"with agents: {move.client} left {move.was}, which was there"
                for move in unprovoked(moved, self.reboots)
                if not self.impaired
            ),
            *(
                f"with agents: nobody left {one.guest}, which was rebooted"
                for one in self.reboots
                if one.guest not in left
            ),
        ]

    def summary(self) -> dict[str, Any]:
        """Return the counts, for programs; `slowest` is of successful requests, in seconds."""
        moved = moves(self.requests)
        return {
            "agents": self.drained,
            "requests": len(self.requests),
            "failed": len(self.failed),
            "why": dict(Counter(one.why for one in self.failed).most_common()),
            "slowest": max((one.took for one in self.requests if one.ok), default=None),
            "clients": len({one.client for one in self.requests}),
            "moved": len({move.client for move in moved}),
            "moves": len(moved),
            "unprovoked": len(unprovoked(moved, self.reboots)),
            "problems": self.problems(),
            "reboots": [msgspec.to_builtins(one) for one in self.reboots],
        }


def read(lines: Iterable[str]) -> tuple[Request, ...]:
    """Parse the load's lines into requests, by time; raises NotSo for a malformed line."""
    found: list[Request] = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(msgspec.convert(json.loads(line), Request))
        except (ValueError, msgspec.ValidationError) as error:
            raise NotSo(f"the load's line {number} is not a request: {error}") from None
    return tuple(sorted(found, key=lambda request: request.time))


def moves(requests: Sequence[Request]) -> list[Move]:
    """Return the changes of clients' servers; failed requests are ignored."""
    answered: dict[str, list[tuple[Request, str]]] = {}
    for request in requests:
        if request.ok and request.server is not None:
            answered.setdefault(request.client, []).append((request, request.server))
    return [
        Move(asked.time, asked.time + asked.took, client, was, now)
        for client, many in answered.items()
        for (_, was), (asked, now) in pairwise(many)
        if was != now
    ]


def unprovoked(moved: Iterable[Move], reboots: Sequence[Reboot]) -> list[Move]:
    """Return the moves away from a guest that was neither rebooting nor about to."""
    return [
        move
        for move in moved
        if not any(
            one.guest == move.was and one.announced <= move.until and move.time <= one.back
            for one in reboots
        )
    ]


def per_second(requests: Sequence[Request], since: float) -> tuple[list[int], list[int]]:
    """Return the number of requests and of failed ones in each second from `since` on."""
    length = int(requests[-1].time - since) + 1 if requests else 0
    every, failed = [0] * length, [0] * length
    for request in requests:
        second = int(request.time - since)
        every[second] += 1
        failed[second] += not request.ok
    return every, failed
