"""The faults of a run, drawn from the seed: at random, and aimed at moments that matter."""

import asyncio
import random
from collections.abc import Sequence
from typing import Final

from netemu.errors import NetemuError
from netemu.simulation.checkers import Checker
from netemu.simulation.cluster import Cluster, Service
from netemu.simulation.loop import PROCESS
from netemu.supervisor.control.relocation import SILENCE

_PAUSE: Final = (0.2, 4.0)
# How long a process is paused: shorter than the heartbeats' patience (8 s), or longer.
_SHORT, _LONG = (0.05, 2.0), (8.5, 14.0)
_AWAY: Final = (0.5, 25.0)
_SPELL: Final = (0.5, 10.0)
# The chance of a crash before or after a transaction.
_TORN: Final = 0.01
# The chance that a node fails within this time after a guest was shut down: its node, or another.
_AIMED: Final = 0.15
_SOON: Final = 0.06
_AND_FAIL: Final = 0.5
# The chance that a node that is away when the faults end does not come back.
_LEFT_AWAY: Final = 0.5
# The chance that one fails as the last thing, and how long no wire can be moved then: until it has
# been tried, once the node has been silent.
_LAST_BLOW: Final = 0.5
_HANGS: Final = 0.5
_LAST_LOST: Final = 0.5
_STUCK: Final = (SILENCE + 1, SILENCE + 4)


class Faults:
    """The faults of one run. `stop` ends them all; what is away comes back."""

    def __init__(self, cluster: Cluster, checkers: Sequence[Checker], seed: int) -> None:
        self._cluster = cluster
        self._checkers = checkers
        self._draw = random.Random(f"{seed}/faults")
        self._on = True
        self.done: list[str] = []
        cluster.loop.storage_fault = self._tear
        cluster.on_shut_down.append(self._aim)

    def begin(self) -> list["asyncio.Task[None]"]:
        """Start them."""
        loop = self._cluster.loop
        return [loop.create_task(self._strike())]

    async def stop(self) -> None:
        """End all faults, and have everything come back, but at times one node."""
        self._on = False
        cluster = self._cluster
        self._fair()
        cluster.refusing.clear()
        cluster.ports.stuck = False
        for transport in cluster.network.transports:
            transport.mute = transport.deaf = False
            # A last frame is lost: nothing may follow that shows it, but heartbeats.
            transport.skip = transport.feeds and self._draw.random() < _LAST_LOST
        for service in self._services():
            if service.process is not None and service.process.paused:
                service.process.go_on()
        await asyncio.sleep(SILENCE + 1)  # a node that was silent until now is fenced first
        away = [host.name for host in cluster.hosts.values() if host.failed]
        if away and self._draw.random() < _LEFT_AWAY:
            cluster.left_away = away.pop()
        for node in away:
            await self._restore(node)
        if cluster.left_away is None and self._draw.random() < _LAST_BLOW:
            await self._strike_last()

    async def _strike_last(self) -> None:
        """A node's agent hangs for good; or the node fails for good while no wire can be moved. Its
        guests leave it as soon as they can.
        """
        cluster = self._cluster
        cluster.left_away = max(cluster.hosts, key=lambda n: len(cluster.hosts[n].wired.guests))
        if self._draw.random() < _HANGS:
            self._note(f"hang {cluster.left_away}")
            agent = cluster.hosts[cluster.left_away].services[0].process
            if agent is not None:
                agent.pause()
            return
        cluster.ports.stuck = True
        self._fail(cluster.left_away)
        await asyncio.sleep(self._draw.uniform(*_STUCK))
        cluster.ports.stuck = False

    async def _strike(self) -> None:
        strikes = (
            (self._crash, 8),
            (self._pause, 4),
            (self._fail, 3),
            (self._weather, 3),
            (self._silence, 2),
            (self._set_clock, 1),
            (self._refuse, 1),
            (self._stick, 1),
        )
        while self._on:
            await asyncio.sleep(self._draw.uniform(*_PAUSE))
            (strike,) = self._draw.choices([one for one, _ in strikes], [w for _, w in strikes])
            if self._on:
                strike()

    def _services(self) -> list[Service]:
        return [one for host in self._cluster.hosts.values() for one in host.services]

    def _note(self, what: str) -> None:
        self.done.append(f"{self._cluster.loop.time():.3f} {what}")

    def _crash(self) -> None:
        service = self._draw.choice(self._services())
        if service.process is not None:
            self._note(f"crash {service.name}")
            service.process.crash()

    def _pause(self) -> None:
        service = self._draw.choice(self._services())
        process = service.process
        if process is None or process.paused:
            return
        long = self._draw.random() < 0.3
        lasts = self._draw.uniform(*(_LONG if long else _SHORT))
        self._note(f"pause {service.name} {lasts:.2f}")
        process.pause()
        self._cluster.loop.call_later(lasts, process.go_on)

    def _fail(self, node: str | None = None) -> None:
        hosts = self._cluster.hosts
        away = [host for host in hosts.values() if host.failed]
        if len(away) + 1 >= len(hosts):
            return
        name = node or self._draw.choice(sorted(hosts))
        if hosts[name].failed:
            return
        self._note(f"fail {name}")
        self._cluster.supervisor.context().run(self._cluster.relocation.fail, name)
        lasts = self._draw.uniform(*_AWAY)
        self._cluster.loop.call_later(lasts, self._bring_back, name)

    def _bring_back(self, name: str) -> None:
        if self._on and self._cluster.hosts[name].failed:
            self._cluster.loop.create_task(self._restore(name))

    async def _restore(self, name: str) -> None:
        self._note(f"restore {name}")
        ahead = self._cluster.feeds.clock_offset
        try:
            await self._cluster.supervisor.spawn(self._cluster.relocation.restore(name))
        except NetemuError as error:
            self._note(f"restore {name}: {error}")
        else:
            for checker in self._checkers:
                checker.restored(name, ahead)

    def _weather(self) -> None:
        weather = self._cluster.network.weather
        weather.slow, weather.cut = self._draw.uniform(0, 0.5), self._draw.uniform(0, 0.05)
        if self._draw.random() < 0.5:
            weather.lose, weather.double = self._draw.uniform(0, 0.05), self._draw.uniform(0, 0.05)
        self._note(f"weather {weather}")
        self._cluster.loop.call_later(self._draw.uniform(*_SPELL), self._fair)

    def _fair(self) -> None:
        weather = self._cluster.network.weather
        weather.slow = weather.cut = weather.lose = weather.double = 0.0

    def _silence(self) -> None:
        """One direction of one connection carries nothing for a while."""
        transports = list(self._cluster.network.transports)
        if not transports:
            return
        transport = self._draw.choice(transports)
        transport.mute = True
        self._note("silence")
        self._cluster.loop.call_later(self._draw.uniform(*_SPELL), transport.abort)

    def _set_clock(self) -> None:
        step = self._draw.uniform(-30, 30)
        self._note(f"clock {step:+.1f}")
        self._cluster.latest()  # events that have started by now have not started early
        self._cluster.wall.set(step)

    def _refuse(self) -> None:
        """A guest's machine does not boot for a while."""
        refusing, guest = self._cluster.refusing, self._draw.choice(list(self._cluster.hardware))
        self._note(f"refuse {guest}")
        refusing.add(guest)
        self._cluster.loop.call_later(self._draw.uniform(*_SPELL), refusing.discard, guest)

    def _stick(self) -> None:
        """No wire can be moved for a while, at times when a node has just failed."""
        self._note("wires are stuck")
        ports = self._cluster.ports
        ports.stuck = True
        self._cluster.loop.call_later(self._draw.uniform(*_SPELL), setattr, ports, "stuck", False)
        if self._draw.random() < _AND_FAIL:
            self._fail()

    def _tear(self) -> str:
        """What happens to the next transaction: "", "before" or "after"."""
        process = PROCESS.get()
        if not self._on or process is None or self._draw.random() >= _TORN:
            return ""
        how = self._draw.choice(("before", "after"))
        self._note(f"{process.name} ends {how} a commit")
        return how

    def _aim(self, guest: str) -> None:
        """Fail a node while a guest is between two nodes."""
        if self._on and self._draw.random() < _AIMED:
            home = self._cluster.home(guest).name
            node = self._draw.choice([home, *sorted(self._cluster.hosts)])
            self._cluster.loop.call_later(self._draw.uniform(0, _SOON), self._strike_at, node)

    def _strike_at(self, node: str) -> None:
        if self._on:
            self._fail(node)
