"""Guests that change their node while nodes fail: what one of them was told is never lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from hostagent.channel.messages import Adopt, Advance, Done, Place, Schedule, Withdraw
from hostagent.commands import execute
from hostagent.model import EventType
from hostagent.model import Guest as PlacedGuest
from hostagent.repository import Repository
from netemu.errors import NotSo
from netemu.supervisor.control import relocation
from netemu.supervisor.control.dead_node_store import last_known
from netemu.supervisor.control.placement import Known
from netemu.supervisor.control.relocation import Relocation
from netemu.supervisor.guests.power import Power
from netemu.supervisor.nodes.wiring import WiredGuest, WiredNode
from netemu.topology import Guest, parse

# `a` fits on `new` and `b` on `third`: apart from those of their sets.
LAB = """
nodes:
  old: {fault_domain: 0, guests: [{name: a, availability_set: s}, {name: b, availability_set: t}]}
  new: {fault_domain: 1, guests: [{name: c, availability_set: t}]}
  third: {fault_domain: 2, guests: [{name: d, availability_set: s}]}
"""


class FakeHost:
    """A node's software: its agent is a repository, closed between two commands."""

    def __init__(self, wired: WiredNode, directory: Path) -> None:
        self.wired, self.name, self.failed = wired, wired.node.name, False
        self.repository = directory / f"{self.name}.sqlite"
        self.services: list[Any] = []
        self.found: list[list[str]] = []  # events that were on its disk, by start

    def fail(self) -> None:
        self.failed = True

    def start(self) -> None:
        self.failed = False
        self.found.append([event.id for event in last_known(self).events])  # type: ignore[arg-type]

    def forget(self) -> None:
        self.repository.unlink()

    def do(self, command: Any) -> Done:
        repository = Repository(self.repository)
        try:
            with repository.transaction():
                answer, _ = execute(repository, command, time.time())
        finally:
            repository.close()
        assert isinstance(answer, Done), answer
        return answer


class FakePlacement:
    """Asks the repositories; a test may have something happen before one of its steps."""

    def __init__(self, hosts: Mapping[str, FakeHost]) -> None:
        self._hosts = hosts
        self.before: dict[tuple[str, str], Callable[[], None]] = {}
        self.hanging: set[str] = set()
        self._commands = 0

    def command(self, **values: Any) -> Any:
        self._commands += 1
        return {"command_id": f"{self._commands:08x}-0000-4000-8000-000000000000", **values}

    async def step(self, what: str, node: str) -> FakeHost:
        await asyncio.sleep(0)
        while node in self.hanging:
            await asyncio.sleep(0.001)
        self.before.pop((what, node), lambda: None)()
        if self._hosts[node].failed:
            await asyncio.sleep(0.005)  # it shows only when a connection is tried again
            raise NotSo(f"{node} has failed")
        return self._hosts[node]

    async def known(self, node: str) -> Known:
        return last_known(await self.step("known", node))  # type: ignore[arg-type]

    async def adopt(self, node: str, guests: Iterable[Guest], known: Known) -> None:
        host = await self.step("adopt", node)
        names = {guest.name for guest in guests}
        placed = tuple(one for one in known.guests if one.guest.name in names)
        values = self.command(clock_offset=0.0, guests=placed, events=tuple(known.events))
        host.do(Adopt(**values))

    async def withdraw(self, node: str, names: Iterable[str]) -> Mapping[str, tuple[int, int]]:
        host = await self.step("withdraw", node)
        left = host.do(Withdraw(**self.command(names=tuple(names)))).left
        assert left is not None
        return left

    def fail(self, node: str) -> None:
        pass

    def restore(self, node: str) -> None:
        pass

    @asynccontextmanager
    async def agent(self, node: str) -> AsyncIterator["FakeAgent"]:
        yield FakeAgent(self, await self.step("agent", node))


class FakeAgent:
    def __init__(self, placement: FakePlacement, host: FakeHost) -> None:
        self._placement, self._host = placement, host

    async def advance_to(self, clock_offset: float) -> None:
        self._host.do(Advance(command_id=str(uuid4()), to=clock_offset))

    async def guests(self) -> Any:
        return last_known(self._host).guests  # type: ignore[arg-type]

    async def schedule(self, names: Iterable[str], kind: EventType, **values: Any) -> None:
        self._host.do(Schedule(guests=tuple(names), type=kind, **values))


class FakeHardware:
    """Everybody on `off` has no power; ports are nobody's."""

    def __init__(self, nodes: Iterable[WiredNode]) -> None:
        self._wired = {one.guest.name: one for node in nodes for one in node.guests}
        self._node_of = {one.guest.name: node for node in nodes for one in node.guests}
        self.endured: dict[str, set[str]] = {name: set() for name in self._wired}
        self.off: set[str] = set()

    def busy(self, _: str) -> bool:
        return False

    def power(self, name: str) -> Power:
        return Power.OFF if name in self.off else Power.RUNNING

    def wired(self, name: str) -> WiredGuest:
        return self._wired[name]

    def node_of(self, name: str) -> WiredNode:
        return self._node_of[name]

    def replace(self, wired: WiredGuest, node: WiredNode) -> None:
        name = wired.guest.name
        before = self._node_of[name]
        before.guests[:] = [one for one in before.guests if one.guest.name != name]
        node.guests.append(wired)
        self._wired[name], self._node_of[name] = wired, node

    def set_ports(self, wired: WiredNode, *, up: bool) -> None:
        pass


class FakeWatching:
    """Every agent that has not failed has just been heard."""

    clock_offset = 0.0

    def __init__(self, hosts: Mapping[str, FakeHost]) -> None:
        self._hosts = hosts

    def poke(self) -> None:
        pass

    def heard(self, node: str) -> float | None:
        return None if self._hosts[node].failed else time.monotonic()


class FakeChronicle:
    def write(self, kind: str, **values: Any) -> None:
        pass


class Stage:
    """A relocation among fakes, but for the repositories: every guest is placed."""

    def __init__(self, directory: Path) -> None:
        nodes = [
            WiredNode(node, -1, [WiredGuest(guest, -1) for guest in node.guests])
            for node in parse(LAB, source="lab.yaml").nodes
        ]
        self.hosts = {node.node.name: FakeHost(node, directory) for node in nodes}
        self.placement = FakePlacement(self.hosts)
        self.hardware = FakeHardware(nodes)
        for host in self.hosts.values():
            guests = tuple(
                PlacedGuest(name=one.guest.name, port=one.guest.mark) for one in host.wired.guests
            )
            host.do(Place(**self.placement.command(guests=guests)))
        fakes: Any = (list(self.hosts.values()), self.hardware, self.placement)
        others: Any = (FakeWatching(self.hosts), FakeChronicle())
        self.relocation = Relocation("test", *fakes, *others)

    def tell(self, node: str, guest: str) -> str:
        """Have a node's agent acknowledge an event; gives its ID."""
        values = self.placement.command(guests=(guest,), type=EventType.FREEZE, notice=3600.0)
        event = self.hosts[node].do(Schedule(event_id=str(uuid4()), **values)).event
        assert event is not None
        return event.id

    def known(self, node: str) -> Known:
        return last_known(self.hosts[node])  # type: ignore[arg-type]

    def placed(self, node: str) -> dict[str, int]:
        """The guests that a node's agent knows, and their incarnations."""
        return {one.guest.name: one.incarnation for one in self.known(node).guests}

    def home(self, guest: str) -> str:
        return self.hardware.node_of(guest).node.name

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not what():
                await asyncio.sleep(0.001)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(relocation, "_PAUSE", 0.001)
    monkeypatch.setattr(relocation, "_LOOK", 0.001)
    monkeypatch.setattr(relocation, "SILENCE", 0.01)
    return Stage(tmp_path)


def test_a_guest_takes_along_what_its_agent_was_told_last(stage: Stage) -> None:
    early, late = stage.tell("old", "a"), []
    stage.placement.before["withdraw", "old"] = lambda: late.append(stage.tell("old", "a"))
    asyncio.run(stage.relocation.move("a"))
    assert stage.home("a") == "new"
    assert {one.id for one in stage.known("new").events} == {early, *late}
    assert list(stage.placed("old")) == ["b"]
    assert late


@pytest.mark.parametrize("step", ["known", "adopt"])
def test_where_the_guest_comes_to_fails_before_it_knows_all(stage: Stage, step: str) -> None:
    """What the old agent acknowledged in the meantime is on the failed node's disk."""
    early, late = stage.tell("old", "a"), []
    before = stage.placed("old")["a"]

    def fail() -> None:
        stage.relocation.fail("new")

    def tell() -> None:
        late.append(stage.tell("old", "a"))
        stage.placement.before[step, "new"] = fail

    stage.placement.before["withdraw", "old"] = tell
    asyncio.run(stage.relocation.move("a"))
    assert late
    assert stage.hosts["new"].failed
    assert stage.home("a") == "new"
    assert {one.id for one in stage.known("new").events} == {early, *late}
    assert stage.placed("new")["a"] > before


def test_a_node_does_not_come_back_before_its_disk_has_been_brought_all(stage: Stage) -> None:
    late: list[str] = []

    async def script() -> None:
        back: list[asyncio.Task[None]] = []

        def fail() -> None:
            stage.relocation.fail("new")
            back.append(asyncio.create_task(stage.relocation.restore("new")))

        def tell() -> None:
            late.append(stage.tell("old", "a"))
            stage.placement.before["known", "new"] = fail

        stage.placement.before["withdraw", "old"] = tell
        await stage.relocation.move("a")
        await back[0]

    asyncio.run(script())
    assert stage.hosts["new"].found == [late]
    assert list(stage.placed("new")) == ["a", "c"]


def test_the_old_node_fails_while_the_guest_leaves_it(stage: Stage) -> None:
    late: list[str] = []

    def tell_and_fail() -> None:
        late.append(stage.tell("old", "a"))
        stage.relocation.fail("old")

    stage.placement.before["withdraw", "old"] = tell_and_fail
    asyncio.run(stage.relocation.move("a"))
    assert stage.home("a") == "new"
    assert [one.id for one in stage.known("new").events] == late


def test_a_node_that_comes_back_with_nobody_on_it_has_forgotten_everything(stage: Stage) -> None:
    """Else it would tell anew of what has ended elsewhere since."""
    stage.tell("old", "a")
    stage.relocation.fail("old")
    for name in ("a", "b"):
        stage.hardware.replace(stage.hardware.wired(name), stage.hosts["new"].wired)
    asyncio.run(stage.relocation.restore("old"))
    assert stage.hosts["old"].found == [[]]
    there = stage.known("old")
    assert (list(there.guests), list(there.events)) == ([], [])


def test_a_node_that_comes_back_with_guests_still_knows_them(stage: Stage) -> None:
    event = stage.tell("old", "a")
    stage.relocation.fail("old")
    stage.hardware.replace(stage.hardware.wired("b"), stage.hosts["new"].wired)
    asyncio.run(stage.relocation.restore("old"))
    assert list(stage.placed("old")) == ["a"]
    assert [one.id for one in stage.known("old").events] == [event]


def test_who_goes_elsewhere_does_not_wait_for_a_node_that_hangs(stage: Stage) -> None:
    """A failed node's guests go to two others, of which one hangs: the other's boot at once."""

    async def script() -> None:
        healing = asyncio.create_task(stage.relocation.heal())
        await asyncio.sleep(0)
        stage.placement.hanging.add("new")
        stage.hardware.off |= {"a", "b"}
        stage.relocation.fail("old")
        await stage.until(lambda: stage.home("b") == "third")
        assert stage.home("a") == "old"
        stage.placement.hanging.clear()
        await stage.until(lambda: stage.home("a") == "new")
        healing.cancel()

    asyncio.run(script())
    for node, guest in (("new", "a"), ("third", "b")):
        (told,) = stage.known(node).events
        assert (told.guests, told.description) == ((guest,), "old has failed")
        assert told.id in stage.hardware.endured[guest]


def test_a_repository_that_cannot_be_read_is_named(stage: Stage) -> None:
    stage.hosts["old"].repository.write_bytes(b"not a repository at all, but long enough" * 50)
    with pytest.raises(NotSo, match="old: its repository cannot be read"):
        stage.known("old")


def test_a_guest_stays_when_nobody_has_room(stage: Stage) -> None:
    stage.relocation.fail("new")
    stage.relocation.fail("third")
    with pytest.raises(NotSo, match="no other node has room"):
        asyncio.run(stage.relocation.move("a"))
    assert stage.home("a") == "old"
    assert list(stage.placed("old")) == ["a", "b"]
