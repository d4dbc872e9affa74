"""Which events have been carried out on which guests: the lab's one record of it. Pure."""

from collections.abc import Iterable

from hostagent.model import Event


class CarriedOut:
    """Filled when an event takes effect, emptied when no agent knows the event any more."""

    def __init__(self) -> None:
        self._on: dict[str, set[str]] = {}  # guests, by event

    def note(self, guest: str, events: Iterable[str]) -> None:
        """The events have been carried out on the guest."""
        for event_id in events:
            self._on.setdefault(event_id, set()).add(guest)

    def on(self, guest: str, event_id: str) -> bool:
        """Whether the event has been carried out on the guest."""
        return guest in self._on.get(event_id, ())

    def forget(self, event: Event) -> None:
        """The event is gone."""
        self._on.pop(event.id, None)
