"""Daemons that are forks of a process that has imported them; no lab."""

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from netemu.supervisor.nodes import zygote
from netemu.supervisor.nodes.services import Overseer, Service
from netemu.supervisor.nodes.zygote import Zygote
from tests.conftest import SOURCE

pytestmark = pytest.mark.processes
_PR_SET_CHILD_SUBREAPER = 36


class Stage:
    def __init__(self, directory: Path) -> None:
        self.directory, self.zygote = directory, Zygote()
        self.log = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.sockets: list[tuple[str, socket.socket]] = []
        for name in ("command", "feed"):
            made = socket.socket(socket.AF_UNIX)
            made.bind(str(directory / name))
            made.listen()
            self.sockets.append((name, made))
        self.service = Service(
            "n/agent",
            ["hostagent", "agent", "--node", "n", "--repository", str(directory / "n.sqlite")],
            sockets=[(name, made.fileno()) for name, made in self.sockets],
            log_descriptor=self.log,
            notices=directory / "notices",
            zygote=self.zygote,
        )
        self.overseer = Overseer(lambda: [self.service], also=[self.zygote])

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not what():
                await asyncio.sleep(0.01)

    async def running(self) -> int:
        """The process of the daemon that serves now."""
        await self.until(lambda: self.service.state == "running")
        assert self.service.pid is not None
        return self.service.pid

    async def end(self) -> None:
        self.zygote.close()
        self.service.kill()
        await self.until(lambda: self.service.pid is None and self.zygote.pid is None)
        os.close(self.log)
        for _, made in self.sockets:
            made.close()


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture
def play(
    tmp_path: Path,
) -> Iterator[Any]:
    """As in the sandbox, orphans are this process's children."""

    def run(script: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
        async def staged() -> None:
            stage = Stage(tmp_path)
            try:
                await script(stage)
            finally:
                await stage.end()

        before = len(os.listdir("/proc/self/fd"))
        asyncio.run(staged())
        assert len(os.listdir("/proc/self/fd")) == before

    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield run
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def test_a_daemon_is_a_fork_that_ps_shows_under_its_own_name(play: Any) -> None:
    async def script(stage: Stage) -> None:
        stage.zygote.start()
        await stage.zygote.ready()
        stage.service.start()
        process = await stage.running()
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        assert words[:4] == [b"hostagent", b"agent", b"--node", b"n"]
        assert parent(process) == os.getpid()
        assert stage.zygote.pid not in (None, process)
        assert "READY agent n" in (stage.directory / "log").read_text()
        left = {os.readlink(one) for one in Path(f"/proc/{process}/fd").iterdir()}
        inodes = {os.fstat(one.fileno()).st_ino for _, one in stage.sockets}
        assert {f"socket:[{one}]" for one in inodes} <= left
        os.kill(process, signal.SIGKILL)
        await stage.until(lambda: stage.service.restarts == 1)
        assert await stage.running() != process

    play(script)


def test_without_the_zygote_a_daemon_is_a_program(play: Any) -> None:
    """It never came up, or has ended: daemons start all the same."""

    async def script(stage: Stage) -> None:
        stage.service.start()
        process = await stage.running()
        assert b"\0-m\0hostagent\0agent\0" in Path(f"/proc/{process}/cmdline").read_bytes()

    play(script)


def test_a_zygote_that_cannot_be_started_or_is_killed_is_started_again(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often: what a machine lacks now it may have later."""
    monkeypatch.setattr(zygote, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(zygote, "_LAST_PAUSE", 0.01)
    spawn, refused = os.posix_spawn, []

    def refuse(*arguments: Any, **how: Any) -> int:
        if len(refused) < 7:
            refused.append(arguments)
            raise OSError(24, "Too many open files")
        return spawn(*arguments, **how)

    async def script(stage: Stage) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_spawn", refuse)
            stage.zygote.start()
            assert stage.zygote.status().state == "restarting"
            await stage.until(lambda: stage.zygote.is_ready)
        killed = stage.zygote.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        await stage.until(lambda: stage.zygote.is_ready and stage.zygote.pid != killed)
        assert stage.zygote.restarts == 8

    play(script)


def test_a_zygote_that_hangs_holds_nothing_up_and_leaves_no_second_daemon(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was asked for, and does too late, ends; another zygote is started."""
    monkeypatch.setattr(zygote, "_PATIENCE", 0.2)
    monkeypatch.setattr(zygote, "_FIRST_PAUSE", 0.1)

    async def script(stage: Stage) -> None:
        stage.zygote.start()
        await stage.zygote.ready()
        hung = stage.zygote.pid
        assert hung is not None
        os.kill(hung, signal.SIGSTOP)
        stage.service.start()
        assert stage.service.last_end == "no start: the zygote does not answer: timed out"
        process = await stage.running()
        assert b"\0-m\0hostagent\0agent\0" in Path(f"/proc/{process}/cmdline").read_bytes()
        await stage.until(lambda: stage.zygote.is_ready)
        assert stage.zygote.restarts == 1
        assert stage.zygote.last_end == "signal 9"
        with suppress(ProcessLookupError):
            os.kill(hung, 0)
            raise AssertionError("the zygote that hung is still there")

    play(script)


def test_a_daemon_that_nobody_takes_over_does_nothing(play: Any) -> None:
    async def script(stage: Stage) -> None:
        stage.zygote.start()
        await stage.zygote.ready()
        link = stage.zygote._link
        assert link is not None
        link.setblocking(True)
        words = ["agent", "--node", "n", "--repository", str(stage.directory / "other.sqlite")]
        message = zygote.msgspec.msgpack.encode(zygote.other_end.Start(words, {}))
        theirs, leash = os.pipe()
        socket.send_fds(link, [message], [theirs, stage.log])
        answer = zygote.msgspec.msgpack.decode(link.recv(100), type=zygote.other_end.Started)
        process = answer.process
        os.close(theirs)
        os.close(leash)
        await stage.until(lambda: not Path(f"/proc/{process}").exists())
        assert not (stage.directory / "other.sqlite").exists()

    play(script)


def test_a_zygote_whose_lab_has_ended_says_nothing(tmp_path: Path) -> None:
    """Its supervisor was killed while it imported."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    words = [sys.executable, "-P", "-m", "hostagent.zygote", zygote.process_title.ROOM]
    script = f"import os; os.dup2({theirs.fileno()}, 3); os.execv({words[0]!r}, {words!r})"
    with theirs:
        done = subprocess.run(
            [sys.executable, "-c", script],
            pass_fds=[theirs.fileno()],
            capture_output=True,
            cwd=SOURCE,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            timeout=60,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
