"""The nodes' own processes: a host agent and a responder each, started again when they end or hang.

Runs in the supervisor. A service is told to speak sd_notify(3): READY=1 once it serves, WATCHDOG=1
every few seconds after that, from each of its processes, and STATUS= why it ends by itself. One
that is silent for too long is killed and started again, like one that has ended. A start that fails
is tried again in the same way.
"""

import asyncio
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from netemu.supervisor.nodes.notices import Notices
from netemu.supervisor.nodes.zygote import Zygote
from netemu.wire.source import python_path
from netemu.wire.status import ServiceStatus

log = logging.getLogger(__name__)

# The first restart comes at once. The delay doubles with each end in a row, and starts again once
# the service has run for a while. There is no last attempt: what a machine lacks now it may have
# later, and the service is needed as long as the lab is up.
FIRST_DELAY: Final = 0.05
LONGEST_DELAY: Final = 5.0
FORGIVEN_AFTER: Final = 10.0
# From this many ends or failed starts in a row on, the service is shown as failing.
FAILING_AFTER: Final = 3
# Seconds that a process may take to end in order before it is killed.
GRACE: Final = 2.0
# A service reports four times within its patience. After half of it without a report, it is shown
# as hung.
PATIENCE: Final = 8.0
# Until READY, a service imports modules and reads its store, beside a thousand others on a small
# machine.
START_PATIENCE: Final = 120.0
_LOOK: Final = 0.5
# A check that is this late shows that the machine was too busy, for the services too.
_LATE: Final = 1.0
# Characters that are kept of a service's last words.
_LINE: Final = 300
# The protocol of handing sockets over (sd_listen_fds(3)) begins at this descriptor.
_FIRST_DESCRIPTOR: Final = 3


class Service:
    """A process that runs as long as the lab does.

    `sockets` are handed over by name, as sd_listen_fds(3) says; `log_descriptor` takes its output;
    `notices` is where its notification socket is made. Without that the service is not watched. If
    it is a daemon of `hostagent`, it may be a fork of the `zygote`.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        sockets: Sequence[tuple[str, int]],
        log_descriptor: int,
        notices: Path | None = None,
        patience: float = PATIENCE,
        zygote: Zygote | None = None,
    ) -> None:
        self.name = name
        self.restarts = 0
        self.last_end: str | None = None
        self.last_line: str | None = None
        self._said: str | None = None
        self.pid: int | None = None
        self._words = arguments[1:]
        self._arguments = [sys.executable, "-P", "-m", *arguments]
        self._zygote = zygote
        self._names = [name for name, _ in sockets]
        self._sockets = [descriptor for _, descriptor in sockets]
        self._log = log_descriptor
        self._notices_at = notices
        self._patience = patience
        self._notices: Notices | None = None
        self._beats: dict[int, float] = {}  # by process: when it was heard last
        self._hung = False
        self._failures = 0  # ends and failed starts since it last lived for a while
        self._delay = FIRST_DELAY
        self._started = 0.0
        self._wanted = True
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Start the process. If that fails it is tried again later, as if the process had ended."""
        self._beats.clear()
        self._hung, self._said = False, None
        self._started = self._loop.time()
        try:
            self._open()
            self.pid = self._spawn()
        except OSError as error:
            self._close()
            self._again_later(f"no start: {error.strerror}")

    def ended(self, status: int) -> None:
        """The process has ended: start another, after a delay that grows with each quick end."""
        code = os.waitstatus_to_exitcode(status)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        assert self.pid is not None
        _kill_group(self.pid)  # the rest of its group
        self.pid = None
        self._close()
        if self._loop.time() - self._started > FORGIVEN_AFTER:
            self._delay, self._failures = FIRST_DELAY, 0
        self._again_later(f"hung for {self._patience:g} s" if self._hung else how)

    def stop(self) -> None:
        """Ask the process to end, and do not start it again."""
        self._wanted = False
        if self.pid is not None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once, and do not start it again."""
        self._wanted = False
        if self.pid is not None:
            _kill_group(self.pid)

    def look(self) -> None:
        """Kill the process if it has been silent for too long."""
        if self._silence() > (self._patience if self._beats else START_PATIENCE):
            assert self.pid is not None
            log.warning("%s: hangs, and is killed", self.name)
            self._hung = True
            _kill_group(self.pid)

    def excuse(self) -> None:
        """Count its silence from now on: it could not be heard before."""
        self._beats = dict.fromkeys(self._beats, self._loop.time())

    @property
    def state(self) -> str:
        """One of starting, running, hung, restarting, failing and ended."""
        if self.pid is None:
            if not self._wanted:
                return "ended"
            return "failing" if self.failing else "restarting"
        if self._notices_at is None:
            return "running"
        if not self._beats:
            return "starting"
        return "hung" if self._silence() > self._patience / 2 else "running"

    @property
    def failing(self) -> bool:
        """Whether it has ended, or could not be started, several times in a row."""
        return self._failures >= FAILING_AFTER

    @property
    def trouble(self) -> str:
        """How it ended last, and its last words."""
        return ": ".join(filter(None, (self.last_end, self.last_line)))

    def status(self) -> ServiceStatus:
        """Its state in `netemu status`."""
        return ServiceStatus(
            name=self.name,
            state=self.state,
            pid=self.pid,
            restarts=self.restarts,
            last_end=self.last_end,
            last_line=self.last_line if self._wanted and self.last_end else None,
        )

    def _again_later(self, how: str) -> None:
        # No line for each of thousands of ends, and none for an end that was asked for.
        if self._wanted and (how != self.last_end or self._failures < FAILING_AFTER):
            log.warning("%s: %s, again in %.2f s", self.name, how, self._delay)
        self.last_end = how
        self._failures += 1
        self.last_line = self._said
        if self._wanted:
            self._loop.call_later(self._delay, self._again)
            self._delay = min(self._delay * 2, LONGEST_DELAY)

    def _again(self) -> None:
        if self._wanted:
            self.restarts += 1
            self.start()

    def _silence(self) -> float:
        """Seconds since its most silent process was heard."""
        if self.pid is None or self._notices_at is None:
            return 0.0
        return self._loop.time() - min(self._beats.values(), default=self._started)

    # What is made for a process, and closed with it.

    def _open(self) -> None:
        if self._notices_at is not None:
            self._notices = Notices.open(self._notices_at, self._heard)

    def _close(self) -> None:
        if self._notices is not None:
            self._notices.close()
            self._notices = None

    def _heard(self, pid: int, text: str) -> None:
        lines = text.split("\n")
        if "READY=1" in lines or "WATCHDOG=1" in lines:
            self._beats[pid] = self._loop.time()
        elif lines[0].startswith("STATUS="):
            said = lines[0].removeprefix("STATUS=")[:_LINE]
            self._said = "".join(one if one.isprintable() else "\ufffd" for one in said)

    def _spawn(self) -> int:
        told = {
            "LISTEN_FDS": str(len(self._sockets)),
            "LISTEN_FDNAMES": ":".join(self._names),
        }
        if self._notices_at is not None:
            told["NOTIFY_SOCKET"] = str(self._notices_at)
            told["WATCHDOG_USEC"] = str(int(self._patience / 2 * 1e6))
        if self._zygote is not None and self._zygote.is_ready:
            return self._zygote.fork(self._words, told, self._log, self._sockets)
        environment = {**os.environ, "PYTHONPATH": python_path(), **told}
        environment.pop("LISTEN_PID", None)
        # A descriptor may have the number that another one is to get: copy them all out of the way
        # first.
        first = _FIRST_DESCRIPTOR
        aside = first + len(self._sockets)
        copies: list[int] = []
        try:
            for descriptor in self._sockets:
                copies.append(  # noqa: PERF401 - one that fails leaves those before it to be closed
                    fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, aside)
                )
            return os.posix_spawn(
                sys.executable,
                self._arguments,
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, self._log, 1),
                    (os.POSIX_SPAWN_DUP2, self._log, 2),
                    *(
                        (os.POSIX_SPAWN_DUP2, copy, first + place)
                        for place, copy in enumerate(copies)
                    ),
                ],
                setpgroup=0,  # several processes may serve as one, and are killed as one
                setsigdef=[signal.SIGCHLD, signal.SIGPIPE],
                setsigmask=[],
            )
        finally:
            for copy in copies:
                os.close(copy)


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass


class Process(Protocol):
    """An object that is told how its process has ended."""

    @property
    def pid(self) -> int | None:
        """The process's ID, or None if none runs."""

    def ended(self, status: int) -> None:
        """The process has ended with this status, as waitpid(2) reports it."""


class Overseer:
    """Reaps the processes that end in the sandbox, and watches services for hanging.

    PID 1 is the parent of all orphans, so it reaps those as well. `also` are processes other than
    services; they are told of their ends only.
    """

    def __init__(
        self, services: Callable[[], Sequence[Service]], also: Sequence[Process] = ()
    ) -> None:
        self._services = services
        self._also = also
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    async def run(self) -> None:
        """Watch the services as long as the lab is up."""
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(_LOOK)
            late = loop.time() - last > _LOOK + _LATE
            for service in self._services():
                if late:
                    service.excuse()
                service.look()
            last = loop.time()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for process in (*self._also, *self._services()):
                if process.pid == pid:
                    process.ended(status)
