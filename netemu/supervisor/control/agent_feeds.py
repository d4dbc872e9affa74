"""Follows the feeds of the nodes' agents. Runs in the supervisor."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from hostagent.channel.messages import Snapshot
from hostagent.channel.requests import Placed
from hostagent.controller import Watch
from hostagent.faults import MAX_FAULTS, Fault, in_words
from hostagent.model import FINAL, Event, EventStatus
from netemu.supervisor.control.event_log import EventLog
from netemu.supervisor.control.lab_events import LabEvents
from netemu.supervisor.control.store import Known, Store

# Clocks that differ by more, in seconds, are being moved, one node after another.
_APART = 1.0
# Faults of one guest that are known to be over: four times as many as it can have.
_OVER = 4 * MAX_FAULTS


class AgentFeeds:
    """Follows the agents of `nodes`; `poke` is called when one has said something new.

    `forgotten` is called with each event that no agent has any more.
    """

    def __init__(
        self,
        store: Store,
        nodes: Iterable[str],
        event_log: EventLog,
        forgotten: Callable[[Event], None] = lambda _event: None,
    ) -> None:
        self.lab = LabEvents(self._changed)
        self._store = store
        self._event_log = event_log
        self._forgotten = forgotten
        self._news = asyncio.Event()
        self._latest = 0.0
        self._faults: dict[str, dict[str, Fault]] = {}  # by guest, as last heard
        self._over: dict[str, deque[str]] = {}  # by guest, the last that are over
        self._feeds = {node: _Feed(node, self.lab, self.poke, self._placed) for node in nodes}

    async def run(self) -> None:
        """Follow all of them as long as the lab is up."""
        async with asyncio.TaskGroup() as group:
            for node, feed in self._feeds.items():
                group.create_task(self._store.watch(node, feed))

    def poke(self) -> None:
        """Wake everything that waits for news."""
        self._news.set()

    async def news(self, at_most: float | None) -> None:
        """Wait until there is news, or for this many seconds."""
        try:
            async with asyncio.timeout(at_most):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    @property
    def clock_offset(self) -> float:
        """Seconds that the metadata plane's clock is ahead of this machine's."""
        return max(feed.clock_offset for feed in self._feeds.values())

    def now(self) -> float:
        """The metadata plane's time, seconds since the epoch. It never goes back.

        When this machine's clock is set back the agents move theirs on by as much, a little later.
        """
        self._latest = max(self._latest, time.time() + self.clock_offset)
        return self._latest

    def heard(self, node: str) -> float | None:
        """When the node's agent last said anything, monotonic seconds; None: never."""
        return self._feeds[node].heard

    def known(self, node: str) -> Known:
        """The state of the node, as its agent has told it."""
        feed = self._feeds[node]
        return Known(feed.clock_offset, list(feed.guests.values()), list(feed.events.values()))

    def adopted(self, node: str, events: Iterable[Event], sequence: float) -> None:
        """The node's agent has had these events, from other nodes, since this sequence.

        Its feed may be late. If the other nodes forget the events meanwhile no node seems to have
        them, and what no node has is forgotten: it would be carried out a second time.
        """
        feed = self._feeds[node]
        if not feed.connected or feed.sequence < sequence:
            feed.expect(events)

    def events(self) -> Mapping[str, Event]:
        """Every event by its ID, in the version that is furthest along."""
        return self.lab.all

    def behind(self) -> Iterator[tuple[str, Event, EventStatus]]:
        """Each event that has gone further at another node's agent; see `LabEvents.behind`.

        There are none while a node's clock is behind: it is about to be moved, and what is due then
        comes by itself.
        """
        return self.lab.behind(self._feeds.keys() - self.late())

    def late(self) -> list[str]:
        """The nodes whose clocks are behind the lab's: one was moved, and they were not."""
        latest = self.clock_offset
        return [node for node, feed in self._feeds.items() if feed.clock_offset < latest - _APART]

    def _placed(self, guest: str, faults: Sequence[Fault]) -> None:
        """Log which faults of a guest are new, and which are over.

        A node that was away may tell once more of one that is over.
        """
        before = self._faults.get(guest, {})
        over = self._over.setdefault(guest, deque(maxlen=_OVER))
        now = {fault.id: fault for fault in faults if fault.id not in over}
        self._faults[guest] = now
        over.extend(before.keys() - now.keys())
        for fault in {**before, **now}.values():
            if (fault.id in now) != (fault.id in before):
                self._event_log.write(
                    "fault",
                    id=fault.id,
                    guest=guest,
                    state="added" if fault.id in now else "over",
                    does=in_words(fault),
                    path=fault.path,
                    times=fault.times,
                )

    def _changed(self, before: Event | None, event: Event | None) -> None:
        """Log each status that the event has gone through."""
        if event is None:
            assert before is not None
            self._forgotten(before)
            return
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
                approved_by=event.approved_by if status is EventStatus.STARTED else None,
            )


class _Feed(Watch):
    """One node's feed. It tells the lab of each event that is new, changed or gone."""

    def __init__(
        self,
        node: str,
        lab: LabEvents,
        changed: Callable[[], None],
        placed: Callable[[str, Sequence[Fault]], None],
    ) -> None:
        super().__init__(changed)
        self._tell_placed = placed
        self._name = node
        self._lab = lab

    def expect(self, events: Iterable[Event]) -> None:
        """The feed is about to tell of these events, or of more."""
        for event in events:
            self.events.setdefault(event.id, event)
            self._lab.acknowledged(self._name, event)

    def _place(self, placed: Placed) -> None:
        super()._place(placed)
        self._tell_placed(placed.guest.name, placed.faults)

    def _touch_event(self, event: Event) -> None:
        if event.id in self.events:
            self._lab.take(self._name, event)
        else:
            self._lab.forget(self._name, event.id)

    def _take_part(self, part: Snapshot) -> bool:
        before = set(self.events)
        whole = super()._take_part(part)
        if whole:
            for event in self.events.values():
                self._lab.take(self._name, event)
            for event_id in before - self.events.keys():
                self._lab.forget(self._name, event_id)
        return whole
