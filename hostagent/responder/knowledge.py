"""The node's state as the agent has sent it, and the view of each guest. Pure.

`now` is the event loop's time in seconds, and is used only for the knowledge's age.
"""

from collections.abc import Callable, Collection
from math import inf
from typing import Final

from hostagent.channel.messages import Delta, Feed, Snapshot
from hostagent.channel.replica import Replica
from hostagent.channel.requests import Placed
from hostagent.faults import Fault
from hostagent.model import FINAL, Event, Guest, View

STALE_AFTER: Final = 60.0
"""Seconds of silence of the agent after which requests are no longer answered. An agent restarts in
a second or two. After a minute, part of a notice of five minutes may have been missed."""


class Knowledge(Replica):
    """A node's guests and events by identity, as of the last message from its agent."""

    def __init__(self, stale_after: float = STALE_AFTER) -> None:
        """Know nothing; be stale `stale_after` seconds after the last message."""
        super().__init__()
        self.stale_after = stale_after
        self._heard = -inf
        self._arrived: dict[str, int] = {}  # each guest's incarnation when it came to this node
        self._members: dict[str, dict[str, None]] = {}  # names of guests, by availability set
        self._by_port: dict[int, str] = {}
        self._by_address: dict[str, str] = {}
        self._events_of: dict[str, dict[str, Event]] = {}  # by guest, and by availability set
        self._events_of_set: dict[str, dict[str, Event]] = {}
        self._touched: dict[str, None] = {}  # names of guests whose views the message has changed
        self.watch: Callable[[Collection[str] | None], None] = lambda _names: None
        """Called after a change with the names of the guests whose views changed; None: all views,
        or the clock."""

    def fresh(self, now: float) -> bool:
        """Whether the agent has been heard within `stale_after`."""
        return now <= self.fresh_until

    @property
    def fresh_until(self) -> float:
        """The last moment at which the knowledge is fresh; minus infinity before any message."""
        return self._heard + self.stale_after

    def by_port(self, mark: int) -> View | None:
        """Return the view of the guest whose connections carry this mark."""
        return self._view(self._by_port.get(mark))

    def by_address(self, address: str) -> View | None:
        """Return the view of the guest with this address: the weaker identity of the plain mode."""
        return self._view(self._by_address.get(address))

    def faults_of(self, name: str) -> tuple[Fault, ...]:
        """Return what the guest's requests may meet."""
        return self.guests[name].faults

    def apply(self, message: Feed, now: float) -> None:
        """Apply a message of the feed; raises Gap, and then nothing has changed."""
        changed = self.take(message)
        if changed:
            self._note_arrivals(message)
        if changed and isinstance(message, Snapshot):
            for event in self.events.values():
                self._file(event)
        self._heard = now
        touched, self._touched = self._touched, {}
        if isinstance(message, Delta) and message.clock_offset is None:
            if touched:
                self.watch(touched.keys())
        elif changed:
            self.watch(None)

    def _note_arrivals(self, message: Feed) -> None:
        """Note who is new here, and forget who has left; a new snapshot alone changes neither."""
        if isinstance(message, Delta):
            for name in message.withdrawn:
                self._arrived.pop(name, None)
            new = message.placed
        else:
            stayed = self.guests.keys() & self._arrived.keys()
            self._arrived = {name: self._arrived[name] for name in stayed}
            new = tuple(self.guests.values())
        for placed in new:
            self._arrived.setdefault(placed.guest.name, placed.incarnation)

    def _forget_all(self) -> None:
        super()._forget_all()
        for index in (self._members, self._by_port, self._by_address):
            index.clear()
        self._events_of.clear()
        self._events_of_set.clear()

    def _place(self, placed: Placed) -> None:
        super()._place(placed)
        guest = placed.guest
        if guest.port is not None:
            self._by_port[guest.port] = guest.name
        if guest.address is not None:
            self._by_address[guest.address] = guest.name
        if guest.availability_set is not None:
            self._members.setdefault(guest.availability_set, {})[guest.name] = None

    def _withdraw(self, name: str) -> Placed | None:
        placed = super()._withdraw(name)
        if placed is None:
            return None
        guest: Guest = placed.guest
        if guest.port is not None and self._by_port.get(guest.port) == name:
            del self._by_port[guest.port]
        if guest.address is not None and self._by_address.get(guest.address) == name:
            del self._by_address[guest.address]
        if guest.availability_set is not None:
            self._members[guest.availability_set].pop(name, None)
            if not self._members[guest.availability_set]:
                del self._members[guest.availability_set]
        return placed

    def _touch_event(self, event: Event) -> None:
        self._file(event)
        for name in event.guests:
            self._touch(name)
        for name_of_set in event.availability_sets:
            for name in self._members.get(name_of_set, ()):
                self._touch(name)

    def _file(self, event: Event) -> None:
        """Index the event, or remove it, by the guests and sets that see it, so that making a view
        does not search all events of the node.
        """
        for index, names in (
            (self._events_of, event.guests),
            (self._events_of_set, event.availability_sets),
        ):
            for name in names:
                if event.id in self.events:
                    index.setdefault(name, {})[event.id] = event
                elif name in index:
                    index[name].pop(event.id, None)
                    if not index[name]:
                        del index[name]

    def _touch(self, name: str) -> None:
        self._touched[name] = None

    def _view(self, name: str | None) -> View | None:
        if name is None:
            return None
        placed = self.guests[name]
        filed = self._events_of.get(name, {})
        if of_set := self._events_of_set.get(placed.guest.availability_set or ""):
            filed = {**filed, **of_set}
        events: tuple[Event, ...] = ()
        history: tuple[Event, ...] = ()
        if filed:
            active = [event for event in filed.values() if event.status not in FINAL]
            ended = [event for event in filed.values() if event.status in FINAL]
            events = tuple(sorted(active, key=lambda event: event.not_before))
            history = tuple(sorted(ended, key=lambda event: event.ended or 0.0, reverse=True))
        return View(
            guest=placed.guest,
            incarnation=placed.incarnation,
            events=events,
            history=history,
            edits=placed.edits,
            arrived=self._arrived.get(placed.guest.name, 1),
            written=placed.written,
        )
