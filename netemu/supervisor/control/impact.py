"""Carries events out: what the agents say has started really happens to the guests.

What an event demands, and by which actions a guest gets there, is
`netemu.supervisor.guests.power`'s to say; here is who looks, and when. An event of unknown
duration is over when it has been carried out.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from hostagent.controller import AgentUnreachable, CommandRefused, Controller
from hostagent.model import Event, EventStatus, EventType
from netemu.errors import NetemuError, NotSo
from netemu.supervisor.control.agent_feeds import AgentFeeds
from netemu.supervisor.control.event_log import EventLog
from netemu.supervisor.control.placement import Placement
from netemu.supervisor.control.relocation import Relocation
from netemu.supervisor.guests.hardware import Hardware
from netemu.supervisor.guests.power import (
    LINGERS,
    Action,
    Power,
    demand,
    demands_until,
    plan,
    severest,
)

log = logging.getLogger(__name__)

# While something is under way (a guest claims its address, an event lasts), a look comes so often.
_BUSY: Final = 0.1
# … and otherwise so seldom: what changes pokes.
_IDLE: Final = 5.0
# After an action that failed the guest is looked at again.
_RETRY: Final = 1.0


class Impact:
    """What happens to the guests of one lab."""

    def __init__(
        self,
        hardware: Hardware,
        placement: Placement,
        relocation: Relocation,
        watching: AgentFeeds,
        event_log: EventLog,
    ) -> None:
        self._hardware = hardware
        self._placement = placement
        self._relocation = relocation
        self._watching = watching
        self._event_log = event_log
        self._events: dict[str, list[Event]] = {}  # those of each guest
        self._asked: set[str] = set()  # guests that somebody has rebooted
        self._drivers: dict[str, asyncio.Task[None]] = {}
        self._booting: set[str] = set()
        self._carried_out: dict[str, float] = {}  # events, and when they were
        self._telling: set[tuple[str, str]] = set()  # what an agent is being told of which event
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Look whenever there is something new, for as long as the lab is up."""
        while True:
            busy = self._look()
            await self._watching.news(_BUSY if busy else _IDLE)

    async def reboot(self, guest: str) -> None:
        """Reboot a guest, event or none; it is booting when this returns.

        Raises NotSo if it is gone, or its node has failed.
        """
        if self._hardware.power(guest) is Power.GONE:
            raise NotSo(f"{guest} is gone")
        if self._relocation.host_failed(guest):
            raise NotSo(f"{guest}: its node {self._hardware.node_of(guest).node.name} has failed")
        self._asked.add(guest)
        while guest in self._asked:
            await self._drive(guest)

    def _look(self) -> bool:
        """Have everything done that is due; whether something is under way."""
        events = self._watching.events()
        self._events = {name: [] for name in self._hardware}
        for event in events.values():
            if event.started is not None and not event.notice_only:
                for name in event.guests:
                    if name in self._events:
                        self._events[name].append(event)
        for name in self._hardware:
            if name not in self._drivers and self._is_due(name):
                self._drive(name)
        for name in [one for one in self._booting if self._hardware.bound(one)]:
            self._booting.discard(name)
            self._note(name, state="bound")
        lasting = [event for event in events.values() if event.status is EventStatus.STARTED]
        self._follow_suit()
        self._finish(lasting)
        for name, endured in self._hardware.endured.items():
            endured.intersection_update(events.keys() | self._told_of(name))
        return bool(lasting or self._booting or self._drivers)

    # One guest.

    def _is_due(self, name: str) -> bool:
        fresh, wanted = self._due(name)
        return bool(fresh) or (self._hardware.power(name) not in (wanted, Power.GONE))

    def _due(self, name: str) -> tuple[list[Event], Power]:
        """The events that are to be carried out on a guest, and what all of them demand of it."""
        now = self._watching.now()
        events = self._events.get(name, [])
        endured = self._hardware.endured[name]
        fresh = [event for event in events if event.id not in endured]
        failed = [Power.OFF] if self._relocation.host_failed(name) else []
        wanted = severest([*(demand(event, now) for event in events), *failed])
        return sorted(fresh, key=lambda event: event.started or 0.0), wanted

    def _drive(self, name: str) -> asyncio.Task[None]:
        """Bring a guest to where it has to be; one at a time does."""
        if name not in self._drivers:
            self._drivers[name] = asyncio.create_task(self._bring(name))
        return self._drivers[name]

    async def _bring(self, name: str) -> None:
        try:
            while True:
                fresh, wanted = self._due(name)
                begun = [event.type for event in fresh]
                if name in self._asked:
                    begun.append(EventType.REBOOT)
                actions = plan(self._hardware.power(name), begun, wanted)
                self._hardware.endured[name].update(event.id for event in fresh)
                self._asked.discard(name)
                if not actions:
                    return
                for action in actions:
                    await self._do(name, action, fresh)
        except (NetemuError, OSError) as error:
            log.error("%s: %s", name, error)
            self._note(name, problem=str(error))
            await asyncio.sleep(_RETRY)
        finally:
            del self._drivers[name]
            self._watching.poke()

    async def _do(self, name: str, action: Action, events: Iterable[Event]) -> None:
        if action is Action.MOVE:
            try:
                await self._relocation.move(name)
            except NotSo as error:
                self._note(name, problem=f"it stays where it is: {error}")
            return
        await self._hardware.do(name, action)
        self._note(name, power=str(self._hardware.power(name)), events=[one.id for one in events])
        if action is Action.BOOT:
            self._booting.add(name)
        elif action is Action.REMOVE:
            node = self._hardware.node_of(name).node.name
            await self._placement.remove(node, name)
        # Many guests may be concerned: whoever asks something meanwhile gets an answer.
        await asyncio.sleep(0)

    def _note(self, name: str, **details: Any) -> None:
        node = self._hardware.node_of(name).node.name
        self._event_log.write("guest", guest=name, node=node, **details)

    def _told_of(self, name: str) -> set[str]:
        return {event.id for event in self._events[name]}

    # Whole events.

    def _follow_suit(self) -> None:
        """What has gone further on one node goes as far on all that have it, step by step."""
        for node, event, furthest in self._watching.behind():
            if self._relocation.host(node).failed:
                continue
            if event.status is EventStatus.STARTED:
                self._tell(node, event.id, Controller.complete)
            elif furthest is EventStatus.CANCELLED:
                self._tell(node, event.id, Controller.cancel)
            else:
                self._tell(node, event.id, Controller.start)

    def _finish(self, lasting: Iterable[Event]) -> None:
        """Complete those of unknown duration that have been carried out, a while after."""
        now = self._watching.now()
        open_ended = {
            event.id: event for event in lasting if event.duration is None and not event.notice_only
        }
        self._carried_out = {
            event_id: since
            for event_id, since in self._carried_out.items()
            if event_id in open_ended
        }
        for event in open_ended.values():
            if all(self._is_through(name, event, now) for name in event.guests):
                since = self._carried_out.setdefault(event.id, now)
                if now >= since + LINGERS[event.type]:
                    for node in self._watching.holders(event.id, EventStatus.STARTED):
                        self._tell(node, event.id, Controller.complete)

    def _is_through(self, name: str, event: Event, now: float) -> bool:
        """Whether an event of unknown duration has nothing more to do with a guest."""
        if name not in self._hardware:
            return True
        if event.id not in self._hardware.endured[name] or name in self._drivers:
            return False
        if self._hardware.power(name) is Power.GONE:
            return True
        if event.id in self._carried_out:  # what befalls it now, another event does
            return True
        return now >= demands_until(event) and self._hardware.bound(name)

    def _tell(
        self,
        node: str,
        event_id: str,
        what: Callable[[Controller, str], Coroutine[Any, Any, Event]],
    ) -> None:
        """Have a node's agent move an event on; once at a time."""
        key = (node, event_id)
        if key in self._telling:
            return
        self._telling.add(key)
        task = asyncio.create_task(self._say(node, event_id, what))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _say(
        self,
        node: str,
        event_id: str,
        what: Callable[[Controller, str], Coroutine[Any, Any, Event]],
    ) -> None:
        try:
            async with self._placement.agent(node) as agent:
                await what(agent, event_id)
        except (NotSo, AgentUnreachable, CommandRefused) as error:
            log.info("%s: event %s: %s", node, event_id, error)
            await asyncio.sleep(_RETRY)
        finally:
            self._telling.discard((node, event_id))
