"""Watches a lab while rows are played in it: journals, the responders' log, and events.

Runs in the user's process. It changes nothing.
"""

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

from hostagent.model import Event
from netemu.client import labs
from netemu.client.async_maintenance import AsyncMaintenance
from netemu.conformance.agent.records import Mark, Request

LOOK_EVERY: Final = 0.2
"""Seconds between two looks: an eighth of the quickest agent's poll."""

_ACCESS: Final = re.compile(
    r"^(\S+ \S+) responder\S* INFO access caller=\S+ guest=(\S+) status=(\d+) (\S+) (.*)$"
)


class Watch:
    """What is known of a lab's guests so far."""

    def __init__(self, lab: str, work: Path, guests: Iterable[str]) -> None:
        self.marks: dict[str, list[Mark]] = defaultdict(list)
        self.requests: dict[str, list[Request]] = defaultdict(list)
        self.events: dict[str, Event] = {}
        self._lab = lab
        self._journals = {guest: work / f"{guest}.journal" for guest in guests}
        self._files: dict[str, IO[str]] = {}
        self._rest: dict[str, str] = defaultdict(str)

    async def run(self) -> None:
        """Watch until it is cancelled."""
        async with AsyncMaintenance(self._lab) as plan:
            while True:
                self.look()
                self.events = {one.id: one for one in await plan.events(history=True)}
                await asyncio.sleep(LOOK_EVERY)

    def look(self) -> None:
        """Read what is new in the files."""
        for line in self._new("", labs.log_file(self._lab)):
            if (found := _ACCESS.match(line)) is not None:
                at = datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S,%f").astimezone()
                self.requests[found[2]].append(
                    Request(found[2], at.timestamp(), found[4], found[5], int(found[3]))
                )
        for guest, path in self._journals.items():
            for line in self._new(guest, path):
                try:
                    told = json.loads(line)
                    mark = Mark(guest, float(told["at"]), str(told["what"]), str(told["text"]))
                except (ValueError, LookupError, TypeError):
                    continue  # a guest's root may write anything there
                self.marks[guest].append(mark)

    def _new(self, key: str, path: Path) -> list[str]:
        """Return the whole lines that a file has got since the last call."""
        try:
            file = self._files.get(key) or path.open(errors="replace")
        except OSError:
            return []
        self._files[key] = file
        if path.stat().st_size < file.tell():
            file.seek(0)  # a log that was at its limit
        *lines, self._rest[key] = (self._rest[key] + file.read()).split("\n")
        return lines

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def clock(at: float) -> str:
    """A time of day, UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S.%f}"[:-3]
