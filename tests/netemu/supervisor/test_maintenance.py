"""Commands of events to the agents of two nodes: real agents on the test's own loop, and no lab."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hostagent.agent import Agent
from hostagent.controller import CommandRefused, Controller
from hostagent.model import Event, EventSource, EventStatus, EventType, Guest
from hostagent.repository import Repository
from hostagent.sockets import listen_unix
from netemu.errors import BadInput, NotSo
from netemu.supervisor.control import agent_feeds, maintenance
from netemu.supervisor.control.agent_feeds import AgentFeeds
from netemu.supervisor.control.agents import Agents
from netemu.supervisor.control.event_log import EventLog
from netemu.supervisor.control.maintenance import Maintenance
from netemu.supervisor.nodes.wiring import WiredGuest, WiredNode
from netemu.topology import parse

# `a` and `b` are a set, `c` is in none.
LAB = """
nodes:
  n1: {guests: [{name: a, availability_set: s}]}
  n2: {guests: [{name: b, availability_set: s}, c]}
"""


class Stage:
    """Two agents, whose feeds are followed, and what commands them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.nodes = [
            WiredNode(node, -1, [WiredGuest(guest, -1) for guest in node.guests])
            for node in parse(LAB, source="lab.yaml").nodes
        ]
        self.stop = asyncio.Event()
        self.log = EventLog()
        self.agents = Agents({name: self.path(name) for name in ("n1", "n2")})
        hosts: Any = [
            SimpleNamespace(name=name, feed=Path(f"{self.path(name)}.feed"))
            for name in ("n1", "n2")
        ]
        self.feeds = AgentFeeds(hosts, self.log)
        self.plan = Maintenance("lab", self.agents, self.nodes, self.feeds)

    def path(self, node: str) -> str:
        return str(self.directory / node)

    async def begin(self) -> None:
        self.repositories = {name: Repository(f"{self.path(name)}.sqlite") for name in ("n1", "n2")}
        ready = [asyncio.Event() for _ in self.repositories]
        self.tasks = [
            asyncio.create_task(self._serve(name, one.set))
            for name, one in zip(self.repositories, ready, strict=True)
        ]
        await asyncio.gather(*(one.wait() for one in ready))
        for wired in self.nodes:
            async with self.agent(wired.node.name) as agent:
                await agent.place(
                    Guest(name=one.guest.name, availability_set=one.guest.availability_set)
                    for one in wired.guests
                )
        self.tasks.append(asyncio.create_task(self.feeds.run()))
        await self.until(lambda: all(len(self.feeds.known(n).guests) for n in ("n1", "n2")))

    async def _serve(self, name: str, ready: Callable[[], None]) -> None:
        with (
            listen_unix(Path(self.path(name))) as command,
            listen_unix(Path(f"{self.path(name)}.feed")) as feed,
        ):
            await Agent(name, self.repositories[name]).serve(command, feed, self.stop, ready)

    async def end(self) -> None:
        self.stop.set()
        self.tasks.pop().cancel()
        await asyncio.gather(*self.tasks)
        for repository in self.repositories.values():
            repository.close()

    def agent(self, node: str) -> Any:
        return self.agents.agent(node)

    async def schedule(self, *guests: str, **how: Any) -> Event:
        given: dict[str, Any] = {
            "kind": EventType.REBOOT,
            "notice": None,
            "duration": None,
            "source": EventSource.PLATFORM,
            "description": "",
            "notice_only": False,
        }
        return await self.plan.schedule(guests, **{**given, **how})

    async def statuses(self) -> list[EventStatus]:
        found: list[EventStatus] = []
        for node in ("n1", "n2"):
            async with self.agent(node) as agent:
                found += [event.status for event in await agent.events(history=True)]
        return found

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not what():
                await asyncio.sleep(0.001)


Script = Callable[[Stage], Coroutine[Any, Any, None]]


@pytest.fixture
def play() -> Callable[[Script], None]:
    def run(script: Script) -> None:
        async def staged(directory: str) -> None:
            stage = Stage(Path(directory))
            await stage.begin()
            try:
                await script(stage)
            finally:
                await stage.end()

        with tempfile.TemporaryDirectory(prefix="mt-") as directory:  # sockets' names are short
            asyncio.run(staged(directory))

    return run


def test_what_a_guest_has_approved_on_one_node_is_completed_on_all(
    play: Callable[[Script], None],
) -> None:
    async def script(stage: Stage) -> None:
        event = await stage.schedule("a")
        assert await stage.statuses() == ["Scheduled", "Scheduled"]
        async with stage.agent("n2") as agent:
            await agent.approve(event.id)  # as `b` would
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
        async with stage.agent("n1") as agent:
            await agent.complete(event.id)
        done = await stage.plan.transition("complete", event.id)
        assert done.status is EventStatus.COMPLETED
        assert await stage.statuses() == ["Completed", "Completed"]

    play(script)


@pytest.mark.parametrize("verb", ["cancel", "start", "complete"])
def test_that_the_lab_is_quicker_is_no_refusal(
    play: Callable[[Script], None], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """What has gone further at one agent the lab carries on to the others, also meanwhile."""
    act = getattr(Controller, verb)

    async def script(stage: Stage) -> None:
        async def everywhere(agent: Controller, event_id: str) -> Any:
            done = await act(agent, event_id)
            for node in ("n1", "n2"):
                with contextlib.suppress(CommandRefused):
                    async with await Controller.connect(stage.path(node)) as other:
                        await act(other, event_id)
            return done

        event = await stage.schedule("a", "c", notice=60.0)
        if verb == "complete":
            await stage.plan.transition("start", event.id)
        monkeypatch.setitem(maintenance._ACTS, verb, everywhere)
        assert (await stage.plan.transition(verb, event.id)).guests == ("a", "c")

    play(script)


def test_what_one_agent_refuses_is_taken_back_from_the_others(
    play: Callable[[Script], None],
) -> None:
    async def script(stage: Stage) -> None:
        async with stage.agent("n2") as agent:
            await agent.withdraw(["c"])
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
        for node in ("n1", "n2"):
            stage.agents.fail(node)
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
        for node in ("n1", "n2"):
            async with stage.agent(node) as agent:
                assert (await agent.now()).clock_offset == 720

    play(script)


def test_a_node_that_an_arriving_guest_has_moved_is_not_moved_twice(
    play: Callable[[Script], None],
) -> None:
    async def script(stage: Stage) -> None:
        async with stage.agent("n2") as agent:
            await agent.adopt([], [], 3 * 86400.0)
        await stage.until(lambda: stage.feeds.clock_offset == 3 * 86400)
        await stage.plan.advance(600)
        with pytest.raises(BadInput, match="3660 days ahead at most"):
            await stage.plan.advance(11000 * 86400.0)
        for node in ("n1", "n2"):
            async with stage.agent(node) as agent:
                assert (await agent.now()).clock_offset == 3 * 86400 + 600

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
