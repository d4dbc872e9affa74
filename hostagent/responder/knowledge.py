"""What the agent has told, and the view of it that one guest may have. Pure.

`now` is monotonic here, in seconds: it serves to tell how old the knowledge is.
"""

from collections.abc import Callable, Collection
from typing import Final

from hostagent.channel.messages import Delta, Feed, Heartbeat, Placed, Snapshot
from hostagent.model import FINAL, Event, Guest, View, sees

STALE_AFTER: Final = 60.0
"""Seconds without a word from the agent after which nothing is answered any more. An agent that
restarts takes a second or two; a minute later a notice of five may have been missed in part."""


class Gap(Exception):
    """The feed does not follow on from what is known; a new snapshot is needed."""


class Knowledge:
    """A node's guests and events, as of the last message from its agent."""

    def __init__(self, stale_after: float = STALE_AFTER) -> None:
        """Know nothing; be stale `stale_after` seconds after the last message."""
        self.stale_after = stale_after
        self.node = ""
        self.clock_offset = 0.0
        self.sequence = -1
        self._heard: float | None = None
        self._guests: dict[str, Placed] = {}
        self._events: dict[str, Event] = {}
        self._members: dict[str, set[str]] = {}  # names of guests, by availability set
        self._by_port: dict[int, str] = {}
        self._by_address: dict[str, str] = {}
        self._views: dict[str, View] = {}  # made when asked for, dropped when they change
        self._parts: list[Snapshot] = []  # of a snapshot that is not complete yet
        self._touched: set[str] = set()  # names of guests whose views the message has changed
        self.watch: Callable[[Collection[str] | None], None] = lambda _names: None
        """Called after a change with the names of the guests whose views are others now; None: all
        of them, or the clock."""

    def fresh(self, now: float) -> bool:
        """Whether the agent has been heard within `stale_after`."""
        return self._heard is not None and now - self._heard <= self.stale_after

    def by_port(self, mark: int) -> View | None:
        """Give the view of the guest whose connections carry this mark."""
        return self._view(self._by_port.get(mark))

    def by_address(self, address: str) -> View | None:
        """Give the view of the guest with this address; the plain mode's weaker identity."""
        return self._view(self._by_address.get(address))

    def interrupted(self) -> None:
        """The feed's connection has ended; what is half received will not be completed."""
        self._parts.clear()

    def apply(self, message: Feed, now: float) -> None:
        """Take in a message of the feed; raises Gap, and then nothing has changed."""
        match message:
            case Snapshot():
                self._take_part(message)
            case Delta():
                if self._parts or message.sequence != self.sequence + 1:
                    raise Gap(f"delta {message.sequence} after {self.sequence}")
                self._change(message)
            case Heartbeat():
                if self._parts or message.sequence != self.sequence:
                    raise Gap(f"heartbeat {message.sequence} after {self.sequence}")
        self._heard = now
        touched, self._touched = self._touched, set()
        if isinstance(message, Snapshot):
            if not message.more:
                self.watch(None)
        elif isinstance(message, Delta):
            if message.clock_offset is not None:
                self.watch(None)
            elif touched:
                self.watch(touched)

    def _take_part(self, part: Snapshot) -> None:
        """Collect a snapshot's parts; the old knowledge stands until the new one is whole."""
        if self._parts and self._parts[-1].sequence != part.sequence:
            self._parts.clear()
            raise Gap(f"part of snapshot {part.sequence} among those of another")
        self._parts.append(part)
        if part.more:
            return
        parts, self._parts = self._parts, []
        self.node = part.node
        self.sequence = part.sequence
        self.clock_offset = part.clock_offset
        for index in (self._guests, self._events, self._members, self._by_port, self._by_address):
            index.clear()
        self._views.clear()
        for one in parts:
            for placed in one.guests:
                self._place(placed)
            self._events.update((event.id, event) for event in one.events)

    def _change(self, delta: Delta) -> None:
        self.sequence = delta.sequence
        if delta.clock_offset is not None:
            self.clock_offset = delta.clock_offset
        # First all out, then all in: two guests may have exchanged their ports.
        for name in [*delta.withdrawn, *(placed.guest.name for placed in delta.placed)]:
            self._withdraw(name)
        for placed in delta.placed:
            self._place(placed)
        for event in delta.events:
            self._events[event.id] = event
            self._forget_views(event)
        for event_id in delta.forgotten:
            gone = self._events.pop(event_id, None)
            if gone is not None:
                self._forget_views(gone)
        for name, incarnation in delta.incarnations.items():
            known = self._guests.get(name)
            if known is not None:
                self._guests[name] = Placed(
                    guest=known.guest, incarnation=incarnation, edits=known.edits
                )
                self._drop(name)

    def _place(self, placed: Placed) -> None:
        guest = placed.guest
        self._guests[guest.name] = placed
        if guest.port is not None:
            self._by_port[guest.port] = guest.name
        if guest.address is not None:
            self._by_address[guest.address] = guest.name
        if guest.availability_set is not None:
            self._members.setdefault(guest.availability_set, set()).add(guest.name)

    def _withdraw(self, name: str) -> None:
        placed = self._guests.pop(name, None)
        self._drop(name)
        if placed is None:
            return
        guest: Guest = placed.guest
        if guest.port is not None and self._by_port.get(guest.port) == name:
            del self._by_port[guest.port]
        if guest.address is not None and self._by_address.get(guest.address) == name:
            del self._by_address[guest.address]
        if guest.availability_set is not None:
            self._members[guest.availability_set].discard(name)
            if not self._members[guest.availability_set]:
                del self._members[guest.availability_set]

    def _forget_views(self, event: Event) -> None:
        for name in event.guests:
            self._drop(name)
        for name_of_set in event.availability_sets:
            for name in self._members.get(name_of_set, ()):
                self._drop(name)

    def _drop(self, name: str) -> None:
        self._views.pop(name, None)
        self._touched.add(name)

    def _view(self, name: str | None) -> View | None:
        if name is None:
            return None
        view = self._views.get(name)
        if view is None:
            placed = self._guests[name]
            mine = [event for event in self._events.values() if sees(placed.guest, event)]
            active = [event for event in mine if event.status not in FINAL]
            ended = [event for event in mine if event.status in FINAL]
            view = View(
                guest=placed.guest,
                incarnation=placed.incarnation,
                events=tuple(sorted(active, key=lambda event: event.not_before)),
                history=tuple(sorted(ended, key=lambda event: event.ended or 0.0, reverse=True)),
                edits=placed.edits,
            )
            self._views[name] = view
        return view
