"""Commands of events and of the clock, for programs on asyncio. Runs in the user's process.

The same as `netemu.client.maintenance`, which says more of each; nothing here starts a thread.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Any, Self

import msgspec

from hostagent.model import Event
from netemu.client import labs
from netemu.client.attached import Duration, Kind, Source, planned
from netemu.wire import runtime_dir
from netemu.wire.asking import ask, listen


class AsyncMaintenance:
    """Events of one running lab: `async with` makes it. All methods raise NetemuError."""

    def __init__(self, lab: str | None = None) -> None:
        """Without a name it is the only lab that runs. Raises NotSo and BadInput."""
        self._lab = runtime_dir.root() / labs.the_one(lab)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def schedule(
        self,
        guests: str | Iterable[str],
        kind: Kind,
        *,
        notice: Duration | None = None,
        duration: Duration | None = None,
        impact: bool = True,
        source: Source = "platform",
        description: str = "",
    ) -> Event:
        """Plan an event, as `netemu.Lab.schedule` does."""
        wanted = planned(guests, kind, notice, duration, impact, source, description)
        return await self._event("schedule", **wanted)

    async def events(self, *, history: bool = False) -> list[Event]:
        """Give the events that have not ended, with `history` also others; earliest first."""
        answers = await ask(self._lab, "planned", history=history)
        return [msgspec.convert(one["event"], Event) for one in answers[:-1]]

    async def approve(self, event_id: str) -> Event:
        """Start a scheduled event as its guests would; one that has started stays so."""
        return await self._event("transition", action="approve", event_id=event_id)

    async def start(self, event_id: str) -> Event:
        """Start a scheduled event now."""
        return await self._event("transition", action="start", event_id=event_id)

    async def complete(self, event_id: str) -> Event:
        """End a started event."""
        return await self._event("transition", action="complete", event_id=event_id)

    async def cancel(self, event_id: str) -> Event:
        """Take back a scheduled event."""
        return await self._event("transition", action="cancel", event_id=event_id)

    async def advance(self, seconds: float) -> float:
        """Move the metadata plane's clock forward on all nodes; gives its time then."""
        (told,) = await ask(self._lab, "advance", seconds=seconds)
        return float(told["now"])

    def happening(self) -> AsyncIterator[dict[str, Any]]:
        """What has happened and what happens, as `netemu events --follow --json` prints it."""
        return listen(self._lab, "follow")

    async def _event(self, verb: str, **arguments: Any) -> Event:
        (told,) = await ask(self._lab, verb, **arguments)
        return msgspec.convert(told["event"], Event)
