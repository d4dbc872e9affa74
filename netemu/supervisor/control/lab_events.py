"""The maintenance events of the whole lab, merged from what each node's agent has. Pure.

An event of guests on several nodes has one ID with each of their agents, for an agent tells its own
guests only. Here it is one event, in the state furthest along at any node, and it never goes back.
"""

from collections.abc import Callable, Container, Iterator, Mapping
from functools import reduce
from typing import Final

from msgspec.structs import replace

from hostagent.model import FINAL, Event, EventStatus, joined

MOST_GONE: Final = 4096
"""Events that are gone, and still known: sixteen times as many as a node keeps of ended ones."""


class LabEvents:
    """Every event by its ID.

    `changed` is called with what was known of one (None: nothing) and what is (None: it is gone,
    and long ago). One that is gone may come back: a guest brings along what its old node has
    forgotten meanwhile.
    """

    def __init__(self, changed: Callable[[Event | None, Event | None], None]) -> None:
        self._changed = changed
        self._copies: dict[str, dict[str, Event]] = {}  # by event and node
        self._merged: dict[str, Event] = {}
        self._gone: dict[str, Event] = {}
        self._open: dict[str, Event] = {}
        self._apart: dict[str, None] = {}  # events that have not come equally far everywhere

    @property
    def all(self) -> Mapping[str, Event]:
        """Every event in the version that is furthest along, with the guests of all versions."""
        return self._merged

    @property
    def open(self) -> Mapping[str, Event]:
        """Those that may still have to be carried out: all but what was `settled`."""
        return self._open

    def settled(self, event_id: str) -> None:
        """Nothing is to be done for an event that has ended, unless it changes again."""
        self._open.pop(event_id, None)

    def take(self, node: str, event: Event) -> None:
        """A node's agent has this event, like this."""
        copies = self._copies.setdefault(event.id, {})
        if copies.get(node) != event:
            copies[node] = event
            self._merge(event.id)

    def acknowledged(self, node: str, event: Event) -> None:
        """A node's agent has answered this; its feed may have told of it, or of more, already."""
        known = self._copies.get(event.id, {}).get(node)
        if known is None or joined(known, event, ()).status is not known.status:
            self.take(node, event)

    def forget(self, node: str, event_id: str) -> None:
        """A node's agent no longer has this event."""
        copies = self._copies.get(event_id, {})
        if copies.pop(node, None) is None:
            return
        if copies:
            self._merge(event_id)
        else:
            self._apart.pop(event_id, None)
            self._open.pop(event_id, None)
            del self._copies[event_id]
            self._gone[event_id] = self._merged.pop(event_id)
            if len(self._gone) > MOST_GONE:
                self._changed(self._gone.pop(next(iter(self._gone))), None)

    def at(self, event_id: str) -> Mapping[str, Event]:
        """The event as each node's agent has it, by node."""
        return self._copies.get(event_id, {})

    def behind(self, nodes: Container[str]) -> Iterator[tuple[str, Event, EventStatus]]:
        """Return each event that has gone further elsewhere than at one of these nodes' agents: the
        node, what its agent has, and the status to be caught up with.

        A guest approves at its own node; a node that was away has missed what happened meanwhile;
        and the agent that a guest has left still has its events.
        """
        for event_id in self._apart:
            furthest = self._merged[event_id].status
            for node, event in self._copies[event_id].items():
                if node in nodes and _is_behind(event, furthest):
                    yield node, event, furthest

    def _merge(self, event_id: str) -> None:
        copies = self._copies[event_id].values()
        back = self._gone.pop(event_id, None)
        before, merged = self._merged.get(event_id, back), reduce(_merged, copies)
        if before is not None:  # the agent with the furthest version may have forgotten it
            merged = _merged(merged, before)
        if any(_is_behind(event, merged.status) for event in copies):
            self._apart[event_id] = None
        else:
            self._apart.pop(event_id, None)
        if merged != before or back is not None:
            self._merged[event_id] = self._open[event_id] = merged
        if merged != before:
            self._changed(before, merged)


def _is_behind(event: Event, furthest: EventStatus) -> bool:
    return event.status not in FINAL and event.status is not furthest


def _merged(one: Event, other: Event) -> Event:
    """The further of the two, with the guests of both: each agent may know of its own only."""
    guests = tuple(dict.fromkeys((*one.guests, *other.guests)))
    return replace(joined(one, other, ()), guests=guests)
