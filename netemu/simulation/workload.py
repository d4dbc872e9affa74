"""The actions of users and guests, drawn from the seed: commands, settings, approvals, polls."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any, Final, NamedTuple

from hostagent.controller import AgentUnreachable, CommandRefused, Controller
from hostagent.faults import Fault
from hostagent.model import EventType
from hostagent.responder.answers import Pending
from netemu.errors import NetemuError
from netemu.simulation.checkers import Checker, parsed
from netemu.simulation.cluster import Cluster
from netemu.supervisor.guests.power import Power

USERS: Final = 5
_PAUSE: Final = (0.1, 3.0)
_POLL: Final = 0.25
PROBE: Final = "/metadata/probe"
"""What the faults that users add are about; nothing is there."""
_PROBE: Final = 3.0
_PATIENCE: Final = 45.0
_SENT_BACK_WITHIN: Final = 20  # polls
# The chance of a command within this time after a guest was shut down.
_AIMED: Final = 0.4
_SOON: Final = 0.06
_TYPES: Final = (EventType.FREEZE, EventType.REBOOT, EventType.REDEPLOY)
_FAILURES: Final = (NetemuError, AgentUnreachable, CommandRefused, TimeoutError)


class _Polled(NamedTuple):
    """What a guest was told last, by which mind and knowledge, and until when it asks no more."""

    known: tuple[int, int, bool]
    until: float
    told: bytes
    document: dict[str, Any]


class Workload:
    """Users and guests of one cluster; `checkers` hear what they are told."""

    def __init__(self, cluster: Cluster, checkers: Sequence[Checker], seed: int) -> None:
        self.cluster = cluster
        self.checkers = checkers
        self.ending = False
        self.commands = self.polls = 0
        self._numbers = count(1)
        self._polled: dict[str, _Polled] = {}
        self._probed = dict.fromkeys(cluster.hardware, 0.0)
        self._aiming = random.Random(f"{seed}/aiming")
        self._draws = [random.Random(f"{seed}/user/{number}") for number in range(USERS)]

    def begin(self) -> list["asyncio.Task[None]"]:
        """Start all of them, as processes that never fail."""
        loop = self.cluster.loop
        self.cluster.on_shut_down.append(self._aim)
        tasks = [loop.create_task(self._user(draw)) for draw in self._draws]
        return [*tasks, loop.create_task(self._polls())]

    async def _user(self, draw: random.Random) -> None:
        acts: Sequence[tuple[Callable[[random.Random], Awaitable[None]], int]] = (
            (self._schedule, 8),
            (self._set, 5),
            (self._approve, 4),
            (self._start, 2),
            (self._reboot, 1),
            (self._advance, 1),
            (self._add_fault, 3),
            (self._clear_faults, 2),
        )
        while not self.ending:
            await asyncio.sleep(draw.uniform(*_PAUSE))
            (act,) = draw.choices([one for one, _ in acts], [weight for _, weight in acts])
            self.commands += 1
            try:
                async with asyncio.timeout(_PATIENCE):
                    await act(draw)
            except _FAILURES:
                pass

    def _aim(self, guest: str) -> None:
        """A user's command comes while the guest, which has shut down, may be changing its node."""
        draw = self._aiming
        if not self.ending and draw.random() < _AIMED:
            acts = (self._schedule, self._add_fault, self._clear_faults)
            act = draw.choice((*acts, self._send_back, self._send_back))
            self.cluster.loop.call_later(draw.uniform(0, _SOON), self._act, act, guest)

    def _act(self, act: Callable[[random.Random, str], Awaitable[None]], guest: str) -> None:
        self.commands += 1
        work = asyncio.wait_for(act(self._aiming, guest), _PATIENCE)
        task = self.cluster.loop.create_task(work)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _guest(self, draw: random.Random) -> str:
        return draw.choice(list(self.cluster.hardware))

    async def _agent(self, node: str) -> Controller:
        path = self.cluster.hosts[node].commands
        return await Controller.connect(path)

    async def _schedule(self, draw: random.Random, guest: str | None = None) -> None:
        guest = guest or self._guest(draw)
        home = self.cluster.home(guest)
        names = [guest]
        others = sorted(one.guest.name for one in home.wired.guests if one.guest.name != guest)
        if others and draw.random() < 0.3:
            names.append(draw.choice(others))
        await self._plan(
            home.name,
            names,
            draw.choice(_TYPES),
            notice=draw.choice((0.0, draw.uniform(0, 5), draw.uniform(5, 60))),
            duration=draw.choice((None, draw.uniform(0.2, 4))),
            notice_only=draw.random() < 0.4,
        )

    async def _plan(
        self, node: str, guests: Sequence[str], kind: EventType, **options: Any
    ) -> None:
        event_id = self.cluster.new_id()
        try:
            async with await self._agent(node) as agent:
                event = await agent.schedule(guests, kind, event_id=event_id, **options)
        except CommandRefused:
            for checker in self.checkers:
                checker.refused(event_id)
            raise
        for checker in self.checkers:
            checker.acknowledged(event)

    async def _send_back(self, draw: random.Random, guest: str) -> None:
        """Redeploy a guest that is being redeployed as soon as it is told of that."""
        home = self.cluster.home(guest)
        for _ in range(_SENT_BACK_WITHIN):
            await asyncio.sleep(_POLL)
            if self.cluster.home(guest) is not home and self.cluster.told(guest) is not None:
                node = self.cluster.home(guest).name
                lasts = draw.uniform(0.5, 4)
                await self._plan(node, [guest], EventType.REDEPLOY, notice=0.0, duration=lasts)
                break

    async def _set(self, draw: random.Random) -> None:
        guest, value = self._guest(draw), str(next(self._numbers))
        if self.cluster.hardware.power(guest) is Power.GONE:
            return
        # The users of one guest's setting take turns, so that the last one is known.
        known = False
        self._tell_setting(guest, value, known=False)
        try:
            change = self.cluster.placement.change(guest, {"tags.sim": value})
            await self.cluster.supervisor.spawn(change)
            known = True
        except NetemuError:
            for checker in self.checkers:
                checker.set_refused(guest, value)
            raise
        finally:
            if known:
                self._tell_setting(guest, value, known=True)

    def _tell_setting(self, guest: str, value: str, *, known: bool) -> None:
        for checker in self.checkers:
            checker.set_to(guest, value, known=known)

    async def _start(self, draw: random.Random) -> None:
        guest = self._guest(draw)
        home = self.cluster.home(guest)
        async with await self._agent(home.name) as agent:
            waiting = [one for one in await agent.events() if one.started is None]
            if waiting:
                event = draw.choice(waiting)
                for checker in self.checkers:
                    checker.started(event.id)
                await agent.start(event.id)

    async def _approve(self, draw: random.Random) -> None:
        guest = self._guest(draw)
        mind, told = self.cluster.home(guest).mind, self.cluster.told(guest)
        if mind is None or told is None:
            return
        waiting = [one for one in parsed(told)["Events"] if one["EventStatus"] == "Scheduled"]
        if not waiting:
            return
        event_id = draw.choice(waiting)["EventId"]
        for checker in self.checkers:
            checker.started(event_id)
        body = json.dumps({"StartRequests": [{"EventId": event_id}]}).encode()
        path, query = "/metadata/scheduledevents", "api-version=2020-07-01"
        pending = mind.ask(self.cluster.marks[guest], "POST", path, query, body)
        if not isinstance(pending, Pending):
            return
        answer: asyncio.Future[str] = self.cluster.loop.create_future()

        def answered(result: str) -> None:
            if not answer.done():
                answer.set_result(result)

        mind.approve(pending, answered)
        if await answer == "done":
            for checker in self.checkers:
                checker.approved(event_id)

    async def _reboot(self, draw: random.Random) -> None:
        await self.cluster.supervisor.spawn(self.cluster.impact.reboot(self._guest(draw)))

    async def _advance(self, draw: random.Random) -> None:
        """As `netemu clock advance`: move every running node to one time."""
        to = self.cluster.feeds.clock_offset + draw.uniform(0, 20)
        for checker in self.checkers:
            checker.moved(to)
        for host in self.cluster.hosts.values():
            if not host.failed:
                async with await self._agent(host.name) as agent:
                    await agent.advance_to(to)

    async def _add_fault(self, draw: random.Random, guest: str | None = None) -> None:
        """As `netemu fault add`: requests that the checkers do not make have trouble."""
        guest = guest or self._guest(draw)
        fault = Fault(
            id=f"{next(self._numbers):08x}",
            path=PROBE,
            at=0.0,
            until=draw.choice((None, draw.uniform(1, 60))),
            times=draw.choice((None, draw.randint(1, 100))),
            status=500,
        )
        self._tell_fault(guest, fault, known=False)
        await self.cluster.supervisor.spawn(self.cluster.faults.add([guest], [fault]))
        self._tell_fault(guest, fault, known=True)

    def _tell_fault(self, guest: str, fault: Fault, *, known: bool) -> None:
        for checker in self.checkers:
            checker.fault_added(guest, fault, known=known)

    async def _clear_faults(self, draw: random.Random, guest: str | None = None) -> None:
        guest, number = guest or self._guest(draw), next(self._numbers)
        for checker in self.checkers:
            checker.faults_cleared(guest, number, known=False)
        await self.cluster.supervisor.spawn(self.cluster.faults.clear([guest], []))
        for checker in self.checkers:
            checker.faults_cleared(guest, number, known=True)

    # Guests.

    async def _polls(self) -> None:
        while True:
            await asyncio.sleep(_POLL)
            for name in self.cluster.hardware:
                self._poll(name)
            for checker in self.checkers:
                checker.moment()

    def _poll(self, name: str) -> None:
        mind, now = self.cluster.home(name).mind, self.cluster.loop.time()
        if mind is None:
            return
        # Answers change with the knowledge, and with time: once a second is enough, and less often
        # where nothing is to come. An answer that is too old must not be given at any time.
        known = id(mind), mind.knowledge.sequence, mind.knowledge.fresh(now)
        last = self._polled.get(name)
        if last is not None and last.known == known and now < last.until:
            return
        told = self.cluster.told(name)
        if told is None:
            return
        self.polls += 1
        same = last is not None and last.told == told
        document = last.document if last is not None and same else parsed(told)
        self._polled[name] = _Polled(known, now + (1 if document["Events"] else 5), told, document)
        for checker in self.checkers:
            checker.document(name, told, document)
        if last is None or last.known != known:
            reply = mind.ask(self.cluster.marks[name], "GET", "/metadata/v1/InstanceInfo")
            identity = json.loads(reply.frame.partition(b"\r\n\r\n")[2])["ID"]
            for checker in self.checkers:
                checker.identity(name, identity)
        if mind.knowledge.guests[name].faults and now >= self._probed[name] + _PROBE:
            self._probed[name] = now
            mind.ask(self.cluster.marks[name], "GET", PROBE)
            for checker in self.checkers:
                checker.probed(name)
