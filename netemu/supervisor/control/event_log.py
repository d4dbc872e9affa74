"""The log of what has happened in the lab, in order: kept for later questions, and sent to
followers. Runs in the supervisor.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

log = logging.getLogger(__name__)

# Entries kept for later questions: one every ten seconds for a day.
KEPT: Final = 10_000

Entry = dict[str, Any]


class EventLog:
    """Entries are maps: `time` (ISO 8601, UTC), `what`, and what belongs to it.

    `what` is `event` (a maintenance event's status), `fault` (of the metadata service), `guest`
    (its power, node, address or problem), `node` (its state), `store` (away or back), `machine`
    (one that is lost, and its guests) or `service` (a process of the lab's own that has ended).
    """

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._written = 0  # in all, also those that are no longer kept
        self._news = asyncio.Event()

    def write(self, what: str, **details: Any) -> None:
        """Log that something has happened now. A detail that is None is left out."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        told = {key: value for key, value in details.items() if value is not None}
        self._entries.append({"time": time, "what": what, **told})
        self._written += 1
        log.info("%s: %s", what, ", ".join(f"{key} {value}" for key, value in told.items()))
        news, self._news = self._news, asyncio.Event()
        news.set()

    def entries(self) -> list[Entry]:
        """The kept entries, oldest first."""
        return list(self._entries)

    async def follow(self) -> AsyncIterator[Entry]:
        """Yield the kept entries, and then each new one, without an end.

        A follower that is too slow misses the entries that are dropped meanwhile.
        """
        told = 0
        while True:
            news = self._news
            new = self._written - told
            told = self._written
            for entry in list(self._entries)[-new:] if new else ():
                yield entry
            if told == self._written:  # nothing was logged meanwhile
                await news.wait()
