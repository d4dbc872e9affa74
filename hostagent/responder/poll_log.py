"""A record of what each guest has asked, and been told. In the responder's memory, and bounded.

Equal answers of one second share a row. `events_told` is what an answer says of events: pure.
"""

from collections import deque
from collections.abc import Collection, Sequence
from typing import Final

from hostagent.channel.messages import MAX_TOLD, Poll
from hostagent.http import Request
from hostagent.model import MAX_GUESTS, Event, EventType, concerns

ROWS: Final = 32768
LEAST_ROWS: Final = 32
MOST_ROWS: Final = 1024
"""Rows of a node, which its guests share equally, and bounds for one guest: 17 minutes of one that
asks each second. A row has some 300 bytes, or 1,100 if a guest wants it so: 36 MB at worst."""

MAX_TARGET: Final = 256
"""Characters of a target that are kept: more than any API's longest."""


class PollLog:
    """The latest rows of each guest."""

    def __init__(self, guests: Collection[str]) -> None:
        """`guests`: the names of those that are on the node."""
        self._guests = guests
        self._rows: dict[str, deque[Poll]] = {}

    def note(self, guest: str, poll: Poll) -> Poll:
        """Add an answer; returns its row, whose `count` is to grow if the answer is repeated."""
        rows = self._rows.get(guest)
        if rows is None:
            if len(self._rows) >= 2 * MAX_GUESTS:
                for name in [one for one in self._rows if one not in self._guests]:
                    del self._rows[name]
            rows = self._rows[guest] = deque()
        if rows and _same(rows[-1], poll):
            rows[-1].count += poll.count
            return rows[-1]
        rows.append(poll)
        most = min(max(ROWS // max(len(self._rows), 1), LEAST_ROWS), MOST_ROWS)
        while len(rows) > most:
            rows.popleft()
        return poll

    def of(self, guest: str) -> tuple[Poll, ...]:
        """Return the guest's rows, oldest first."""
        return tuple(self._rows.get(guest, ()))


def _same(last: Poll, poll: Poll) -> bool:
    return int(last.at) == int(poll.at) and (
        (last.method, last.target, last.status, last.told, last.fault)
        == (poll.method, poll.target, poll.status, poll.told, poll.fault)
    )


def target_of(request: Request) -> str:
    """Return the request's target, as far as it is kept."""
    path = request.path if request.query is None else f"{request.path}?{request.query}"
    return path[:MAX_TARGET]


def events_told(
    guest: str, events: Sequence[Event], request: Request, status: int, body: bytes
) -> tuple[str, ...]:
    """Return the IDs of the events that an answer tells the guest of.

    Azure and EC2 name events by ID. Where a cloud has one value for all (EC2's spot notice, GCE's
    `maintenance-event` and `preempted`), it tells of each event of that kind.
    """
    if status != 200 or not events:
        return ()
    path = request.path.rstrip("/")
    if body.strip() == b"NONE" or body.strip() == b"FALSE":
        return ()
    kinds: Collection[EventType] = ()
    if path.endswith(("/instance/preempted", "/recommendations/rebalance")) or "/spot/" in path:
        kinds = (EventType.PREEMPT,)
    elif path.endswith("/instance/maintenance-event"):
        kinds = (EventType.FREEZE,) if body.startswith(b"MIGRATE") else _ENDING
    told = [
        event.id
        for event in events
        if (event.type in kinds and concerns(event, guest))
        or event.id.encode() in body
        or event.id.replace("-", "")[:17].encode() in body
    ]
    return tuple(told[:MAX_TOLD])


_ENDING: Final = (EventType.REBOOT, EventType.REDEPLOY, EventType.TERMINATE)
