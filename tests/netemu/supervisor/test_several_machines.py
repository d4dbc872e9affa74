"""A lab on two machines that share a store: what one knows and commands of the other's nodes."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from hostagent.channel.requests import Cancel, Place, Schedule
from hostagent.controller import calls
from hostagent.faults import Fault
from hostagent.model import EventSource, EventType, Guest
from netemu.errors import BadInput, NotSo
from netemu.supervisor.control import membership, published_state, shared_store
from netemu.supervisor.control.agent_feeds import AgentFeeds
from netemu.supervisor.control.event_log import EventLog
from netemu.supervisor.control.faults import Faults
from netemu.supervisor.control.maintenance import Maintenance
from netemu.supervisor.control.membership import Part
from netemu.supervisor.control.store import AgentRefuses, AgentSilent, NodeFailed
from netemu.supervisor.nodes.wiring import WiredGuest, WiredNode
from netemu.topology import parse
from netemu.wire import event_questions
from tests.netemu.supervisor.fake_etcd import FakeEtcd
from tests.netemu.supervisor.fake_store import FakeStore
from tests.netemu.supervisor.shared import Shared

LAB = """
nodes:
  n1: {guests: [{name: a, availability_set: s}]}
  n2: {machine: other, guests: [{name: b, availability_set: s}, c]}
"""


class Machine:
    """One of the two, with the node `node`."""

    def __init__(self, etcd: FakeEtcd, name: str, node: str, other: str, local: FakeStore) -> None:
        self.local, self.told = local, list[str]()
        part = Part("lab", name, (node,), (other,), None, b"lab")
        if name != "first":
            (activity,) = (one.value for key, one in etcd.keys.items() if key.endswith("activity"))
            part = part._replace(activity=activity.decode())
        lab = parse(LAB, source="lab.yaml")
        self.shared = Shared(etcd, part, lab, local, self.told.append)
        self.store = self.shared.store
        nodes = {one.name: one for one in lab.nodes}
        here = WiredNode(nodes[node], -1, [WiredGuest(one, -1) for one in nodes[node].guests])
        self.log = EventLog()
        self.feeds = AgentFeeds(self.store, (node, other), self.log)
        self.plan = Maintenance("lab", self.store, [here], self.feeds, [nodes[other]])
        self.faults = Faults(lab, self.store, [here], self.feeds, self.plan.elsewhere)

    async def begin(self) -> None:
        await self.shared.begin()
        self.running = asyncio.create_task(self.shared.run())
        self.feeding = asyncio.create_task(self.feeds.run())

    async def end(self) -> None:
        """As when it is killed: nobody takes leave."""
        for task in (self.feeding, self.running):
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled(), task.exception()

    async def schedule(self, *guests: str, **how: Any) -> Any:
        given: dict[str, Any] = {
            "kind": EventType.FREEZE,
            "notice": 60.0,
            "duration": 5.0,
            "source": EventSource.PLATFORM,
            "description": "",
            "notice_only": False,
        }
        return await self.plan.schedule(event_questions.Schedule(list(guests), **{**given, **how}))


class Stage:
    def __init__(self, fake_store: Callable[..., FakeStore]) -> None:
        self._fake_store = fake_store
        self.etcd = FakeEtcd()
        self.first = Machine(self.etcd, "first", "n1", "n2", fake_store("n1"))

    def other(self, name: str = "other") -> Machine:
        return Machine(self.etcd, name, "n2", "n1", self._fake_store("n2"))

    async def joined(self) -> Machine:
        machine = self.other()
        await machine.begin()
        await self.until(lambda: not self.first.store.away("n2"))
        guests = [Guest(name="b", availability_set="s"), Guest(name="c")]
        await machine.store.append("n2", calls.place(guests))
        await self.until(lambda: len(self.first.feeds.known("n2").guests) == 2)
        return machine

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not what():
                await asyncio.sleep(0.001)


Script = Callable[[Stage], Coroutine[Any, Any, None]]


@pytest.fixture
def play(
    fake_store: Callable[..., FakeStore], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Script], None]:
    monkeypatch.setattr(membership, "RENEWED_EVERY", 0.005)
    monkeypatch.setattr(membership, "ALIVE", 0.05)
    monkeypatch.setattr(published_state, "_BURST", 0.001)
    monkeypatch.setattr(published_state, "_PAUSE", 0.001)

    def run(script: Script) -> None:
        async def staged() -> None:
            stage = Stage(fake_store)
            await stage.first.begin()
            await stage.first.store.append(
                "n1", calls.place([Guest(name="a", availability_set="s")])
            )
            await script(stage)
            await stage.first.end()

        asyncio.run(staged())

    return run


def test_a_command_is_carried_out_where_its_node_is(play: Callable[[Script], None]) -> None:
    async def script(stage: Stage) -> None:
        other = await stage.joined()
        event = await stage.first.store.append("n2", calls.schedule(["c"], EventType.FREEZE))
        assert len(other.local.commands(Schedule)) == 1
        assert stage.first.local.commands(Schedule) == []
        with pytest.raises(AgentRefuses, match=r"^n2: not on this node: a$"):
            await stage.first.store.settle("n2", calls.schedule(["a"], EventType.FREEZE))
        await stage.until(lambda: event.id in stage.first.feeds.events())
        known = await stage.first.store.snapshot("n2")
        assert [one.id for one in known.events] == [event.id]
        assert {one.guest.name for one in known.guests} == {"b", "c"}
        await stage.first.store.append("n2", calls.advance_to(60.0))
        await stage.until(lambda: stage.first.feeds.clock_offset == 60.0)
        await other.end()

    play(script)


def test_an_event_is_one_on_all_machines(play: Callable[[Script], None]) -> None:
    """A user plans one for guests of both, and lists it on either; each guest's agent has it."""

    async def script(stage: Stage) -> None:
        other = await stage.joined()
        with pytest.raises(BadInput, match="its guests are on several machines: an event of such"):
            await stage.first.schedule("a", "c", duration=None)
        event = await stage.first.schedule("a", "c")
        await stage.until(lambda: event.id in other.feeds.events())
        assert (await other.plan.transition("start", event.id[:8])).status == "Started"
        await stage.until(lambda: stage.first.feeds.events()[event.id].status == "Started")
        assert [one.guests for one in other.plan.events()] == [("a", "c")]
        # `a` is told of what befalls `b`, which is of its availability set.
        seen = await other.schedule("b", duration=None)
        await stage.until(lambda: len(stage.first.local.commands(Schedule)) == 2)
        known = (await stage.first.store.snapshot("n1")).events
        assert seen.id in {one.id for one in known}
        await other.end()

    play(script)


def test_that_the_other_machine_is_quicker_is_no_refusal(
    play: Callable[[Script], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It carries its own nodes on to where others are, and tells of it a little later."""

    async def script(stage: Stage) -> None:
        other = await stage.joined()
        event = await stage.first.schedule("a", "c")
        monkeypatch.setattr(published_state, "_BURST", 0.2)
        await other.schedule("c")  # from now on it tells of what it knows so much later
        cancel = Cancel(command_id="theirs", event_id=event.id)
        stage.first.local.after["cancel", "n1"] = lambda: other.local.do("n2", cancel)
        assert (await stage.first.plan.transition("cancel", event.id)).status == "Cancelled"
        await other.end()

    play(script)


def test_what_is_on_a_machine_that_is_away_is_said(play: Callable[[Script], None]) -> None:
    """Before it joins and after it was lost; then its part of the lab starts again."""

    async def script(stage: Stage) -> None:
        away = "c: its node n2 is on another machine, which is away"
        with pytest.raises(NotSo, match=away):
            await stage.first.schedule("c")
        other = await stage.joined()
        event = await stage.first.schedule("c")
        await other.end()
        stage.etcd.end(other.store._membership.lease)
        await stage.until(lambda: stage.first.store.away("n2"))
        with pytest.raises(NotSo, match=away):
            await stage.first.schedule("c")
        with pytest.raises(NodeFailed, match="n2 is on another machine, which is away"):
            await stage.first.store.append("n2", calls.now())
        assert [one.id for one in stage.first.plan.events()] == [event.id]
        await stage.first.schedule("a")
        other.local.file("n2").unlink()
        again = await stage.joined()
        assert again.local.commands(Place)
        await again.store.sweep()
        await stage.until(lambda: event.id not in stage.first.feeds.events())
        await again.end()

    play(script)


def test_who_commands_a_machine_that_hangs_is_told(
    play: Callable[[Script], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(stage: Stage) -> None:
        other = await stage.joined()
        other.local.hanging.add("n2")
        monkeypatch.setattr(shared_store, "_ANSWERED_WITHIN", 0.05)
        with pytest.raises(AgentSilent, match="n2: its agent does not answer: no answer in time"):
            await stage.first.schedule("c")
        other.local.hanging.clear()
        await other.end()

    play(script)


def test_a_machine_has_a_name_of_its_own_and_the_last_one_ends_the_lab(
    play: Callable[[Script], None],
) -> None:
    async def script(stage: Stage) -> None:
        other = await stage.joined()
        with pytest.raises(NotSo, match="lab: a machine of the name other is there already"):
            await stage.other().shared.begin()
        await other.end()
        await other.shared.end()
        await stage.until(lambda: stage.first.store.away("n2"))
        assert any(key.endswith("/activity") for key in stage.etcd.keys)
        late = stage.other("late")
        await stage.first.end()
        await stage.first.shared.end()
        assert stage.etcd.keys == {}
        with pytest.raises(NotSo, match="lab: this lab has ended"):
            await late.shared.begin()

    play(script)


def test_what_is_being_kept_is_not_dropped_with_what_was_left(
    play: Callable[[Script], None],
) -> None:
    """A machine begins again, and drops what an earlier supervisor had kept of its nodes."""

    async def script(stage: Stage) -> None:
        other = await stage.joined()
        at_once = stage.etcd.when

        async def late(*asked: Any) -> bool:
            done = await at_once(*asked)
            await asyncio.sleep(0.02)  # the answer is under way
            return done

        def kept() -> list[str]:
            return [key for key in stage.etcd.keys if "/state/n2/events/" in key]

        stage.etcd.when = late  # type: ignore[method-assign]
        planning = asyncio.create_task(other.schedule("c"))
        await stage.until(lambda: bool(kept()))
        await other.store.sweep()
        await planning
        assert len(kept()) == 1
        await other.end()

    play(script)


def test_faults_are_those_of_all_machines(play: Callable[[Script], None]) -> None:
    """Added to guests of both, listed, and cleared by their IDs or of the whole lab."""

    async def script(stage: Stage) -> None:
        other = await stage.joined()
        first = stage.first
        for number, guests in enumerate((["a", "b"], ["c"]), 1):
            await first.faults.add(guests, [Fault(id=f"{number}" * 8, at=0.0, status=500)])

        async def known() -> set[tuple[str, str]]:
            return {(one.guest, one.fault.id[0]) for one in await first.faults.listed()}

        async def until_known(*wanted: tuple[str, str]) -> None:
            async with asyncio.timeout(5):
                while await known() != set(wanted):
                    await asyncio.sleep(0.001)

        await until_known(("a", "1"), ("b", "1"), ("c", "2"))
        await first.faults.clear([], ["2"])
        await until_known(("a", "1"), ("b", "1"))
        await first.faults.clear([], [])
        await until_known()
        await other.end()
        stage.etcd.end(other.shared.membership.lease)
        await stage.until(lambda: first.store.away("n2"))
        away = "n2 is on another machine, which is away: faults of its guests are not cleared"
        with pytest.raises(NotSo, match=away):
            await first.faults.clear([], [])

    play(script)
