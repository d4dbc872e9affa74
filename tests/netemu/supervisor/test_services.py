"""Services that end, that cannot be started, and that hang: real processes, and no lab."""

import asyncio
import errno
import os
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from netemu.errors import NotSo
from netemu.supervisor.boot.supervisor import Supervisor
from netemu.supervisor.nodes import notices, services
from netemu.supervisor.nodes.services import Overseer, Service

# Says READY, and beats until it is stopped. With a second argument there is a further process.
SERVES = """
import os, sys, time
from hostagent.notify import Notifier
notifier = Notifier.connect(os.environ)
if sys.argv[1:]:
    notifier.is_first = os.fork() != 0
notifier.ready("it")
while True:
    notifier.alive()
    time.sleep(notifier.interval)
"""
# Says why, and ends; what it says to others goes to the log.
ENDS = """
import os, sys
from hostagent.notify import Notifier
print("the store is broken", flush=True)
Notifier.connect(os.environ).ends("cannot open \\x1b[31m\\nthe store")
sys.exit(1)
"""


class Stage:
    """A service that runs a program of ours."""

    def __init__(self, directory: Path, program: str, **how: Any) -> None:
        self.log = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.directory = directory
        how = {"notices": directory / "notices", "patience": 1.0, **how}
        self.service = Service("n/it", ["x"], sockets=(), log_descriptor=self.log, **how)
        self.service._arguments = [sys.executable, "-c", program]
        self.overseer = Overseer(lambda: [self.service])
        self.overseeing = asyncio.create_task(self.overseer.run())

    def output(self) -> str:
        return (self.directory / "log").read_text()

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not what():
                assert not self.overseeing.done(), self.overseeing.exception()
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        self.service.kill()
        await self.until(lambda: self.service.pid is None)
        self.overseeing.cancel()
        os.close(self.log)


Script = Callable[[Stage], Coroutine[Any, Any, None]]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setattr(services, "LONGEST_DELAY", 0.1)
    monkeypatch.setattr(services, "_LOOK", 0.02)

    def run(script: Script, program: str, **how: Any) -> None:
        async def staged() -> None:
            stage = Stage(tmp_path, program, **how)
            try:
                await script(stage)
            finally:
                await stage.end()

        before = len(os.listdir("/proc/self/fd"))
        asyncio.run(staged())
        assert len(os.listdir("/proc/self/fd")) == before

    return run


def test_a_start_that_fails_is_tried_again_until_it_succeeds(
    play: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first start, and at a restart; and nothing that was made for it is left."""
    spawn, left = os.posix_spawn, [5]

    def refuse(*arguments: Any, **how: Any) -> int:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return spawn(*arguments, **how)

    monkeypatch.setattr(services.os, "posix_spawn", refuse)

    async def script(stage: Stage) -> None:
        service = stage.service
        service.start()
        assert service.state == "restarting"
        await stage.until(lambda: service.state == "failing")
        assert service.trouble == "no start: Resource temporarily unavailable"
        await stage.until(lambda: service.state == "running")
        left[0] = 5
        assert service.pid is not None
        os.kill(service.pid, 9)
        await stage.until(lambda: service.last_end == "signal 9")
        await stage.until(lambda: service.state == "failing")
        await stage.until(lambda: service.state == "running")
        assert service.restarts >= 10

    play(script, SERVES)


def test_no_descriptors_are_left_for_a_start(
    play: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def script(stage: Stage) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(notices.socket, "socket", none_left)
            stage.service.start()
        assert stage.service.trouble == "no start: Too many open files"
        await stage.until(lambda: stage.service.state == "running")

    play(script, SERVES)


def test_one_that_ends_again_and_again_is_failing_and_its_last_line_is_told(
    play: Callable[..., None],
) -> None:
    async def script(stage: Stage) -> None:
        stage.service.start()
        await stage.until(lambda: stage.service.state == "failing")
        told = stage.service.status()
        said = "cannot open \ufffd[31m the store"
        assert (told.last_end, told.last_line) == ("exit code 1", said)
        assert stage.service.trouble == f"exit code 1: {said}"
        assert stage.output().startswith("the store is broken\nthe store is broken\n")

    play(script, ENDS)


@pytest.mark.parametrize("arguments", [[], ["two"]])
def test_one_that_hangs_is_shown_killed_and_started_again(
    play: Callable[..., None], arguments: list[str]
) -> None:
    """Also where it is a further process of it that hangs: it is not left behind."""

    async def script(stage: Stage) -> None:
        service = stage.service
        service._arguments += arguments
        service.start()
        assert service.state == "starting"
        await stage.until(lambda: len(service._beats) == 1 + len(arguments))
        assert service.state == "running"
        hanging = max(service._beats)
        os.kill(hanging, 19)
        await stage.until(lambda: service.state == "hung")
        await stage.until(lambda: service.last_end == "hung for 1 s")
        await stage.until(lambda: service.state == "running")
        assert service.restarts == 1
        await stage.until(lambda: not _runs(hanging))

    play(script, SERVES)


def test_one_that_beats_is_left_alone(play: Callable[..., None]) -> None:
    async def script(stage: Stage) -> None:
        stage.service.start()
        await stage.until(lambda: stage.service.state == "running")
        await asyncio.sleep(1.3)  # longer than its patience
        assert (stage.service.state, stage.service.restarts) == ("running", 0)

    play(script, SERVES, patience=1.0)


def test_what_was_not_heard_while_nobody_listened_is_no_silence(
    play: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor itself stands still, as on a busy machine: nobody is killed for that."""
    monkeypatch.setattr(services, "_LATE", 0.1)

    async def script(stage: Stage) -> None:
        service = stage.service
        service.start()
        await stage.until(lambda: service.state == "running")
        service._beats = {pid: heard - 100.0 for pid, heard in service._beats.items()}
        time.sleep(0.5)  # noqa: ASYNC251 - the loop stands still
        await asyncio.sleep(0.1)
        assert (service.state, service.restarts) == ("running", 0)

    play(script, SERVES)


def test_what_is_ended_on_purpose_stays_so(play: Callable[..., None]) -> None:
    async def script(stage: Stage) -> None:
        service = stage.service
        service.start()
        await stage.until(lambda: service.state == "running")
        service.stop()
        await stage.until(lambda: service.state == "ended")
        await asyncio.sleep(0.3)
        assert (service.state, service.restarts) == ("ended", 0)

    play(script, SERVES)


def test_a_lab_does_not_come_up_around_a_service_that_does_not_start() -> None:
    """`up` names it, and what it said, as soon as that is plain."""
    well: Any = SimpleNamespace(failing=False)
    broken: Any = SimpleNamespace(failing=True, name="n1/agent", trouble="exit code 3: disk full")
    lab: Any = SimpleNamespace(_services=lambda: [well, broken])
    with pytest.raises(NotSo, match=r"^n1/agent does not start: exit code 3: disk full$"):
        asyncio.run(Supervisor._watch_for_failing(lab))


def _runs(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
