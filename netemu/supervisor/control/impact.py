"""Carries events out: what the agents say has started happens to the guests.

Runs in the supervisor. `netemu.supervisor.guests.power` says what an event demands, and which
actions bring a guest there; this module notices when something is due, and does it. An event of
unknown duration is over when it has been carried out.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from hostagent.controller import calls
from hostagent.controller.calls import Call
from hostagent.model import FINAL, Event, EventStatus, EventType
from netemu.errors import NetemuError, NotSo
from netemu.supervisor.control.agent_feeds import AgentFeeds
from netemu.supervisor.control.carried_out import CarriedOut
from netemu.supervisor.control.event_log import EventLog
from netemu.supervisor.control.placement import Placement
from netemu.supervisor.control.relocation import Relocation
from netemu.supervisor.control.store import Store
from netemu.supervisor.guests.endings import HARD, grace_of, grace_of_reboot
from netemu.supervisor.guests.power import (
    DEMANDS,
    LINGERS,
    SEVERITY,
    Action,
    Power,
    demand,
    demands_until,
    held_back,
    plan,
    severest,
)
from netemu.supervisor.nodes.hardware import Hardware

log = logging.getLogger(__name__)

# Seconds between looks while something is under way: a guest claims its address, an event lasts.
_BUSY: Final = 0.1
# … and otherwise; a change wakes it.
_IDLE: Final = 5.0
# Guests to which something is done at one time: of a thousand that a failed node shuts down, some
# in each turn of the loop.
_AT_ONCE: Final = 16
# Guests whose programs are waited for at one time: for each there is a process.
_ENDING_AT_ONCE: Final = 64
# Seconds until an action that failed is tried again; the pause doubles up to the longest. After so
# many attempts (half an hour) it is not tried again until something else is wanted of the guest.
_FIRST_RETRY: Final = 1.0
_LAST_RETRY: Final = 300.0
_ATTEMPTS: Final = 14
# In the place of an event's ID: the agent is told to move its clock on.
_CLOCK: Final = "clock"


class Failing(NamedTuple):
    """What was wanted of a guest and did not succeed; how often, and when it is tried again."""

    wanted: "Wanted"
    attempts: int
    again: float


Wanted: TypeAlias = tuple[Power, frozenset[str]]
"""The power that a guest is to have, and the events that are to be carried out on it."""


class Impact:
    """What happens to the guests of one lab.

    `problems` says what did not succeed, by guest, until something does.
    """

    def __init__(
        self,
        store: Store,
        hardware: Hardware,
        placement: Placement,
        relocation: Relocation,
        watching: AgentFeeds,
        carried_out: CarriedOut,
        event_log: EventLog,
    ) -> None:
        self.problems: dict[str, str] = {}
        self._store = store
        self._hardware = hardware
        self._placement = placement
        self._relocation = relocation
        self._watching = watching
        self._carried_out = carried_out
        self._event_log = event_log
        self._events: dict[str, list[Event]] = {}  # those of each guest
        self._asked: dict[str, float] = {}  # guests to be rebooted on request, and their grace
        self._drivers: dict[str, asyncio.Task[None]] = {}
        self._booting: set[str] = set()
        self._through: dict[str, float] = {}  # events that lasted long enough, and since when
        self._failing: dict[str, Failing] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._graces = asyncio.Semaphore(_ENDING_AT_ONCE)
        self._telling: dict[tuple[str, str], asyncio.Task[None]] = {}  # by node and event
        self._now = asyncio.get_running_loop().time

    async def run(self) -> None:
        """Look whenever there is something new, for as long as the lab is up."""
        while True:
            busy = self._look()
            await self._watching.news(_BUSY if busy else _IDLE)

    async def reboot(self, guest: str, *, hard: bool = False) -> None:
        """Reboot a guest, event or none; it is booting when this returns.

        Its programs are asked to end first, unless it is a `hard` one: that cuts its power.
        Raises NotSo if it is gone, if its node has failed, or if it does not boot.
        """
        if self._hardware.power(guest) is Power.GONE:
            raise NotSo(f"{guest} is gone: it was preempted or terminated")
        if self._relocation.host_failed(guest):
            raise NotSo(f"{guest}: its node {self._hardware.node_of(guest).node.name} has failed")
        self._failing.pop(guest, None)  # earlier failures do not count
        self._asked[guest] = HARD if hard else grace_of_reboot(self._hardware.wired(guest).guest)
        if hard:
            self._hardware.cut(guest)
        while guest in self._asked:
            await self._drive(guest)
        if guest in self._failing:
            raise NotSo(f"{guest} does not boot: {self.problems[guest]}")
        if self._hardware.power(guest) in (Power.OFF, Power.GONE):
            raise NotSo(f"{guest} is {self._hardware.power(guest)}: an event keeps it so")

    def _look(self) -> bool:
        """Start everything that is due. Returns whether something is under way."""
        events, now = self._watching.lab.open, self._watching.now()
        self._events = {name: [] for name in self._hardware}
        for event in events.values():
            if event.started is not None and not event.notice_only:
                for name in event.guests:
                    if name in self._events:
                        self._events[name].append(event)
        for name in self._hardware:
            if name not in self._drivers and self._is_due(name, now):
                self._drive(name)
        for name in [one for one in self._booting if self._hardware.bound(one)]:
            self._booting.discard(name)
            self._note(name, state="bound")
        lasting = [event for event in events.values() if event.status is EventStatus.STARTED]
        self._follow_suit()
        self._finish(lasting)
        self._settle([event for event in events.values() if event.status in FINAL])
        coming = any(held_back(event, now) for event in events.values())
        return bool(lasting or coming or self._booting or self._drivers or self._retries())

    def _retries(self) -> bool:
        return any(one.attempts < _ATTEMPTS for one in self._failing.values())

    # One guest.

    def _is_due(self, name: str, now: float) -> bool:
        fresh, wanted = self._due(name, now)
        if not fresh and self._hardware.power(name) in (wanted, Power.GONE):
            self._failing.pop(name, None)
            return False
        failing = self._failing.get(name)
        if failing is None or failing.wanted != _wanted(wanted, fresh):
            return True
        return failing.attempts < _ATTEMPTS and self._now() >= failing.again

    def _due(self, name: str, now: float) -> tuple[list[Event], Power]:
        """The events that are to be carried out on a guest, and what all of them demand of it."""
        events = self._events.get(name, [])
        fresh = [
            event
            for event in events
            if not (held_back(event, now) or self._carried_out.on(name, event.id))
        ]
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
            while await self._carry_out(name):
                pass
        except Exception as error:
            if name not in self._hardware:  # it is on another machine by now
                return
            if not isinstance(error, (NetemuError, OSError)):  # a mistake of ours
                log.exception("%s: nothing more is done to it", name)
            self._fail(name, str(error) or type(error).__name__)
        finally:
            self._asked.pop(name, None)
            del self._drivers[name]
            self._watching.poke()

    async def _carry_out(self, name: str) -> bool:
        """Do what is due to a guest. Returns whether anything was."""
        actions, fresh = self._plan(name)
        if Action.SHUT_DOWN in actions:
            await self._give_grace(name, fresh)
            actions, fresh = self._plan(name)  # that may have taken long
            if Action.SHUT_DOWN not in actions:  # its programs have ended: it is too late
                self._asked[name] = HARD
                actions, fresh = self._plan(name)
        problem = None
        for action in actions:
            if action is Action.MOVE:
                problem = await self._move(name)
            else:
                await self._do(name, action, fresh)
            # From here on they are carried out, even if a later action fails: nobody moves twice.
            self._carried_out.note(name, (event.id for event in fresh))
        self._carried_out.note(name, (event.id for event in fresh))
        self._asked.pop(name, None)
        if actions:
            self._failing.pop(name, None)
            self.problems.pop(name, None)
        if problem is not None:
            self._tell_problem(name, problem)
        return bool(actions)

    def _plan(self, name: str) -> tuple[list[Action], list[Event]]:
        """What is to be done to a guest now, and the events that it is done for."""
        fresh, wanted = self._due(name, self._watching.now())
        begun = [event.type for event in fresh]
        if name in self._asked:
            begun.append(EventType.REBOOT)
        return plan(self._hardware.power(name), begun, wanted), fresh

    def _fail(self, name: str, problem: str) -> None:
        """An action has failed: it is tried again later."""
        fresh, power = self._due(name, self._watching.now())
        wanted = _wanted(power, fresh)
        before = self._failing.get(name)
        attempts = before.attempts if before is not None and before.wanted == wanted else 0
        pause = min(_FIRST_RETRY * 2**attempts, _LAST_RETRY)
        self._failing[name] = Failing(wanted, attempts + 1, self._now() + pause)
        if attempts + 1 == _ATTEMPTS:
            problem = f"failed to boot, and is not tried again: {problem}"
        self._tell_problem(name, problem)

    def _tell_problem(self, name: str, problem: str) -> None:
        if self.problems.get(name) != problem:  # once, and not at every attempt
            self.problems[name] = problem
            log.error("%s: %s", name, problem)
            self._note(name, problem=problem)

    async def _move(self, name: str) -> str | None:
        """Bring it to another node. Returns why it stays, if it does."""
        try:
            await self._relocation.move(name)
        except NotSo as error:
            return f"it stays where it is: {error}"
        return None

    async def _give_grace(self, name: str, begun: Iterable[Event]) -> None:
        """Let the guest's programs end by themselves, if it is not its power that is cut."""
        if grace := self._grace(name, begun):
            async with self._graces:
                ending = await self._hardware.ask_to_end(name, grace)
            if ending is not None and (ending.ended or ending.killed):
                self._note(name, ending=msgspec.to_builtins(ending), told=str(ending))

    def _grace(self, name: str, begun: Iterable[Event]) -> float:
        """The shortest that anything which ends the guest now gives it, seconds."""
        if self._relocation.host_failed(name):
            return HARD
        guest = self._hardware.wired(name).guest
        dialect = self._hardware.node_of(name).node.dialects.names[0]
        graces = [
            grace_of(event, guest, dialect)
            for event in begun
            if SEVERITY[DEMANDS[event.type]] >= SEVERITY[Power.OFF]
        ]
        if name in self._asked:
            graces.append(self._asked[name])
        return min(graces, default=HARD)

    async def _do(self, name: str, action: Action, events: Iterable[Event]) -> None:
        async with self._slots:
            await asyncio.sleep(0)
            await self._hardware.do(name, action)
        self._note(name, power=str(self._hardware.power(name)), events=[one.id for one in events])
        if action is Action.BOOT:
            self._booting.add(name)
        elif action is Action.REMOVE:
            node = self._hardware.node_of(name).node.name
            await self._placement.remove(node, name)
        # Many guests may be concerned: what else is asked meanwhile is answered.
        await asyncio.sleep(0)

    def _note(self, name: str, **details: Any) -> None:
        node = self._hardware.node_of(name).node.name
        self._event_log.write("guest", guest=name, node=node, **details)

    # Whole events.

    def _follow_suit(self) -> None:
        """What has gone further on one node goes as far on all that have it, step by step.

        First the clock: what is due by it comes by itself.
        """
        for node in self._watching.late():
            self._tell(node, _CLOCK, calls.advance_to(self._watching.clock_offset))
        for node, event, furthest in self._watching.behind():
            if event.status is EventStatus.STARTED:
                self._tell(node, event.id, calls.complete(event.id))
            elif furthest is EventStatus.CANCELLED:
                self._tell(node, event.id, calls.cancel(event.id))
            else:
                self._tell(node, event.id, calls.start(event.id))

    def _finish(self, lasting: Iterable[Event]) -> None:
        """Complete those of unknown duration that have been carried out, a while after."""
        now = self._watching.now()
        open_ended = {
            event.id: event for event in lasting if event.duration is None and not event.notice_only
        }
        self._through = {
            event_id: since for event_id, since in self._through.items() if event_id in open_ended
        }
        for event in open_ended.values():
            if all(self._is_through(name, event, now) for name in event.guests):
                since = self._through.setdefault(event.id, now)
                if now >= since + LINGERS[event.type]:
                    for node, copy in self._watching.lab.at(event.id).items():
                        if copy.status is EventStatus.STARTED:
                            self._tell(node, event.id, calls.complete(event.id))

    def _settle(self, ended: Iterable[Event]) -> None:
        """Look no more at those that have ended and been carried out, or have nothing to be."""
        for event in ended:
            idle = event.started is None or event.notice_only
            if idle or all(
                name not in self._hardware or self._carried_out.on(name, event.id)
                for name in event.guests
            ):
                self._watching.lab.settled(event.id)

    def _is_through(self, name: str, event: Event, now: float) -> bool:
        """Whether an event of unknown duration has nothing more to do with a guest."""
        if name not in self._hardware:
            return True
        if not self._carried_out.on(name, event.id) or name in self._drivers:
            return False
        if self._hardware.power(name) is Power.GONE:
            return True
        if event.id in self._through:  # what befalls it now, another event does
            return True
        return now >= demands_until(event) and self._hardware.bound(name)

    def _tell(self, node: str, event_id: str, what: Call[Any]) -> None:
        """Have the agent of a node that runs here move an event on; once at a time."""
        if self._relocation.runs(node) and (node, event_id) not in self._telling:
            task = asyncio.create_task(self._say(node, event_id, what))
            self._telling[node, event_id] = task

    async def _say(self, node: str, event_id: str, what: Call[Any]) -> None:
        try:
            await self._store.append(node, what)
        except Exception as error:
            # It has gone further by itself, as a rule; what is still due is said again.
            if not isinstance(error, NotSo):
                log.exception("%s: event %s", node, event_id)
            log.info("%s: event %s: %s", node, event_id, error)
            await asyncio.sleep(_FIRST_RETRY)
        finally:
            del self._telling[node, event_id]


def _wanted(power: Power, fresh: Iterable[Event]) -> Wanted:
    return power, frozenset(event.id for event in fresh)
