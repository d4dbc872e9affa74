"""Guests that change their node while nodes fail: what one of them was told is never lost."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from uuid import uuid4

import pytest

from hostagent.channel.requests import AddFaults, ClearFaults, Place, Schedule, Withdraw
from hostagent.controller import CommandRefused
from hostagent.faults import Fault
from hostagent.model import Event, EventType
from hostagent.model import Guest as PlacedGuest
from netemu.errors import NotSo
from netemu.supervisor.control import placement, relocation, store
from netemu.supervisor.control.carried_out import CarriedOut
from netemu.supervisor.control.faults import Faults
from netemu.supervisor.control.placement import Placement
from netemu.supervisor.control.relocation import Relocation
from netemu.supervisor.control.store import Known
from netemu.supervisor.guests.power import Action
from netemu.supervisor.nodes.wiring import WiredGuest, WiredNode
from netemu.topology import parse
from tests.netemu.supervisor.fake_store import FakeStore
from tests.netemu.supervisor.machines import FakeLab

# `a` fits on `new` and `b` on `third`: apart from those of their sets.
LAB = """
nodes:
  old: {fault_domain: 0, guests: [{name: a, availability_set: s}, {name: b, availability_set: t}]}
  new: {fault_domain: 1, guests: [{name: c, availability_set: t}]}
  third: {fault_domain: 2, guests: [{name: d, availability_set: s}]}
"""


class FakeHost:
    """A node's software, but for its agent."""

    def __init__(self, wired: WiredNode, store: FakeStore) -> None:
        self.wired, self.name, self.failed = wired, wired.node.name, False
        self._store = store
        self.returning, self.trouble = False, ""
        self.responders = 1
        self.found: list[list[str]] = []  # events that were on its disk, by start

    def fail(self) -> None:
        self.failed = True

    def start(self) -> None:
        self.failed = False
        with self._store.opened(self.name) as repository:
            self.found.append([event.id for event in repository.events()])

    @property
    def state(self) -> str:
        return "coming back" if self.returning else "failed" if self.failed else "running"

    async def serving(self) -> None:
        pass

    async def dead(self) -> None:
        assert self.failed

    def forget(self) -> None:
        self._store.file(self.name).unlink()


class FakeWatching:
    """Every agent that has not failed has just been heard."""

    clock_offset = 0.0

    def __init__(self, hosts: Mapping[str, FakeHost]) -> None:
        self._hosts = hosts
        self.told: dict[str, Known] = {}
        self.events: list[tuple[str, str]] = []  # what was adopted: the node and the event

    def adopted(self, node: str, events: Iterable[Event], _sequence: float) -> None:
        self.events += [(node, event.id) for event in events]

    def poke(self) -> None:
        pass

    def now(self) -> float:
        return time.time()

    def known(self, node: str) -> Known:
        return self.told[node]

    def heard(self, node: str) -> float | None:
        return None if self._hosts[node].failed else time.monotonic()


class FakeEventLog:
    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    def write(self, what: str, **details: Any) -> None:
        self.entries.append({"what": what, **details})


class Stage:
    """A relocation and a placement among fakes, but for the repositories: every guest is placed."""

    def __init__(self, fake_store: Callable[..., FakeStore]) -> None:
        self.plan = parse(LAB, source="lab.yaml")
        self.lab = FakeLab(self.plan)
        self.lab.claims.off |= set("abcd")  # nobody has an address
        self.hardware, nodes = self.lab.hardware, self.lab.nodes
        self.store = fake_store(*(node.node.name for node in nodes))
        self.hosts = {node.node.name: FakeHost(node, self.store) for node in nodes}
        for host in self.hosts.values():
            guests = tuple(
                PlacedGuest(name=one.guest.name, port=one.guest.mark) for one in host.wired.guests
            )
            self.store.do(host.name, Place(command_id=str(uuid4()), guests=guests))
        self.log = FakeEventLog()
        claims: Any = self.lab.claims
        self.placement = Placement(self.store, nodes, claims)
        fakes: Any = (list(self.hosts.values()), self.hardware, self.placement)
        self.watching = FakeWatching(self.hosts)
        self.carried_out = CarriedOut()
        others: Any = (self.watching, self.carried_out, self.log)
        self.relocation = Relocation("test", self.store, *fakes, *others)

    def tell(self, node: str, guest: str) -> str:
        """Have a node's agent acknowledge an event. Returns its ID."""
        command = Schedule(
            command_id=str(uuid4()),
            event_id=str(uuid4()),
            guests=(guest,),
            type=EventType.FREEZE,
            notice=3600.0,
        )
        event = self.store.do(node, command).event
        assert event is not None
        return event.id

    def user_faults(self) -> Faults:
        """The faults that users change."""
        watching: Any = self.watching
        return Faults(self.plan, self.store, self.lab.nodes, watching)

    def add_fault(self, node: str, number: int) -> None:
        """Have a node's agent acknowledge a fault of guest a."""
        fault = Fault(id=f"{number:08x}", at=0.0, status=500)
        self.store.do(node, AddFaults(command_id=str(uuid4()), guests=("a",), faults=(fault,)))

    def clear_fault(self, node: str, number: int) -> None:
        """Have a node's agent end a fault of guest a."""
        command = ClearFaults(command_id=str(uuid4()), guests=("a",), ids=(f"{number:08x}",))
        self.store.do(node, command)

    def faults(self, node: str) -> list[int]:
        """The faults that guest a has on a node."""
        (placed,) = (one for one in self.known(node).guests if one.guest.name == "a")
        return [int(fault.id, 16) for fault in placed.faults]

    def known(self, node: str) -> Known:
        with self.store.dead(node) as dead:
            return dead.snapshot()

    def placed(self, node: str) -> dict[str, int]:
        """The guests that a node's agent knows, and their incarnations."""
        return {one.guest.name: one.incarnation for one in self.known(node).guests}

    def home(self, guest: str) -> str:
        return self.hardware.node_of(guest).node.name

    async def shut_down(self, *guests: str) -> None:
        for guest in guests:
            await self.hardware.do(guest, Action.SHUT_DOWN)

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not what():
                await asyncio.sleep(0.001)


@pytest.fixture
def stage(fake_store: Callable[..., FakeStore], monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(relocation, "_PAUSE", 0.001)
    monkeypatch.setattr(relocation, "_LOOK", 0.001)
    monkeypatch.setattr(relocation, "SILENCE", 0.01)
    monkeypatch.setattr(relocation, "_FIRST_RETRY", 0.001)
    monkeypatch.setattr(placement, "_PAUSE", 0.001)
    return Stage(fake_store)


def test_a_guest_takes_along_what_its_agent_was_told_last(stage: Stage) -> None:
    early, late = stage.tell("old", "a"), []
    stage.store.before["withdraw", "old"] = lambda: late.append(stage.tell("old", "a"))
    asyncio.run(stage.relocation.move("a"))
    assert stage.home("a") == "new"
    assert {one.id for one in stage.known("new").events} == {early, *late}
    assert list(stage.placed("old")) == ["b"]
    assert late


@pytest.mark.parametrize("end", ["well", "new fails", "old fails", "answer lost", "refused"])
def test_faults_change_on_both_nodes_while_the_guest_moves(stage: Stage, end: str) -> None:
    """What a user adds or clears meanwhile is so in the end, whichever agent was told."""
    for number in (1, 2, 3):
        stage.add_fault("old", number)

    def change() -> None:
        stage.clear_fault("old", 1)
        stage.add_fault("old", 4)
        stage.clear_fault("new", 2)
        stage.add_fault("new", 5)
        if end == "new fails":
            stage.store.before["adopt", "new"] = lambda: stage.relocation.fail("new")
        elif end == "old fails":
            stage.relocation.fail("old")
        elif end == "answer lost":
            stage.store.after["withdraw", "old"] = lambda: stage.relocation.fail("old")
        elif end == "refused":
            stage.store.full.add("old")
        else:  # after the last look at the new node
            stage.store.before["adopt", "new"] = lambda: stage.clear_fault("new", 3)

    stage.store.before["withdraw", "old"] = change
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "SETTLED_WITHIN", 0.02)
        asyncio.run(stage.relocation.move("a"))
    assert sorted(stage.faults("new")) == ([4, 5] if end == "well" else [3, 4, 5])
    assert not [one for one in stage.log.entries if "problem" in one]


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_guest_moves_while_a_user_has_its_faults_changed(stage: Stage, forgotten: bool) -> None:
    """The old agent, which the command reaches, has forgotten the guest, or still knows it."""
    faults = stage.user_faults()

    def move() -> None:
        if forgotten:
            stage.store.do("old", Withdraw(command_id=str(uuid4()), names=("a",)))
        stage.store.do("new", Place(command_id=str(uuid4()), guests=(PlacedGuest(name="a"),)))
        stage.hardware.replace(stage.hardware.wired("a"), stage.hosts["new"].wired)

    async def script() -> None:
        stage.store.before["addfaults", "old"] = move
        await faults.add(["a"], [Fault(id="0000000a", at=0.0, status=500)])
        assert stage.faults("new") == [10]
        stage.hardware.replace(stage.hardware.wired("a"), stage.hosts["old"].wired)
        stage.store.before["clearfaults", "old"] = move
        await faults.clear(["a"], [])
        assert stage.faults("new") == []

    asyncio.run(script())


def test_that_faults_of_a_failed_nodes_guests_are_not_cleared_is_said(stage: Stage) -> None:
    """The guest will take them along when it heals."""
    faults = stage.user_faults()
    stage.add_fault("old", 1)
    stage.relocation.fail("third")

    async def script() -> None:
        stage.watching.told["third"] = stage.known("third")
        with pytest.raises(NotSo, match="third has failed: faults of its guests are not cleared"):
            await faults.clear([], [])

    asyncio.run(script())
    assert stage.faults("old") == []


@pytest.mark.parametrize("step", ["now", "adopt"])
def test_where_the_guest_comes_to_fails_before_it_knows_all(stage: Stage, step: str) -> None:
    """What the old agent acknowledged in the meantime is on the failed node's disk."""
    early, late = stage.tell("old", "a"), []
    before = stage.placed("old")["a"]

    def fail() -> None:
        stage.relocation.fail("new")

    def tell() -> None:
        late.append(stage.tell("old", "a"))
        stage.store.before[step, "new"] = fail

    stage.store.before["withdraw", "old"] = tell
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
            stage.store.before["now", "new"] = fail

        stage.store.before["withdraw", "old"] = tell
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

    stage.store.before["withdraw", "old"] = tell_and_fail
    asyncio.run(stage.relocation.move("a"))
    assert stage.home("a") == "new"
    assert [one.id for one in stage.known("new").events] == late


def test_a_node_that_comes_back_with_nobody_on_it_has_forgotten_everything(stage: Stage) -> None:
    """Else it would tell again of what has ended elsewhere since."""
    stage.tell("old", "a")
    stage.relocation.fail("old")
    for name in ("a", "b"):
        stage.hardware.replace(stage.hardware.wired(name), stage.hosts["new"].wired)
    asyncio.run(stage.relocation.restore("old"))
    assert stage.hosts["old"].found == [[]]
    there = stage.known("old")
    assert (list(there.guests), list(there.events)) == ([], [])


@pytest.mark.parametrize("fails", [False, True])
def test_the_lab_knows_at_once_which_events_have_moved(stage: Stage, fails: bool) -> None:
    """Also if the new node fails before it has all of them: they are brought to its disk."""
    early, late = stage.tell("old", "a"), []
    stage.tell("old", "b")

    def tell() -> None:
        late.append(stage.tell("old", "a"))
        if fails:
            stage.store.before["now", "new"] = lambda: stage.relocation.fail("new")

    stage.store.before["withdraw", "old"] = tell
    asyncio.run(stage.relocation.move("a"))
    assert set(stage.watching.events) == {("new", early), ("new", *late)}


def test_a_node_that_comes_back_with_guests_still_knows_them(stage: Stage) -> None:
    event = stage.tell("old", "a")
    stage.relocation.fail("old")
    stage.hardware.replace(stage.hardware.wired("b"), stage.hosts["new"].wired)
    asyncio.run(stage.relocation.restore("old"))
    assert list(stage.placed("old")) == ["a"]
    assert [one.id for one in stage.known("old").events] == [event]


def test_a_node_that_comes_back_acknowledges_no_event_of_a_guest_that_has_left(
    stage: Stage,
) -> None:
    """A user's command that waited for the agent is the first thing that the agent hears."""
    told: list[str] = []

    def tell() -> None:
        try:
            told.append(stage.tell("old", "b"))
        except CommandRefused as refusal:
            told.append(str(refusal))

    stage.relocation.fail("old")
    stage.hardware.replace(stage.hardware.wired("b"), stage.hosts["new"].wired)
    stage.store.before["advance", "old"] = tell
    asyncio.run(stage.relocation.restore("old"))
    assert told == ["not on this node: b"]
    assert list(stage.placed("old")) == ["a"]


def test_who_goes_elsewhere_does_not_wait_for_a_node_that_hangs(stage: Stage) -> None:
    """A failed node's guests go to two others, of which one hangs: the other's boot at once."""

    async def script() -> None:
        healing = asyncio.create_task(stage.relocation.heal())
        await asyncio.sleep(0)
        stage.store.hanging.add("new")
        await stage.shut_down("a", "b")
        stage.relocation.fail("old")
        await stage.until(lambda: stage.home("b") == "third")
        assert stage.home("a") == "old"
        stage.store.hanging.clear()
        await stage.until(lambda: stage.home("a") == "new")
        healing.cancel()

    asyncio.run(script())
    for node, guest in (("new", "a"), ("third", "b")):
        (told,) = stage.known(node).events
        assert (told.guests, told.description) == ((guest,), "old has failed")
        assert stage.carried_out.on(guest, told.id)


def test_a_guest_that_cannot_be_moved_yet_is_told_nothing_of_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told at its new node, once, when it gets there."""
    rewire, told_first = stage.hardware.rewire, []

    async def refuse(_guests: Iterable[str], _node: WiredNode) -> None:
        told_first.extend(stage.store.commands(Schedule))
        monkeypatch.setattr(stage.hardware, "rewire", rewire)
        raise OSError(24, "Too many open files")

    async def script() -> None:
        healing = asyncio.create_task(stage.relocation.heal())
        await asyncio.sleep(0)
        await stage.shut_down("a")
        monkeypatch.setattr(stage.hardware, "rewire", refuse)
        stage.relocation.fail("old")
        await stage.until(lambda: stage.home("a") == "new")
        healing.cancel()

    asyncio.run(script())
    assert told_first == []
    (told,) = stage.known("new").events
    assert stage.carried_out.on("a", told.id)


def test_a_guest_that_was_told_already_is_not_rebooted_for_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its new node has failed once it was told, and come back."""
    put, puts = stage.relocation._moves.put, []

    def fail(*arguments: Any, **how: Any) -> None:
        puts.append(arguments)
        if len(puts) == 1:
            stage.carried_out._on.clear()
            raise OSError(24, "Too many open files")
        put(*arguments, **how)

    async def script() -> None:
        healing = asyncio.create_task(stage.relocation.heal())
        await asyncio.sleep(0)
        await stage.shut_down("a")
        monkeypatch.setattr(stage.relocation._moves, "put", fail)
        stage.relocation.fail("old")
        await stage.until(lambda: stage.home("a") == "new")
        healing.cancel()

    asyncio.run(script())
    (told,) = stage.known("new").events
    assert stage.carried_out.on("a", told.id)


def test_a_repository_that_cannot_be_read_is_named(stage: Stage) -> None:
    stage.store.file("old").write_bytes(b"not a repository at all, but long enough" * 50)
    with pytest.raises(NotSo, match="old: its repository cannot be read"):
        stage.known("old")


def test_a_guest_stays_when_nobody_has_room(stage: Stage) -> None:
    stage.relocation.fail("new")
    stage.relocation.fail("third")
    with pytest.raises(NotSo, match="no other node has room"):
        asyncio.run(stage.relocation.move("a"))
    assert stage.home("a") == "old"
    assert list(stage.placed("old")) == ["a", "b"]


def test_a_second_restore_of_a_node_is_refused_and_hangs_nothing(stage: Stage) -> None:
    """A user asks twice while guests are being brought elsewhere."""

    async def script() -> None:
        stage.relocation.fail("old")
        async with stage.relocation._changing:  # as an evacuation
            both = [asyncio.create_task(stage.relocation.restore("old")) for _ in range(2)]
            await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            first, second = await asyncio.gather(*both, return_exceptions=True)
        assert first is None
        assert str(second) == "old has not failed"
        stage.relocation.fail("old")
        await stage.relocation.restore("old")

    asyncio.run(script())


def test_a_node_that_comes_back_throws_nobody_out(stage: Stage) -> None:
    """A user restores a node and, meanwhile, redeploys a guest that could go there."""
    event = stage.tell("new", "c")

    async def script() -> None:
        for guest in ("a", "b"):
            stage.hardware.replace(stage.hardware.wired(guest), stage.hosts["third"].wired)
        stage.relocation.fail("old")
        moving: list[asyncio.Task[None]] = []

        def redeploy() -> None:
            moving.append(asyncio.create_task(stage.relocation.move("c")))

        stage.store.before["advance", "old"] = redeploy
        await stage.relocation.restore("old")
        await moving[0]
        following = asyncio.create_task(stage.placement.follow())
        await asyncio.sleep(0.05)
        following.cancel()

    asyncio.run(script())
    home = stage.home("c")
    assert "c" in stage.placed(home)
    assert event in {one.id for one in stage.known(home).events}
    assert list(stage.placed("new")) == []


def test_a_node_that_does_not_come_back_is_failed_again(stage: Stage) -> None:
    async def script() -> None:
        stage.relocation.fail("old")

        def fail_again() -> None:
            stage.relocation.fail("old")

        stage.store.before["advance", "old"] = fail_again
        with pytest.raises(NotSo, match=r"^old does not come back: old has failed$"):
            await stage.relocation.restore("old")
        assert stage.hosts["old"].failed
        await stage.relocation.restore("old")
        assert not stage.hosts["old"].failed

    asyncio.run(script())


def test_the_old_node_fails_before_its_answer_is_heard(stage: Stage) -> None:
    """Its agent has forgotten the guest: what it had acknowledged is found all the same."""
    late: list[str] = []

    def tell() -> None:
        late.append(stage.tell("old", "a"))
        late.append(stage.tell("old", "a"))

    stage.store.before["withdraw", "old"] = tell
    stage.store.after["withdraw", "old"] = lambda: stage.relocation.fail("old")
    before = stage.placed("old")["a"]
    asyncio.run(stage.relocation.move("a"))
    assert "a" not in stage.placed("old")
    assert {one.id for one in stage.known("new").events} == set(late)
    assert stage.placed("new")["a"] > before + len(late)


def fill(stage: Stage, node: str) -> None:
    """Have its agent refuse a guest: the mark of its port is somebody else's."""
    stage.store.do(node, Place(command_id=str(uuid4()), guests=(PlacedGuest(name="x", port=1),)))


def test_where_it_is_refused_a_guest_goes_elsewhere(stage: Stage) -> None:
    fill(stage, "new")
    asyncio.run(stage.relocation.move("a"))
    assert stage.home("a") == "third"
    assert "a" in stage.placed("third")


def test_a_guest_that_nobody_takes_stays_and_it_is_said_why(stage: Stage) -> None:
    fill(stage, "new")
    fill(stage, "third")
    with pytest.raises(NotSo, match=r"new: port 1 is guest x's.*third: port 1 is guest x's"):
        asyncio.run(stage.relocation.move("a"))
    assert stage.home("a") == "old"
    assert "a" in stage.placed("old")


def test_an_agent_that_is_silent_for_a_moment_is_asked_again(stage: Stage) -> None:
    stage.store.unreachable = 2
    asyncio.run(stage.relocation.move("a"))
    assert stage.home("a") == "new"


def test_a_guest_that_comes_to_a_node_waits_for_its_responder(stage: Stage) -> None:
    """Else it would be told what was so when it was there last."""

    async def script() -> None:
        stage.store.lagging["new"] = 0
        moving = asyncio.create_task(stage.relocation.move("a"))
        await stage.until(lambda: "a" in stage.placed("new") and "a" not in stage.placed("old"))
        await asyncio.sleep(0.05)
        assert not moving.done()
        del stage.store.lagging["new"]
        await moving

    asyncio.run(script())


def test_it_does_not_wait_for_ever(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "_APPLIED_WITHIN", 0.02)
    stage.store.lagging["new"] = 0
    asyncio.run(stage.relocation.move("a"))
    assert stage.home("a") == "new"


def test_guests_of_a_node_whose_disk_is_damaged_keep_what_the_lab_was_told(stage: Stage) -> None:
    event = stage.tell("old", "a")
    stage.watching.told["old"] = stage.known("old")
    stage.store.file("old").write_bytes(b"not a repository at all, but long enough" * 50)

    async def script() -> None:
        healing = asyncio.create_task(stage.relocation.heal())
        await asyncio.sleep(0)
        await stage.shut_down("a", "b")
        stage.relocation.fail("old")
        await stage.until(lambda: {stage.home("a"), stage.home("b")} == {"new", "third"})
        healing.cancel()

    asyncio.run(script())
    assert event in {one.id for one in stage.known("new").events}
    problems = [one["problem"] for one in stage.log.entries if "problem" in one]
    assert len([one for one in problems if "cannot be read" in one]) == 1


def test_that_there_is_no_room_is_said_once(stage: Stage) -> None:
    async def script() -> None:
        healing = asyncio.create_task(stage.relocation.heal())
        await asyncio.sleep(0)
        await stage.shut_down("a", "b")
        for node in ("new", "third", "old"):
            stage.relocation.fail(node)
        problem = "no other node has room for all of its guests"
        await stage.until(lambda: stage.relocation.problems.get("old") == problem)
        await asyncio.sleep(0.1)
        assert [one.get("problem") for one in stage.log.entries].count(problem) == 1
        await stage.relocation.restore("new")
        await stage.until(lambda: stage.home("a") == stage.home("b") == "new")
        await stage.until(lambda: not stage.relocation.problems)
        healing.cancel()

    asyncio.run(script())


def test_a_node_that_comes_back_boots_nobody_before_it_is_back(stage: Stage) -> None:
    seen: list[tuple[str, bool]] = []

    def look() -> None:
        host: Any = stage.hosts["old"]
        seen.append((host.state, stage.relocation.host_failed("a")))

    async def script() -> None:
        stage.relocation.fail("old")
        look()
        stage.store.before["advance", "old"] = look
        await stage.relocation.restore("old")
        look()

    asyncio.run(script())
    assert seen == [("failed", True), ("coming back", True), ("running", False)]


def test_a_node_whose_wires_cannot_be_set_fails_all_the_same(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_wired: WiredNode, *, up: bool) -> None:
        raise OSError(24, "Too many open files")

    async def script() -> None:
        monkeypatch.setattr(stage.hardware, "set_ports", refuse)
        stage.relocation.fail("old")
        assert stage.hosts["old"].failed
        assert "Too many open files" in stage.relocation.problems["old"]
        with pytest.raises(NotSo, match=r"old does not come back: .*Too many open files"):
            await stage.relocation.restore("old")
        assert stage.hosts["old"].failed
        monkeypatch.undo()

    asyncio.run(script())


def test_an_agent_forgets_a_guest_whose_wire_cannot_be_moved(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_wired: WiredGuest, _node: WiredNode) -> None:
        raise OSError(24, "Too many open files")

    async def script() -> None:
        following = asyncio.create_task(stage.placement.follow())
        with monkeypatch.context() as patch:
            patch.setattr(stage.hardware, "replace", refuse)
            with pytest.raises(OSError, match="Too many"):
                await stage.relocation.move("a")
        await stage.until(lambda: "a" not in stage.placed("new"))
        following.cancel()

    asyncio.run(script())
    assert stage.home("a") == "old"
    assert "a" in stage.placed("old")


def test_a_node_whose_disk_is_full_takes_nobody_and_is_not_ended_for_that(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One full disk would else end node after node."""
    monkeypatch.setattr(store, "SETTLED_WITHIN", 0.02)
    stage.store.full |= {"new", "third"}
    with pytest.raises(NotSo, match=r"new: the repository has failed.*third: the repository"):
        asyncio.run(stage.relocation.move("a"))
    assert not any(host.failed for host in stage.hosts.values())
    assert stage.home("a") == "old"
    stage.store.full = {"new"}
    asyncio.run(stage.relocation.move("a"))
    assert stage.home("a") == "third"


def test_a_guest_leaves_a_node_whose_disk_is_full(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was told there comes along, and it is forgotten there when that can be stored."""
    monkeypatch.setattr(store, "SETTLED_WITHIN", 0.02)
    monkeypatch.setattr(placement, "_LAST_RETRY", 0.01)
    late: list[str] = []

    async def script() -> None:
        following = asyncio.create_task(stage.placement.follow())
        await asyncio.sleep(0.01)
        stage.store.before["withdraw", "old"] = lambda: late.append(stage.tell("old", "a"))
        stage.store.full.add("old")
        await stage.relocation.move("a")
        assert stage.home("a") == "new"
        assert [one.id for one in stage.known("new").events] == late
        assert not stage.hosts["old"].failed
        stage.store.full.clear()
        await stage.until(lambda: "a" not in stage.placed("old"))
        following.cancel()

    asyncio.run(script())
