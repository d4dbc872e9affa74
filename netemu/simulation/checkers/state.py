"""What the lab keeps and does: nothing acknowledged is lost, and nothing is stuck."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from hostagent.channel.requests import Placed
from hostagent.faults import Fault, is_over
from hostagent.model import FINAL, Event
from netemu.simulation.checkers.checker import COMES_BACK, Checker
from netemu.supervisor.guests.power import Power

if TYPE_CHECKING:
    from netemu.simulation.cluster import Cluster, Mind

_FaultOf: TypeAlias = tuple[str, str]
"""A guest, and a fault's ID."""

LEARNS_WITHIN: Final = 10.0
"""Seconds within which a responder hears of what it has missed: some heartbeats, and a joining."""


class Acknowledged(Checker):
    """An acknowledged command is there exactly once, and a refused one is not."""

    def __init__(self, cluster: "Cluster") -> None:
        super().__init__(cluster)
        self._events: dict[str, Event] = {}
        self._refused: set[str] = set()
        self._possible: dict[str, set[str | None]] = {}
        self._open: set[str] = set()  # events that have not ended, as the lab lists them

    def acknowledged(self, event: Event) -> None:
        self._events[event.id] = event

    def refused(self, event_id: str) -> None:
        self._refused.add(event_id)

    def moment(self) -> None:
        listed = self.cluster.feeds.events()
        for event_id in self._open - listed.keys():
            self.breach(f"event {event_id} is not listed any more, and has not ended")
        self._open = {one.id for one in listed.values() if one.status not in FINAL}
        for event_id in self._refused & listed.keys():
            self.breach(f"event {event_id} was refused, and is there")

    def set_to(self, guest: str, value: str, *, known: bool) -> None:
        possible = self._possible.setdefault(guest, {None})  # before the first: none
        if known:
            possible.clear()
        possible.add(value)

    def set_refused(self, guest: str, value: str) -> None:
        self._possible[guest].discard(value)

    def end(self) -> None:
        for event in self._events.values():
            for guest in event.guests:
                held = self._at_home(guest)
                if held is not None and Counter(one.id for one in held)[event.id] != 1:
                    self.breach(f"event {event.id} of {guest} is not there")
        for guest, possible in self._possible.items():
            told = self.cluster.placement.properties(guest).get("tags.sim")
            if told not in possible:
                self.breach(f"{guest} is told {told}, possible was {sorted(map(str, possible))}")
            mind = self.cluster.home(guest).mind
            if mind is not None and guest in mind.knowledge.guests:
                there = mind.knowledge.guests[guest].guest.properties.get("tags.sim")
                if there != told:
                    self.breach(f"{guest} is to be told {told}, its responder says {there}")

    def _at_home(self, guest: str) -> Sequence[Event] | None:
        mind = self.cluster.home(guest).mind
        if mind is None or guest not in mind.knowledge.guests:
            return None  # the checker of liveness reports that
        return list(mind.knowledge.events.values())


class FaultsKept(Checker):
    """A fault that was acknowledged stays with its guest until it is over or cleared."""

    def __init__(self, cluster: "Cluster") -> None:
        super().__init__(cluster)
        self._possible: set[_FaultOf] = set()  # nobody has asked since that it ends
        self._known: dict[_FaultOf, Fault] = {}  # acknowledged
        self._there: set[_FaultOf] = set()
        self._ending: dict[int, str] = {}  # guests, by request: any may still be carried out
        self._before_end: dict[int, set[_FaultOf]] = {}
        self._gone: set[_FaultOf] = set()
        self._probes: Counter[str] = Counter()
        self._before: dict[_FaultOf, int] = {}  # the guest's probes when the fault was added

    def fault_added(self, guest: str, fault: Fault, *, known: bool) -> None:
        key = guest, fault.id
        if not known:
            self._possible.add(key)
            self._before[key] = self._probes[guest]
            return
        self._known[key] = fault
        if key in self._possible and guest not in self._ending.values():
            self._there.add(key)

    def faults_cleared(self, guest: str, number: int, *, known: bool) -> None:
        if known:
            self._gone |= self._before_end.pop(number)
            del self._ending[number]
            return
        self._ending[number] = guest
        self._before_end[number] = {key for key in self._known if key[0] == guest}
        for keys in (self._there, self._possible):
            keys -= {key for key in keys if key[0] == guest}

    def probed(self, guest: str) -> None:
        self._probes[guest] += 1

    def end(self) -> None:
        now = self.cluster.latest()
        for name in self.cluster.hardware:
            agent = self.cluster.home(name).opened
            placed = None if agent is None else agent.placed(name)
            if placed is None:
                continue  # the checkers of liveness and of nodes report that
            for fault in placed.faults:
                if is_over(fault, now - COMES_BACK):
                    self.breach(f"{name} still has {fault}")
                if (name, fault.id) in self._gone:
                    self.breach(f"fault {fault.id} of {name} was cleared, and is there")
            held = {fault.id for fault in placed.faults}
            for guest, fault_id in sorted(self._there):
                if guest == name and fault_id not in held and self._lasts(guest, fault_id):
                    self.breach(f"fault {fault_id} of {name} is not there")

    def _lasts(self, guest: str, fault_id: str) -> bool:
        """Whether the fault cannot be over yet."""
        key = guest, fault_id
        fault, met = self._known[key], self._probes[guest] - self._before[key]
        return fault.until is None and (fault.times is None or met < fault.times)


class Feed(Checker):
    """A feed that was cut equals the agent's state, and one that is heard is not behind."""

    def __init__(self, cluster: "Cluster") -> None:
        super().__init__(cluster)
        self._behind: dict[str, tuple[tuple[int, int], float]] = {}  # by node: whose mind, since
        self._compared: dict[str, tuple[int, int]] = {}  # by node: whose mind, as of what

    def moment(self) -> None:
        for host in self.cluster.hosts.values():
            disk, mind = host.opened, host.mind
            if disk is None or mind is None:
                continue
            # Compared at the same sequence only, and once: later changes may be on their way.
            state = id(mind), mind.knowledge.sequence
            self._look_behind(host.name, mind, disk.sequence)
            if self._compared.get(host.name) == state or state[1] != disk.sequence:
                continue
            self._compared[host.name] = state
            known = {name: _told(one) for name, one in mind.knowledge.guests.items()}
            there = {one.guest.name: _told(one) for one in disk.guests()}
            events = {one.id: one.status for one in mind.knowledge.events.values()}
            events_there = {one.id: one.status for one in disk.events()}
            if known != there:
                self.breach(f"{host.name}: guests {known}, its agent has {there}")
            if events != events_there:
                self.breach(f"{host.name}: events {events}, its agent has {events_there}")

    def _look_behind(self, node: str, mind: "Mind", sequence: int) -> None:
        """A responder that hears heartbeats learns from them what it has missed."""
        now = self.cluster.loop.time()
        state = id(mind), mind.knowledge.sequence
        known, since = self._behind.get(node, (state, now))
        runs = mind.process is not None and mind.process.alive and not mind.process.paused
        unheard = (f"{node}/agent", f"{node}/responder") in self.cluster.network.unheard
        if (
            not runs
            or unheard
            or state[1] == sequence
            or known != state
            or not mind.knowledge.fresh(now)
        ):
            self._behind.pop(node, None)
            return
        self._behind[node] = state, since
        if now - since > LEARNS_WITHIN:
            self.breach(f"{node}: its responder is at {state[1]}, its agent at {sequence}")


def _told(placed: Placed) -> tuple[int, Sequence[tuple[str, int]]]:
    return placed.incarnation, [(fault.id, fault.used) for fault in placed.faults]


class Once(Checker):
    """An event begins and ends once."""

    def end(self) -> None:
        seen = Counter(
            (one["id"], one["status"])
            for one in self.cluster.event_log.entries()
            if one["what"] == "event"
        )
        for (event, status), times in seen.items():
            if times > 1:
                self.breach(f"event {event} was {status} {times} times")


class Lively(Checker):
    """After the last fault every guest is placed and answered."""

    def end(self) -> None:
        cluster = self.cluster
        for host in cluster.hosts.values():
            if host.failed and host.name != cluster.left_away:
                self.breach(f"{host.name} is still away")
        for name in cluster.hardware:
            power = cluster.hardware.power(name)
            if power is Power.GONE:
                continue
            if power is not Power.RUNNING or not cluster.hardware.bound(name):
                self.breach(f"{name} is {power}, {cluster.impact.problems.get(name, '')}")
            elif cluster.told(name) is None:
                self.breach(f"{name} on {cluster.home(name).name} is not answered")


class OnOneNode(Checker):
    """A guest is on one node, and its agent knows it."""

    def end(self) -> None:
        for name in self.cluster.hardware:
            if self.cluster.hardware.power(name) is Power.GONE:
                continue
            known = [
                host.name
                for host in self.cluster.hosts.values()
                if host.opened is not None and host.opened.placed(name) is not None
            ]
            home = self.cluster.home(name).name
            if known != [home]:
                self.breach(f"{name} is on {home}, and known to {known}")


class OneClock(Checker):
    """The metadata clock is one, and moves as far as it was moved."""

    def __init__(self, cluster: "Cluster") -> None:
        super().__init__(cluster)
        self._furthest = 0.0

    def moved(self, to: float) -> None:
        self._furthest = max(self._furthest, to)

    def restored(self, node: str, ahead: float) -> None:
        host = self.cluster.hosts[node]
        if host.failed:
            return
        with host.disk() as disk:
            found = 0.0 if disk is None else disk.clock_offset
        if found < ahead - 1.0:
            self.breach(f"{node} is back {found} s ahead, the lab was {ahead} s ahead before")

    def end(self) -> None:
        # Each time the machine's clock is set back the agents move theirs on; forward, they follow.
        set_back = self.cluster.wall.set_back
        for host in self.cluster.hosts.values():
            if host.opened is None:
                continue
            ahead = host.opened.clock_offset
            if ahead > self._furthest + set_back + 1.0:
                self.breach(f"{host.name} is {ahead} s ahead; moved by {self._furthest} s at most")
        offsets = [one.opened.clock_offset for one in self.cluster.hosts.values() if one.opened]
        if offsets and max(offsets) - min(offsets) > 1.0:
            self.breach(f"the nodes are {offsets} s ahead")


class NothingHidden(Checker):
    """No error is lost, and no duty ends."""

    def end(self) -> None:
        for problem in self.cluster.loop.problems:
            self.breach(f"{problem.get('message')}: {problem.get('exception')!r}")
