"""A node's state as its feed describes it: what every subscriber knows. Pure."""

from msgspec.structs import replace

from hostagent.channel.messages import Delta, Feed, Heartbeat, Snapshot
from hostagent.channel.requests import Placed
from hostagent.model import Event


class Gap(Exception):
    """The feed does not follow on from what is known; a new snapshot is needed."""


class Replica:
    """A node's guests and events, as of the last message from its agent.

    A subclass that needs to know of a change overrides the method that makes it.
    """

    def __init__(self) -> None:
        """Know nothing."""
        self.node = ""
        self.clock_offset = 0.0
        self.sequence = -1
        self.guests: dict[str, Placed] = {}
        self.events: dict[str, Event] = {}  # by id; also those that have ended
        self._parts: list[Snapshot] = []  # of a snapshot that is not complete yet

    def interrupted(self) -> None:
        """The feed's connection has ended: drop an incomplete snapshot."""
        self._parts.clear()

    def take(self, message: Feed) -> bool:
        """Apply a message of the feed, and return whether anything has changed.

        Raises Gap, and then nothing has changed.
        """
        match message:
            case Snapshot():
                return self._take_part(message)
            case Delta():
                if self._parts or message.sequence != self.sequence + 1:
                    raise Gap(f"delta {message.sequence} after {self.sequence}")
                self._change(message)
                return True
            case Heartbeat():
                if self._parts or message.sequence != self.sequence:
                    raise Gap(f"heartbeat {message.sequence} after {self.sequence}")
        return False

    def _take_part(self, part: Snapshot) -> bool:
        """Collect a snapshot's parts; it replaces the old state once it is complete."""
        if self._parts and self._parts[-1].sequence != part.sequence:
            self._parts.clear()
            raise Gap(f"part of snapshot {part.sequence} among those of another")
        self._parts.append(part)
        if part.more:
            return False
        parts, self._parts = self._parts, []
        self.node = part.node
        self.sequence = part.sequence
        self.clock_offset = part.clock_offset
        self._forget_all()
        for one in parts:
            for placed in one.guests:
                self._place(placed)
            self.events.update((event.id, event) for event in one.events)
        return True

    def _change(self, delta: Delta) -> None:
        self.sequence = delta.sequence
        if delta.clock_offset is not None:
            self.clock_offset = delta.clock_offset
        # Remove all before adding any: two guests may have exchanged their ports.
        for name in [*delta.withdrawn, *(placed.guest.name for placed in delta.placed)]:
            self._withdraw(name)
        for placed in delta.placed:
            self._place(placed)
        for event in delta.events:
            self.events[event.id] = event
            self._touch_event(event)
        for event_id in delta.forgotten:
            gone = self.events.pop(event_id, None)
            if gone is not None:
                self._touch_event(gone)
        for name, incarnation in delta.incarnations.items():
            known = self.guests.get(name)
            if known is not None:
                self.guests[name] = replace(known, incarnation=incarnation)
                self._touch(name)

    def _forget_all(self) -> None:
        self.guests.clear()
        self.events.clear()

    def _place(self, placed: Placed) -> None:
        self.guests[placed.guest.name] = placed

    def _withdraw(self, name: str) -> Placed | None:
        self._touch(name)
        return self.guests.pop(name, None)

    def _touch_event(self, event: Event) -> None:
        """The event is new, changed, or gone."""

    def _touch(self, name: str) -> None:
        """The guest, or an event that it can see, has changed."""
