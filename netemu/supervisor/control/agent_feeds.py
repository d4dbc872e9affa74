"""What the nodes' agents say of their events, as one: heard from each feed as it changes."""

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence

from msgspec.structs import replace

from hostagent.controller import Watch
from hostagent.model import FINAL, Event, EventStatus, joined
from netemu.supervisor.control.agents import Known
from netemu.supervisor.control.event_log import EventLog
from netemu.supervisor.nodes.node_services import NodeServices

log = logging.getLogger(__name__)

# Clocks that differ by more, in seconds, are just being moved, one node after another.
_APART = 1.0


class AgentFeeds:
    """Follows the agents of `hosts`; `poke` is called whenever one has said something new."""

    def __init__(self, hosts: Sequence[NodeServices], event_log: EventLog) -> None:
        self._event_log = event_log
        self._news = asyncio.Event()
        self._told: dict[str, Event] = {}
        self._latest = 0.0
        self._watches = {host.name: Watch(host.feed, self.poke) for host in hosts}

    async def run(self) -> None:
        """Follow all of them, for as long as the lab is up."""
        await asyncio.gather(*(watch.follow() for watch in self._watches.values()))

    def poke(self) -> None:
        """Have whoever waits look again."""
        self._news.set()

    async def news(self, at_most: float | None) -> None:
        """Wait until there is something new, or for so many seconds."""
        try:
            async with asyncio.timeout(at_most):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    @property
    def clock_offset(self) -> float:
        """Seconds that the metadata plane's clock is ahead of this machine's."""
        return max(watch.clock_offset for watch in self._watches.values())

    def now(self) -> float:
        """The metadata plane's time, seconds since the epoch. It never goes back.

        When this machine's clock is set back the agents move theirs on by as much, a little later.
        """
        self._latest = max(self._latest, time.time() + self.clock_offset)
        return self._latest

    def heard(self, node: str) -> float | None:
        """When the node's agent last said anything, monotonic seconds; None: never."""
        return self._watches[node].heard

    def known(self, node: str) -> Known:
        """What the node's agent has told of all that it knows."""
        watch = self._watches[node]
        return Known(watch.clock_offset, list(watch.guests.values()), list(watch.events.values()))

    def holders(self, event_id: str, status: EventStatus) -> list[str]:
        """The nodes whose agents have the event in this status."""
        return [
            node
            for node, watch in self._watches.items()
            if (event := watch.events.get(event_id)) is not None and event.status is status
        ]

    def behind(self) -> Iterator[tuple[str, Event, EventStatus]]:
        """Give each event that has gone further at another node's agent: the node, what its agent
        has, and the status to be caught up with.

        A guest approves at its own node; a node that was away has missed what happened meanwhile;
        and the agent that a guest has left still has its events. While a node's clock is behind
        nothing is: it is about to be moved like the others', and what is due comes by itself.
        """
        latest = self.clock_offset
        for node, watch in self._watches.items():
            if watch.clock_offset < latest - _APART:
                continue
            for event in watch.events.values():
                furthest = self._told.get(event.id, event).status
                if event.status not in FINAL and event.status is not furthest:
                    yield node, event, furthest

    def events(self) -> Mapping[str, Event]:
        """Every event by its ID, as the agent has it that is furthest; notes what is new."""
        merged: dict[str, Event] = {}
        for watch in self._watches.values():
            for event_id, event in watch.events.items():
                other = merged.get(event_id)
                merged[event_id] = event if other is None else _merged(other, event)
        for event_id, event in merged.items():
            self._note(self._told.get(event_id), event)
        self._told = merged
        return merged

    def _note(self, before: Event | None, event: Event) -> None:
        """Write down each status that the event has gone through since the last look."""
        passed = []
        if before is None:
            passed.append(EventStatus.SCHEDULED)
        if event.started is not None and (before is None or before.started is None):
            passed.append(EventStatus.STARTED)
        if event.status in FINAL and (before is None or before.status not in FINAL):
            passed.append(event.status)
        for status in passed:
            self._event_log.write(
                "event",
                id=event.id,
                type=str(event.type),
                status=str(status),
                guests=list(event.guests),
                description=event.description or None,
            )


def _merged(one: Event, other: Event) -> Event:
    """The further of the two, with the guests of both: each agent may know of its own only."""
    guests = tuple(dict.fromkeys((*one.guests, *other.guests)))
    return replace(joined(one, other, ()), guests=guests)
