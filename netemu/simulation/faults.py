"""The faults of a run, drawn from the seed: at random, and aimed at moments that matter."""

import asyncio
import random
from collections.abc import Sequence
from functools import partial
from typing import Final

from netemu.errors import NetemuError
from netemu.simulation.checkers import Checker
from netemu.simulation.cluster import Cluster, Service
from netemu.simulation.loop import PROCESS, Process
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
# The chance that the responder of its node is behind from then on, and how long: it is fresh still.
_BEHIND: Final = 0.15
_IS_BEHIND: Final = (2.0, 7.5)
# The chance that another node has trouble when the guests of one that has failed are to leave it,
# and that this one comes back about then.
_SECOND: Final = 0.4
_LEAVES: Final = (SILENCE - 2.5, SILENCE + 0.5)
_COMES_BACK: Final = (SILENCE - 2.0, SILENCE + 2.0)
# A guest that has moved is on its new node. The node that it has left, if it has no other guests,
# fails a little later; such a one comes back soon.
_HAS_MOVED: Final = 0.3
_IS_LOST: Final = (1.0, 5.0)
_EMPTY_AWAY: Final = (0.3, 1.5)
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
        cluster.network.unheard.clear()
        for host in cluster.hosts.values():
            host.fill(full=False)
        for transport in cluster.network.transports:
            transport.mute = transport.deaf = False
            # Only heartbeats show that changes are lost.
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
            (self._fill, 2),
            (self._ignore, 1),
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
        self._hold(service.name, process, long=self._draw.random() < 0.3)

    def _hold(self, name: str, process: Process, *, long: bool) -> None:
        lasts = self._draw.uniform(*(_LONG if long else _SHORT))
        self._note(f"pause {name} {lasts:.2f}")
        process.pause()
        self._cluster.loop.call_later(lasts, process.go_on)
        if long:
            self._return_later(name.partition("/")[0], lasts)

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
        if not hosts[name].wired.guests:
            self._cluster.loop.call_later(self._draw.uniform(*_EMPTY_AWAY), self._bring_back, name)
        elif self._draw.random() < _SECOND:
            other = self._draw.choice(sorted(hosts.keys() - {name}))
            self._cluster.loop.call_later(self._draw.uniform(*_LEAVES), self._strike_healing, other)
            self._cluster.loop.call_later(self._draw.uniform(*_COMES_BACK), self._bring_back, name)
        else:
            self._return_later(name)

    def _return_later(self, name: str, after: float = 0.0) -> None:
        lasts = after + self._draw.uniform(*_AWAY)
        self._cluster.loop.call_later(lasts, self._bring_back, name)

    def _strike_healing(self, node: str) -> None:
        """A node that is to take guests hangs, can store nothing, or is not heard."""
        if not self._on:
            return
        host = self._cluster.hosts[node]
        strike = self._draw.choice(("hang", "fill", "silence"))
        if strike == "fill":
            self._fill(node)
        elif strike == "silence":
            self._do_not_hear(node, "supervisor", self._draw.uniform(*_IS_BEHIND))
        elif (process := host.services[0].process) is not None and not process.paused:
            self._hold(host.services[0].name, process, long=True)

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

    def _ignore(self) -> None:
        """The lab does not hear a node, which is well and takes commands; so the node fails."""
        node = self._draw.choice(sorted(self._cluster.hosts))
        lasts = self._draw.uniform(*_LONG)
        self._do_not_hear(node, "supervisor", lasts)
        self._return_later(node, lasts)

    def _do_not_hear(self, node: str, listener: str, lasts: float) -> None:
        """What the node's agent says does not reach a process that follows it, for a while."""
        pair, unheard = (f"{node}/agent", listener), self._cluster.network.unheard
        self._note(f"{listener} does not hear {node} {lasts:.2f}")
        unheard.add(pair)
        self._cluster.loop.call_later(lasts, unheard.discard, pair)

    def _fill(self, node: str | None = None) -> None:
        """A node's agent can store nothing for a while."""
        node = node or self._draw.choice(sorted(self._cluster.hosts))
        self._note(f"fill {node}")
        host = self._cluster.hosts[node]
        host.fill(full=True)
        self._cluster.loop.call_later(self._draw.uniform(*_SPELL), partial(host.fill, full=False))

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
        """Fail a node while a guest is between two nodes, or have the one that it leaves not know
        of it.
        """
        if not self._on:
            return
        home = self._cluster.home(guest).name
        if self._draw.random() < _BEHIND:
            self._do_not_hear(home, f"{home}/responder", self._draw.uniform(*_IS_BEHIND))
        if self._draw.random() < _AIMED:
            node = self._draw.choice([home, *sorted(self._cluster.hosts)])
            self._cluster.loop.call_later(self._draw.uniform(0, _SOON), self._strike_at, node)
        self._cluster.loop.call_later(_HAS_MOVED, self._strike_left, home, guest)

    def _strike_left(self, node: str, guest: str) -> None:
        """A node is lost, with what it knows of a guest that has left it as the last one, while the
        guest's new node can store nothing.
        """
        host = self._cluster.hosts[node]
        if self._on and not host.wired.guests and not host.failed:
            self._fill(self._cluster.home(guest).name)
            self._cluster.loop.call_later(self._draw.uniform(*_IS_LOST), self._strike_at, node)

    def _strike_at(self, node: str) -> None:
        if self._on:
            self._fail(node)
