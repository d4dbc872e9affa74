"""Commands of events to the agents of two nodes, and what is written down of them: no lab."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from hostagent.controller import calls
from hostagent.model import Event, EventSource, EventStatus, EventType, Guest
from netemu.errors import BadInput, NotSo
from netemu.supervisor.control import agent_feeds
from netemu.supervisor.control.agent_feeds import AgentFeeds
from netemu.supervisor.control.event_log import EventLog
from netemu.supervisor.control.maintenance import Maintenance
from netemu.supervisor.nodes.wiring import WiredGuest, WiredNode
from netemu.topology import parse
from netemu.wire.event_questions import Schedule
from tests.netemu.supervisor.fake_store import FakeStore

NODES = ("n1", "n2")

# `a` and `b` are a set, `c` is in none.
LAB = """
nodes:
  n1: {guests: [{name: a, availability_set: s}]}
  n2: {guests: [{name: b, availability_set: s}, c]}
"""


class Stage:
    """Two nodes, whose feeds are followed, and what commands them."""

    def __init__(self, store: FakeStore) -> None:
        self.store = store
        self.nodes = [
            WiredNode(node, -1, [WiredGuest(guest, -1) for guest in node.guests])
            for node in parse(LAB, source="lab.yaml").nodes
        ]
        self.log = EventLog()
        self.feeds = AgentFeeds(store, NODES, self.log)
        self.plan = Maintenance("lab", store, self.nodes, self.feeds)

    async def begin(self) -> "asyncio.Task[None]":
        for wired in self.nodes:
            guests = [
                Guest(name=one.guest.name, availability_set=one.guest.availability_set)
                for one in wired.guests
            ]
            await self.store.append(wired.node.name, calls.place(guests))
        feeding = asyncio.create_task(self.feeds.run())
        await self.until(lambda: all(self.feeds.known(node).guests for node in NODES))
        return feeding

    async def schedule(self, *guests: str, **how: Any) -> Event:
        given: dict[str, Any] = {
            "kind": EventType.REBOOT,
            "notice": None,
            "duration": None,
            "source": EventSource.PLATFORM,
            "description": "",
            "notice_only": False,
        }
        return await self.plan.schedule(Schedule(list(guests), **{**given, **how}))

    async def statuses(self) -> list[EventStatus]:
        found: list[EventStatus] = []
        for node in NODES:
            found += [one.status for one in (await self.store.snapshot(node)).events]
        return found

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not what():
                await asyncio.sleep(0.001)


Script = Callable[[Stage], Coroutine[Any, Any, None]]


@pytest.fixture
def play(fake_store: Callable[..., FakeStore]) -> Callable[[Script], None]:
    def run(script: Script) -> None:
        async def staged() -> None:
            stage = Stage(fake_store(*NODES))
            feeding = await stage.begin()
            await script(stage)
            feeding.cancel()

        asyncio.run(staged())

    return run


def test_what_a_guest_has_approved_on_one_node_is_completed_on_all(
    play: Callable[[Script], None],
) -> None:
    async def script(stage: Stage) -> None:
        event = await stage.schedule("a")
        assert await stage.statuses() == ["Scheduled", "Scheduled"]
        await stage.store.append("n2", calls.approve(event.id))  # as `b` would
        await stage.until(lambda: stage.plan.events()[0].status is EventStatus.STARTED)
        (shown,) = stage.plan.events()
        assert shown.guests == ("a",)
        with pytest.raises(NotSo, match="cannot cancel"):
            await stage.plan.transition("cancel", event.id)
        done = await stage.plan.transition("complete", event.id[:8])
        assert done.status is EventStatus.COMPLETED
        assert await stage.statuses() == ["Completed", "Completed"]
        with pytest.raises(NotSo, match="cannot complete"):
            await stage.plan.transition("complete", event.id)
        assert stage.plan.events() == []
        assert [one.id for one in stage.plan.events(history=True)] == [event.id]

    play(script)


def test_where_it_has_ended_it_is_left_alone(play: Callable[[Script], None]) -> None:
    async def script(stage: Stage) -> None:
        event = await stage.schedule("a", "c", notice=0.0)
        await stage.store.append("n1", calls.complete(event.id))
        done = await stage.plan.transition("complete", event.id)
        assert done.status is EventStatus.COMPLETED
        assert await stage.statuses() == ["Completed", "Completed"]

    play(script)


@pytest.mark.parametrize("verb", ["cancel", "start", "complete"])
def test_that_the_lab_is_quicker_is_no_refusal(play: Callable[[Script], None], verb: str) -> None:
    """What has gone further at one agent the lab carries on to the others, also meanwhile."""

    async def script(stage: Stage) -> None:
        event = await stage.schedule("a", "c", notice=60.0)
        if verb == "complete":
            await stage.plan.transition("start", event.id)
        (command,) = getattr(calls, verb)(event.id).questions()
        stage.store.after[verb, "n1"] = lambda: stage.store.do("n2", command)
        assert (await stage.plan.transition(verb, event.id)).guests == ("a", "c")

    play(script)


def test_what_one_agent_refuses_is_taken_back_from_the_others(
    play: Callable[[Script], None],
) -> None:
    async def script(stage: Stage) -> None:
        await stage.store.append("n2", calls.withdraw(["c"]))
        with pytest.raises(NotSo, match="not on this node: c"):
            await stage.schedule("a", "c", notice=60.0)
        assert await stage.statuses() == ["Cancelled"]

    play(script)


def test_what_was_acknowledged_is_shown_at_once(play: Callable[[Script], None]) -> None:
    """Before a feed tells of it; and what the feed tells then is no other event."""

    async def script(stage: Stage) -> None:
        for number in range(20):
            event = await stage.schedule("c", notice=3600.0 + number)
            assert stage.plan.events()[-1] == event
            shown = await stage.plan.transition("cancel", event.id)
            assert shown.status is EventStatus.CANCELLED
            assert stage.plan.events() == []
        await asyncio.sleep(0.05)
        told = [entry["status"] for entry in stage.log.entries() if entry["what"] == "event"]
        assert told == ["Scheduled", "Cancelled"] * 20

    play(script)


def test_events_of_a_failed_node_are_still_known(play: Callable[[Script], None]) -> None:
    """All nodes fail: what was acknowledged is listed, and commands say why they are refused."""

    async def script(stage: Stage) -> None:
        event = await stage.schedule("c", notice=3600.0)
        for node in NODES:
            stage.store.fail(node)
        assert [one.id for one in stage.plan.events()] == [event.id]
        with pytest.raises(NotSo, match=r"^c: its node n2 has failed$"):
            await stage.schedule("c")
        with pytest.raises(NotSo, match=r": its node n2 has failed$"):
            await stage.plan.transition("cancel", event.id)
        with pytest.raises(NotSo, match=r"^lab lab: no node runs$"):
            await stage.plan.advance(60.0)
        times = await stage.plan.now()
        assert abs(times[""] - time.time()) < 60

    play(script)


def test_an_id_may_be_shortened_while_it_is_plain(play: Callable[[Script], None]) -> None:
    async def script(stage: Stage) -> None:
        ids = [(await stage.schedule("c", notice=60.0)).id for _ in range(17)]
        first, second = next(  # two of seventeen begin with the same of sixteen digits
            (one, other) for one in ids for other in ids if one < other and one[0] == other[0]
        )
        with pytest.raises(BadInput, match=r"begins the IDs of \d+ events"):
            await stage.plan.transition("cancel", first[0])
        with pytest.raises(NotSo, match="lab lab has no such event"):
            await stage.plan.transition("cancel", "nothing")
        plain = next(
            first[:length]
            for length in range(1, 40)
            if not any(one.startswith(first[:length]) for one in ids if one != first)
        )
        assert (await stage.plan.transition("cancel", plain)).id == first
        assert stage.feeds.events()[second].status is EventStatus.SCHEDULED

    play(script)


def test_the_time_is_asked_and_not_moved(play: Callable[[Script], None]) -> None:
    async def script(stage: Stage) -> None:
        moment = await stage.plan.advance(600)
        times = await stage.plan.now()
        assert set(times) == {"n1", "n2"}
        assert all(0 <= time - moment < 60 for time in times.values())
        await asyncio.gather(stage.plan.advance(60), stage.plan.advance(60))  # both do
        for node in NODES:
            assert (await stage.store.snapshot(node)).clock_offset == 720

    play(script)


def test_a_node_that_an_arriving_guest_has_moved_is_not_moved_twice(
    play: Callable[[Script], None],
) -> None:
    async def script(stage: Stage) -> None:
        await stage.store.append("n2", calls.adopt([], [], 3 * 86400.0))
        await stage.until(lambda: stage.feeds.clock_offset == 3 * 86400)
        await stage.plan.advance(600)
        with pytest.raises(BadInput, match="3660 days ahead at most"):
            await stage.plan.advance(11000 * 86400.0)
        for node in NODES:
            assert (await stage.store.snapshot(node)).clock_offset == 3 * 86400 + 600

    play(script)


def test_a_notice_alone_is_told_as_such(play: Callable[[Script], None]) -> None:
    async def script(stage: Stage) -> None:
        for alone in (True, False):
            await stage.schedule(
                "c", kind=EventType.FREEZE, notice=60.0, duration=5.0, notice_only=alone
            )
        assert [event.notice_only for event in stage.plan.events()] == [True, False]

    play(script)


def test_the_labs_time_does_not_go_back_with_the_machines_clock(
    play: Callable[[Script], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set back by an hour, it would keep a guest off for an hour, or end it a second time."""

    async def script(stage: Stage) -> None:
        before = stage.feeds.now()
        wall = time.time
        monkeypatch.setattr(agent_feeds.time, "time", lambda: wall() - 3600.0)
        assert before <= stage.feeds.now() < before + 60
        monkeypatch.undo()

    play(script)
