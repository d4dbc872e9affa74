"""Commands of events and of the clock, to a running lab. Runs in the user's process.

The lab carries them out, at the agents of all nodes concerned: `supervisor.control.maintenance`.
"""

from collections.abc import Iterable
from typing import Any, Self

import msgspec

from hostagent.model import Event, EventSource, EventType
from netemu.wire import runtime_dir
from netemu.wire.control import ask


class Maintenance:
    """What befalls the guests of one running lab; a context manager. All raise NetemuError."""

    def __init__(self, lab: str) -> None:
        self._lab = runtime_dir.root() / lab

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def schedule(
        self,
        guests: Iterable[str],
        kind: EventType,
        *,
        notice: float | None,
        duration: float | None,
        source: EventSource = EventSource.PLATFORM,
        description: str = "",
        notice_only: bool = False,
    ) -> Event:
        """Plan an event in `notice` seconds (None: the type's least), of `duration` seconds.

        A notice of 0 starts it at once, as a hardware failure would; `notice_only` tells the guests
        and does nothing to them. If one of several nodes refuses, it is taken back from the others.
        """
        return self._event(
            "schedule",
            guests=list(guests),
            kind=str(kind),
            notice=notice,
            duration=duration,
            source=str(source),
            description=description,
            notice_only=notice_only,
        )

    def events(self, *, history: bool = False) -> list[Event]:
        """Give the events that have not ended, with `history` also others; earliest first."""
        answers, _ = ask(self._lab, "planned", history=history)
        return [msgspec.convert(one["event"], Event) for one in answers[:-1]]

    def approve(self, event_id: str) -> Event:
        """Start a scheduled event as its guests would; one that has started stays so."""
        return self._event("transition", action="approve", event_id=event_id)

    def start(self, event_id: str) -> Event:
        """Start a scheduled event now."""
        return self._event("transition", action="start", event_id=event_id)

    def complete(self, event_id: str) -> Event:
        """End a started event."""
        return self._event("transition", action="complete", event_id=event_id)

    def cancel(self, event_id: str) -> Event:
        """Take back a scheduled event."""
        return self._event("transition", action="cancel", event_id=event_id)

    def advance(self, seconds: float) -> float:
        """Move the metadata plane's clock forward on all nodes; gives its time then.

        Notices begin, events start and end, tokens expire; TCP and RFC 3927 take their time as
        ever. If a node does not do it, the others have: the error says which.
        """
        (told,), _ = ask(self._lab, "advance", seconds=seconds)
        return float(told["now"])

    def now(self) -> dict[str, float]:
        """Give the metadata plane's time at each node, in seconds since the epoch.

        Where no node runs it is the lab's, under the name "".
        """
        (told,), _ = ask(self._lab, "times")
        return dict(told["times"])

    def _event(self, verb: str, **arguments: Any) -> Event:
        (told,), _ = ask(self._lab, verb, **arguments)
        return msgspec.convert(told["event"], Event)
