"""A node on another machine, as that machine tells of it in the store. Pure, except for `watch`.

Runs in the supervisor. Each guest and each event is a key of its own, so that a change is small.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from hostagent.channel.messages import Answer, Clock, Events, Guests, Responders, snapshot
from hostagent.channel.replica import Replica
from hostagent.channel.requests import ListEvents, ListGuests, Now, Placed, Query
from hostagent.controller import Watch
from hostagent.model import FINAL, Event
from netemu.etcd import Change

_CLOCK = "clock"


def state_of(known: Replica) -> Mapping[str, bytes]:
    """What is to be kept of a node, by the end of the key."""
    guests = {f"guests/{name}": msgspec.json.encode(one) for name, one in known.guests.items()}
    events = {f"events/{name}": msgspec.json.encode(one) for name, one in known.events.items()}
    return {_CLOCK: msgspec.json.encode(known.clock_offset), **guests, **events}


class RemoteNode:
    """What is known of it stays while its machine is away."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._clock_offset = 0.0
        self._guests: dict[str, Placed] = {}
        self._events: dict[str, Event] = {}
        self._sequence = 0
        self._watchers: list[Watch] = []

    def take(self, changes: Iterable[Change], *, whole: bool) -> None:
        """Take keys that have changed; `whole`: these are all keys."""
        if whole:
            self._guests.clear()
            self._events.clear()
        for change in changes:
            kind, name = change.key.split("/")[-2:]
            value = None if change.entry is None else change.entry.value
            if name == _CLOCK and kind == self._name:
                self._clock_offset = 0.0 if value is None else msgspec.json.decode(value)
            elif kind == "guests":
                _put(self._guests, name, value, Placed)
            elif kind == "events":
                _put(self._events, name, value, Event)
        self._sequence += 1
        for watcher in self._watchers:
            self._tell(watcher)

    def answer(self, question: Query) -> list[Answer]:
        """Answer as the node's agent would have when its machine told of it last."""
        match question:
            case Now():
                offset = self._clock_offset
                return [Clock(now=time.time() + offset, clock_offset=offset)]
            case ListGuests():
                return [Guests(guests=tuple(self._guests.values()))]
            case ListEvents():
                events = self._events.values()
                wanted = (one for one in events if question.history or one.status not in FINAL)
                return [Events(events=tuple(wanted))]
        return [Responders(sequence=self._sequence, applied=())]

    async def watch(self, watcher: Watch) -> None:
        """Tell the watcher what is known, and each change, until cancelled."""
        self._watchers.append(watcher)
        try:
            self._tell(watcher)
            await asyncio.Event().wait()
        finally:
            self._watchers.remove(watcher)

    def _tell(self, watcher: Watch) -> None:
        for part in snapshot(
            sequence=self._sequence,
            node=self._name,
            clock_offset=self._clock_offset,
            guests=self._guests.values(),
            events=self._events.values(),
        ):
            watcher.received(part)


def _put(known: dict[str, Any], name: str, value: bytes | None, kind: type) -> None:
    if value is None:
        known.pop(name, None)
    else:
        known[name] = msgspec.json.decode(value, type=kind)
