"""Events that are carried out where things fail and refuse: fakes, and no lab."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from hostagent.channel.requests import Complete
from hostagent.controller.calls import Call
from hostagent.model import Event, EventSource, EventStatus, EventType
from netemu.errors import NotSo
from netemu.supervisor.control import impact
from netemu.supervisor.control.carried_out import CarriedOut
from netemu.supervisor.control.event_log import EventLog
from netemu.supervisor.control.impact import Impact
from netemu.supervisor.control.lab_events import LabEvents
from netemu.supervisor.control.store import AgentSilent
from netemu.supervisor.guests.endings import Ending
from netemu.supervisor.guests.power import Action, Power
from netemu.topology import SOFT, parse
from tests.netemu.supervisor.machines import FakeLab

LAB = "nodes: {n: {guests: [a, b]}}"


class FakeRelocation:
    def __init__(self) -> None:
        self.refusal: Exception | None = None
        self.failed = False
        self.moves: list[str] = []

    def host_failed(self, _guest: str) -> bool:
        return self.failed

    def runs(self, _node: str) -> bool:
        return True

    async def move(self, guest: str) -> None:
        await asyncio.sleep(0)
        self.moves.append(guest)
        if self.refusal is not None:
            raise self.refusal


class FakeFeeds:
    """Time stands, at 100 first; every event is on `n`."""

    def __init__(self, forgotten: Callable[[Event], None]) -> None:
        self.lab = LabEvents(lambda before, after: None if after else forgotten(before))  # type: ignore[arg-type]
        self._news = asyncio.Event()
        self.is_late = False
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def poke(self) -> None:
        self._news.set()

    async def news(self, _at_most: float) -> None:
        try:
            async with asyncio.timeout(0.001):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    clock_offset = 60.0

    def behind(self) -> Iterator[Any]:
        return self.lab.behind({"n"})

    def late(self) -> list[str]:
        return ["n"] if self.is_late else []


class FakeAgents:
    """One that is silent so often, and then does what it is told to."""

    def __init__(self) -> None:
        self.silent = 0
        self.done: list[Any] = []

    async def append(self, node: str, call: Call[Any]) -> None:
        await asyncio.sleep(0)
        if self.silent:
            self.silent -= 1
            raise AgentSilent(node, "no answer in time")
        self.done += call.questions()


class Stage:
    def __init__(self) -> None:
        self.lab, self.relocation = FakeLab(parse(LAB, source="lab.yaml")), FakeRelocation()
        self.hardware = self.lab.hardware
        self.carried_out, self.log, self.agents = CarriedOut(), EventLog(), FakeAgents()
        self.feeds = FakeFeeds(self.carried_out.forget)
        self.removed: list[str] = []
        parts: Any = (
            self.agents,
            self.hardware,
            SimpleNamespace(remove=self._remove),
            self.relocation,
            self.feeds,
            self.carried_out,
            self.log,
        )
        self.impact = Impact(*parts)

    async def _remove(self, _node: str, guest: str) -> None:
        self.removed.append(guest)

    def start(
        self, kind: EventType, *guests: str, number: int = 1, over: bool = True, **times: float
    ) -> Event:
        """An event has started, and is over already unless it goes on."""
        event = Event(
            id=f"{number:08x}-0000-4000-8000-000000000000",
            type=kind,
            source=EventSource.PLATFORM,
            description="",
            guests=guests,
            created=90.0,
            not_before=times.get("not_before", 95.0),
            status=EventStatus.COMPLETED if over else EventStatus.STARTED,
            started=times.get("started", 95.0),
            ended=96.0 if over else None,
        )
        self.feeds.lab.take("n", event)
        self.feeds.poke()
        return event

    def powers(self, guest: str) -> list[str]:
        told = [entry for entry in self.log.entries() if entry.get("guest") == guest]
        return [entry["power"] for entry in told if "power" in entry]

    def problems(self) -> list[str]:
        return [entry["problem"] for entry in self.log.entries() if "problem" in entry]

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not what():
                await asyncio.sleep(0.001)


Script = Callable[[Stage], Coroutine[Any, Any, None]]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], None]:
    monkeypatch.setattr(impact, "_FIRST_RETRY", 0.001)
    monkeypatch.setattr(impact, "_LAST_RETRY", 0.004)
    monkeypatch.setattr(impact, "_ATTEMPTS", 5)

    def run(script: Script) -> None:
        async def staged() -> None:
            stage = Stage()
            running = asyncio.create_task(stage.impact.run())
            await script(stage)
            assert not running.done(), running.exception()
            running.cancel()

        asyncio.run(staged())

    return run


def test_a_boot_that_fails_is_tried_again_and_not_for_ever(play: Callable[[Script], None]) -> None:
    """A guest cannot boot: it is said once, tried a few times, and again when it is asked for."""

    async def script(stage: Stage) -> None:
        stage.lab.failing["a", "boot"] = NotSo("its wire is gone")
        stage.start(EventType.REBOOT, "a", "b")
        await stage.until(lambda: stage.lab.done.count(("a", "boot")) == 5)
        await asyncio.sleep(0.05)
        assert stage.lab.done.count(("a", "boot")) == 5
        assert stage.powers("a").count("off") == 1
        assert [stage.hardware.power(one) for one in "ab"] == [Power.OFF, Power.RUNNING]
        last = "failed to boot, and is not tried again: its wire is gone"
        assert stage.problems() == ["its wire is gone", last]
        assert stage.impact.problems == {"a": last}
        with pytest.raises(NotSo, match=r"^a does not boot: its wire is gone$"):
            await stage.impact.reboot("a")
        del stage.lab.failing["a", "boot"]
        await stage.impact.reboot("a")
        assert stage.hardware.power("a") is Power.RUNNING
        assert stage.impact.problems == {}

    play(script)


def test_what_fails_once_is_carried_out_at_the_next_attempt(play: Callable[[Script], None]) -> None:
    async def script(stage: Stage) -> None:
        stage.lab.failing["a", "cut"] = OSError(24, "Too many open files")
        event = stage.start(EventType.REBOOT, "a")
        await stage.until(lambda: stage.lab.done.count(("a", "cut")) == 2)
        assert not stage.carried_out.on("a", event.id)
        stage.lab.failing.clear()
        await stage.until(lambda: stage.carried_out.on("a", event.id))
        await stage.until(lambda: stage.hardware.power("a") is Power.RUNNING)
        again = [("a", verb) for verb in ("cut", "renew", "attach", "boot")]
        assert stage.lab.done[-4:] == again

    play(script)


def test_a_redeploy_that_is_refused_is_told_and_the_guest_boots(
    play: Callable[[Script], None],
) -> None:
    """No agent takes the guest: `netemu events` and `status` say why it stays where it is."""

    async def script(stage: Stage) -> None:
        stage.relocation.refusal = NotSo("n2: a node holds 1023 guests")
        stage.start(EventType.REDEPLOY, "a")
        await stage.until(lambda: stage.lab.done[-1:] == [("a", "boot")])
        problem = "it stays where it is: n2: a node holds 1023 guests"
        assert stage.problems() == [problem]
        assert stage.impact.problems == {"a": problem}
        await asyncio.sleep(0.02)
        assert stage.relocation.moves == ["a"]

    play(script)


def test_a_guest_whose_boot_fails_after_its_move_moves_no_second_time(
    play: Callable[[Script], None],
) -> None:
    async def script(stage: Stage) -> None:
        stage.lab.failing["a", "boot"] = NotSo("no namespace")
        stage.start(EventType.REDEPLOY, "a")
        await stage.until(lambda: stage.lab.done.count(("a", "boot")) == 3)
        stage.lab.failing.clear()
        await stage.until(lambda: stage.hardware.power("a") is Power.RUNNING)
        assert stage.relocation.moves == ["a"]

    play(script)


def test_a_mistake_of_ours_is_told_and_stops_nobody_else(
    play: Callable[[Script], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def script(stage: Stage) -> None:
        stage.relocation.refusal = KeyError("a mistake")
        stage.start(EventType.REDEPLOY, "a")
        stage.start(EventType.REBOOT, "b", number=2)
        await stage.until(lambda: ("b", "boot") in stage.lab.done)
        await stage.until(lambda: stage.problems() == ["'a mistake'"])
        stage.relocation.refusal = None
        await stage.until(lambda: stage.hardware.power("a") is Power.RUNNING)

    play(script)
    assert "KeyError: 'a mistake'" in caplog.text


def test_an_agent_that_is_silent_is_told_again_that_an_event_is_over(
    play: Callable[[Script], None],
) -> None:
    async def script(stage: Stage) -> None:
        stage.agents.silent = 2
        event = stage.start(EventType.TERMINATE, "a", over=False)
        await stage.until(lambda: len(stage.agents.done) > 0)
        assert isinstance(stage.agents.done[0], Complete)
        assert stage.agents.done[0].event_id == event.id
        assert stage.hardware.power("a") is Power.GONE
        assert stage.removed == ["a"]

    play(script)


def test_a_node_whose_clock_was_not_moved_is_brought_up(play: Callable[[Script], None]) -> None:
    """`clock advance` reached some nodes only: the others follow by themselves."""

    async def script(stage: Stage) -> None:
        stage.agents.silent = 1
        stage.feeds.is_late = True
        await stage.until(lambda: len(stage.agents.done) > 0)
        assert stage.agents.done[0].to == 60.0
        stage.feeds.is_late = False

    play(script)


def test_what_has_ended_and_was_carried_out_is_not_looked_at_again(
    play: Callable[[Script], None],
) -> None:
    async def script(stage: Stage) -> None:
        for number in range(1, 50):
            stage.start(EventType.REBOOT, "a", number=number)
        await stage.until(lambda: not stage.feeds.lab.open)
        assert len(stage.feeds.lab.all) == 49
        await stage.until(lambda: stage.hardware.power("a") is Power.RUNNING)
        await stage.impact.reboot("a")

    play(script)


def test_an_approved_event_begins_once_its_answer_can_have_been_read(
    play: Callable[[Script], None],
) -> None:
    """Its effect comes by itself, also if the event is over by then."""

    async def script(stage: Stage) -> None:
        for number, over in enumerate((True, False), start=1):
            guest = "ab"[number - 1]
            stage.start(
                EventType.REBOOT, guest, number=number, over=over, started=99.5, not_before=900.0
            )
        await asyncio.sleep(0.05)
        assert stage.lab.done == []
        stage.feeds.time = 100.5
        await stage.until(lambda: stage.powers("a") == stage.powers("b") == ["off", "running"])

    play(script)


def test_programs_are_asked_to_end_and_what_they_do_is_told(play: Callable[[Script], None]) -> None:
    """A planned reboot: a grace period, its outcome in the events, and only then power off."""

    async def script(stage: Stage) -> None:
        stage.lab.machines["a"].ending = Ending([("web", 0.2)], ["db"], 90.0)
        stage.start(EventType.REBOOT, "a", not_before=95.0)
        await stage.until(lambda: stage.powers("a") == ["off", "running"])
        assert stage.lab.machines["a"].graces == [SOFT]
        assert stage.lab.done[:2] == [("a", "shut_down"), ("a", "cut")]
        (told,) = [one for one in stage.log.entries() if "ending" in one]
        assert told["ending"] == {"ended": [("web", 0.2)], "killed": ["db"], "after": 90.0}
        assert told["told"] == "ended by itself: web (0.2 s); killed after 90 s: db"
        # Hardware that fails asks nobody.
        stage.start(EventType.REBOOT, "b", number=2, not_before=90.0)
        await stage.until(lambda: stage.powers("b") == ["off", "running"])
        assert stage.lab.machines["b"].graces == []

    play(script)


def test_a_guest_whose_programs_have_ended_is_not_called_running(
    play: Callable[[Script], None],
) -> None:
    """From the end of its grace until its power is off nothing runs in it, and status says so."""

    async def script(stage: Stage) -> None:
        await stage.hardware.ask_to_end("a", SOFT)
        assert stage.hardware.told_power("a") == "shutting down"
        await stage.hardware.do("a", Action.SHUT_DOWN)
        assert stage.hardware.told_power("a") == "off"

    play(script)


def test_a_shutdown_that_has_begun_is_not_taken_back(play: Callable[[Script], None]) -> None:
    """The event goes away during the grace: the guest's programs have ended, so it boots."""

    async def script(stage: Stage) -> None:
        stage.lab.machines["a"].stubborn = True
        event = stage.start(EventType.REBOOT, "a", not_before=95.0)
        await stage.until(lambda: stage.lab.machines["a"].graces == [SOFT])
        stage.feeds.lab.forget("n", event.id)
        stage.lab.machines["a"].cut()
        await stage.until(lambda: ("a", "boot") in stage.lab.done)
        assert stage.hardware.told_power("a") == "running"

    play(script)


def test_a_hard_reboot_waits_for_nobody(play: Callable[[Script], None]) -> None:
    """Programs that do not end hold a reboot up, until somebody cuts the power."""

    async def script(stage: Stage) -> None:
        stage.lab.machines["a"].stubborn = True
        soft = asyncio.create_task(stage.impact.reboot("a"))
        await stage.until(lambda: stage.lab.machines["a"].graces == [SOFT])
        await asyncio.sleep(0.02)
        assert stage.lab.done == []
        with pytest.raises(NotSo, match="a is shutting down: nothing can be run in it"):
            await stage.hardware.enter("a")
        assert stage.hardware.told_power("a") == "shutting down"
        async with asyncio.timeout(10), stage.hardware.hold("a"):
            pass
        await stage.impact.reboot("a", hard=True)
        await soft
        assert stage.hardware.power("a") is Power.RUNNING
        assert ("a", "boot") in stage.lab.done
        stage.lab.done.clear()
        await stage.impact.reboot("a", hard=True)
        assert ("a", "shut_down") not in stage.lab.done

    play(script)


def test_a_node_that_fails_waits_for_nobody(play: Callable[[Script], None]) -> None:
    """A guest shuts down when its node fails: it is off at once, and does not boot there."""

    async def script(stage: Stage) -> None:
        stage.lab.machines["a"].stubborn = True
        stage.start(EventType.REBOOT, "a", not_before=95.0)
        await stage.until(lambda: stage.lab.machines["a"].graces == [SOFT])
        stage.relocation.failed = True
        stage.hardware.set_ports(stage.lab.nodes[0], up=False)
        stage.feeds.poke()
        await stage.until(lambda: stage.hardware.power("a") is Power.OFF)
        await asyncio.sleep(0.02)
        assert ("a", "boot") not in stage.lab.done
        stage.relocation.failed = False

    play(script)
