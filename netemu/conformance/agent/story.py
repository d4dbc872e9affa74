"""What a row's story can do to its guests, and wait for. Runs in the user's process, on asyncio.

A story names its guests a, b, …, its events and its moments. It judges nothing.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from hostagent.model import FINAL, EventStatus
from netemu.client import labs
from netemu.client.async_maintenance import AsyncMaintenance
from netemu.client.attached import AttachedLab
from netemu.conformance.agent.records import DRAINED, RETURNED, Happened, Moment, Record
from netemu.conformance.agent.spec import Agent
from netemu.conformance.agent.watch import Watch
from netemu.errors import NotSo

LOOK_EVERY: Final = 0.05
START: Final = 40.0
"""Seconds for an agent to ask for the first time, beside others on a busy machine."""

TCP_BACK_OFF: Final = 15.0
"""Seconds after dropped packets until TCP tries again. No agent can do anything about it."""

EFFECT: Final = 40.0
"""Seconds for an event's effect: a guest is off, boots, and claims its address."""

LASTS: Final = 2.0
"""Seconds that an event lasts; a guest that reboots is off as long."""

APPROVAL: Final = 5.0
"""Seconds after draining for an agent to approve, beside two of its polls."""


class Story:
    """One row's guests in a lab, and the record of the play."""

    def __init__(
        self, lab: str, plan: AsyncMaintenance, watch: Watch, agent: Agent, work: Path, row: str
    ) -> None:
        self.lab = lab
        self.agent = agent
        self.record = Record(poll=agent.poll or 1.0, begun=time.time())
        self._plan = plan
        self._watch = watch
        self._work = work
        self._row = row.lower()
        self._ids: dict[str, str] = {}

    def guest(self, letter: str) -> str:
        """A guest's name in the lab."""
        return f"{self._row}{letter}"

    def _letter(self, guest: str) -> str:
        return guest.removeprefix(self._row)

    # Waiting.

    async def pause(self, seconds: float) -> None:
        """Let time pass."""
        await asyncio.sleep(seconds)

    async def until(self, seen: Callable[[], Any], seconds: float) -> bool:
        """Wait until something is seen. Returns whether it was in time."""
        end = time.monotonic() + seconds
        while not seen():
            if time.monotonic() > end:
                return False
            await asyncio.sleep(LOOK_EVERY)
        return True

    def _marked(self, letter: str, what: str, since: float) -> bool:
        marks = self._watch.marks[self.guest(letter)]
        return any(one.what == what and one.at >= since for one in marks)

    def _is_over(self, letter: str) -> bool:
        """Whether the agent has ended, and is not started again before the guest boots."""
        states = [one.what for one in self._watch.marks[self.guest(letter)]
                  if one.what in ("boot", "started", "ended", "killed")]  # fmt: skip
        return self.agent.run.restart == "no" and states[-1:] == ["ended"]

    async def begin(self, letters: str) -> bool:
        """Wait until the agent asks, and measure how often. Returns whether it does.

        Raises NotSo if it asks too seldom to be measured.
        """
        name = self.guest(letters[0])
        parks = self.agent.run.cloud == "gce"  # a request that waits is answered at the change
        await self.until(lambda: self._marked(letters[0], "started", 0), START)
        if parks:
            await self.pause(3.0)
        else:
            enough = 1 if self.agent.poll else 4
            if not await self.until(lambda: self._polls(name), START):
                return False
            await self.until(lambda: len(self._polls(name)) >= enough, START)
        gaps = [later - earlier for earlier, later in zip(
            self._polls(name), self._polls(name)[1:], strict=False)]  # fmt: skip
        if not (gaps or parks or self.agent.poll):
            raise NotSo(f"it has asked once in {START:g} s; say in AGENT.yaml, poll:, how often")
        poll = self.agent.poll or (sorted(gaps)[len(gaps) // 2] if gaps else 1.0)
        self.record.poll, self.record.begun = poll, time.time()
        self.record.watches_at_wire = not parks
        self.moment("begin")
        return True

    def _polls(self, name: str) -> list[float]:
        """When a guest's agent asked; requests of one moment are one poll.

        What came before is the lab's own, which makes sure that the guest is answered.
        """
        marks = self._watch.marks[name]
        started = next((one.at for one in marks if one.what == "started"), math.inf)
        times: list[float] = []
        for one in self._watch.requests[name]:
            if one.at < started:
                continue
            if not times or one.at - times[-1] > 0.05:
                times.append(one.at)
        return times

    async def drained(self, *letters: str, label: str = "e", extra: float = 0.0) -> None:
        """Wait until guests are drained for an event, as long as an agent may take, and longer."""
        event = self._watch.events.get(self._ids[label])
        since = event.created if event else self.record.at(label)
        seconds = 2 * self.record.patience + extra + 2.0
        await self.until(
            lambda: all(
                self._marked(one, DRAINED, since - 0.05) or self._is_over(one) for one in letters
            ),
            seconds,
        )

    async def returned(self, letter: str, after: str) -> None:
        """Wait until a guest is back, if the agent says so."""
        if self.agent.returns:
            since = self.record.at(after)
            seconds = 2 * self.record.patience + 2.0
            await self.until(
                lambda: self._marked(letter, RETURNED, since) or self._is_over(letter), seconds
            )

    # Events.

    async def notice(
        self, label: str, kind: Any, *letters: str, notice: float | None = None,
        impact: bool = True,
    ) -> None:  # fmt: skip
        """Announce an event. One with an impact lasts; one without it lasts until it is ended."""
        event = await self._plan.schedule(
            [self.guest(one) for one in letters],
            kind,
            notice=notice,
            duration=LASTS if impact else None,
            impact=impact,
        )
        self._ids[label] = event.id
        self._watch.events[event.id] = event
        self.moment(label)

    async def _has(self, label: str, *statuses: EventStatus, seconds: float) -> bool:
        def seen() -> bool:
            event = self._watch.events.get(self._ids[label])
            return event is not None and event.status in statuses

        return await self.until(seen, seconds)

    async def effect(self, label: str = "e") -> None:
        """Have an event start, unless the agent approves it first; wait until it is over."""
        started = EventStatus.STARTED, EventStatus.COMPLETED
        approves = self.agent.needs.approves is True and self.agent.run.cloud == "azure"
        patience = APPROVAL + self.record.patience if approves else 0.0
        if not await self._has(label, *started, seconds=patience):
            await self._plan.start(self._ids[label])
        if not await self._has(label, EventStatus.COMPLETED, seconds=EFFECT):
            await self._plan.complete(self._ids[label])
            await self._has(label, EventStatus.COMPLETED, seconds=EFFECT)
        self._over(label)

    async def start(self, label: str) -> None:
        """Start an event whether anybody approves it or not."""
        await self._plan.start(self._ids[label])

    async def take_back(self, label: str = "e") -> None:
        """Cancel an event; end it, if it was approved meanwhile."""
        for end in (self._plan.cancel, self._plan.complete):
            try:
                await end(self._ids[label])
                break
            except NotSo:
                pass  # it was approved meanwhile, or has ended
        await self._has(label, *FINAL, seconds=EFFECT)
        self._over(label)

    def _over(self, label: str) -> None:
        ended = self._watch.events[self._ids[label]].ended
        self.moment(f"the end of {label}", at=ended)

    # What else befalls the guests.

    def moment(self, name: str, plus: float = 0.0, at: float | None = None) -> None:
        """Give a time a name; now, unless it is given."""
        self.record.moments.append(Moment(name, (at or time.time()) + plus))

    async def silence(self, letter: str, seconds: float) -> None:
        """Drop all packets of a guest for so long; at `TCP is well` TCP has recovered, too."""
        name = self.guest(letter)
        await self._plan.link(name, blackhole=True)
        self.moment("silence")
        await self.pause(seconds)
        await self._plan.clear_links(name)
        self.moment("well")
        self.moment("TCP is well", plus=TCP_BACK_OFF)

    async def fault(self, letter: str, **what: Any) -> None:
        """Have the metadata service misbehave."""
        await self._plan.add_fault(self.guest(letter), **what)

    async def well(self, letter: str, path: str = "*") -> None:
        """End all faults."""
        await self._plan.clear_faults(self.guest(letter))
        self.moment("well")

    def order(self, letter: str, word: str) -> None:
        """Order the guest's runner to do something: see `in_guest`."""
        new = self._work / f"{self.guest(letter)}.order.new"
        new.write_text(word)
        new.replace(new.with_suffix(""))

    async def kill(self, letter: str, *, for_good: bool = False) -> None:
        """Kill the agent; it is started again, unless `for_good`: at the guest's next boot."""
        begun = time.time()
        self.order(letter, "kill-for-good" if for_good else "kill")
        await self.until(lambda: self._marked(letter, "killed", begun), 5.0)
        self.moment("killed")

    async def reboot(self, letter: str) -> None:
        """Reboot a guest, unannounced."""
        begun = time.time()
        await asyncio.to_thread(labs.reboot, self.lab, self.guest(letter))
        await self.until(lambda: self._marked(letter, "started", begun), EFFECT)
        self.moment("booted")

    async def fail_host(self, letter: str) -> None:
        """Have the guest's node fail, and wait until the guest has booted on another.

        The failure is an event that lasts until it is ended here, once the agent has seen it.
        """
        node = self._node(letter)
        begun = time.time()
        await asyncio.to_thread(labs.fail_node, self.lab, node)
        self.moment("failure")
        await self.until(lambda: self._marked(letter, "started", begun), EFFECT)
        self.moment("booted")
        await self.pause(self.record.patience)
        name = self.guest(letter)
        for event in list(self._watch.events.values()):
            if name in event.guests and event.status not in FINAL:
                self._ids["failure"] = event.id
                await self.take_back("failure")

    async def restart_responder(self, letter: str) -> None:
        """Kill the responder of the guest's node: it starts again, and knows no token of before."""
        node = self._node(letter)
        services = labs.status(self.lab)["services"]
        pids = [str(one["pid"]) for one in services
                if node in one["name"] and "responder" in one["name"]]  # fmt: skip
        await self.run(node, "kill", "-KILL", *pids)
        self.moment("restart")
        await self.pause(3.0)

    def _node(self, letter: str) -> str:
        name = self.guest(letter)
        return next(
            str(node["name"])
            for node in labs.status(self.lab)["nodes"]
            for one in node["guests"]
            if one["name"] == name
        )

    async def run(self, place: str, *command: str) -> None:
        """Run a command in a guest or on a node."""
        with AttachedLab(self.lab) as lab:
            await asyncio.to_thread(lab.run, place, command)

    def last_words(self, letters: str) -> list[str]:
        """The last lines that the agent printed."""
        self._watch.look()
        marks = [one for letter in letters for one in self._watch.marks[self.guest(letter)]]
        return [f"{one.guest}: {one.text}" for one in marks if one.what == "line"][-3:]

    async def close(self, letters: str) -> Record:
        self._watch.look()
        record = self.record
        record.closed = time.time()
        for letter in letters:
            name = self.guest(letter)
            record.marks += [replace(one, guest=letter) for one in self._watch.marks[name]]
            record.requests += [replace(one, guest=letter) for one in self._watch.requests[name]]
        polls = [(letter, one) for letter in letters
                 for one in await self._plan.polls(self.guest(letter))]  # fmt: skip
        for label, event_id in self._ids.items():
            event = self._watch.events[event_id]
            told: dict[str, float] = {}
            for letter, poll in polls:
                if event_id in poll.told:
                    told[letter] = min(poll.at, told.get(letter, poll.at))
            record.events[label] = Happened(
                label,
                tuple(self._letter(name) for name in event.guests),
                event.created,
                event.not_before,
                event.started,
                event.ended,
                event.approved,
                None if event.approved_by is None else self._letter(event.approved_by),
                tuple((at, letter) for letter, at in told.items()),
            )
        return record
