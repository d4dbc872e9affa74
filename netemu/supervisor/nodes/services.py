"""The nodes' own processes: a host agent and a responder each, started again when they die."""

import asyncio
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from netemu.wire.source import python_path

log = logging.getLogger(__name__)

# The first restart comes at once: whoever is gone for a moment is missed by nobody. One that dies
# again and again is tried ever more seldom, and forgiven once it has lived for a while.
FIRST_DELAY: Final = 0.05
LONGEST_DELAY: Final = 5.0
FORGIVEN_AFTER: Final = 10.0
# How long a process may take to end in order before it is killed.
GRACE: Final = 2.0
# The protocol of handing sockets over (sd_listen_fds(3)) begins at this descriptor.
_FIRST_DESCRIPTOR: Final = 3


class Service:
    """A process that is to run for as long as the lab does.

    `sockets` are handed over by name as sd_listen_fds(3) says; `log` is a descriptor that takes
    what it says.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        sockets: Sequence[tuple[str, int]],
        log_descriptor: int,
    ) -> None:
        self.name = name
        self.restarts = 0
        self.last_end: str | None = None
        self.pid: int | None = None
        self._arguments = [sys.executable, "-P", "-m", *arguments]
        self._names = [name for name, _ in sockets]
        self._sockets = [descriptor for _, descriptor in sockets]
        self._log = log_descriptor
        self._delay = FIRST_DELAY
        self._started = 0.0
        self._wanted = True
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Start the process."""
        # The descriptors' own places may be among those they go to: first out of the way.
        first = _FIRST_DESCRIPTOR
        aside = first + len(self._sockets)
        copies = [
            descriptor if descriptor >= aside else _dup_above(descriptor, aside)
            for descriptor in self._sockets
        ]
        actions: list[Any] = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, self._log, 1),
            (os.POSIX_SPAWN_DUP2, self._log, 2),
            *((os.POSIX_SPAWN_DUP2, copy, first + place) for place, copy in enumerate(copies)),
        ]
        environment = {
            **os.environ,
            "PYTHONPATH": python_path(),
            "LISTEN_FDS": str(len(self._sockets)),
            "LISTEN_FDNAMES": ":".join(self._names),
        }
        environment.pop("LISTEN_PID", None)
        self.pid = os.posix_spawn(
            sys.executable,
            self._arguments,
            environment,
            file_actions=actions,
            setsigdef=[signal.SIGCHLD, signal.SIGPIPE],
            setsigmask=[],
        )
        for copy, descriptor in zip(copies, self._sockets, strict=True):
            if copy != descriptor:
                os.close(copy)
        self._started = self._loop.time()

    def ended(self, status: int) -> None:
        """The process has ended: start another, after a delay that grows with each quick end."""
        code = os.waitstatus_to_exitcode(status)
        self.last_end = f"signal {-code}" if code < 0 else f"exit code {code}"
        self.pid = None
        if not self._wanted:
            return
        if self._loop.time() - self._started > FORGIVEN_AFTER:
            self._delay = FIRST_DELAY
        log.warning("%s: ended with %s, again in %.2f s", self.name, self.last_end, self._delay)
        self._loop.call_later(self._delay, self._again)
        self._delay = min(self._delay * 2, LONGEST_DELAY)

    def stop(self) -> None:
        """Ask the process to end, and do not start it again."""
        self._wanted = False
        if self.pid is not None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once, and do not start it again."""
        self._wanted = False
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)

    def status(self) -> dict[str, Any]:
        """What `netemu status` tells of it. `pid` is the sandbox's."""
        idle = "restarting" if self._wanted else "ended"
        return {
            "name": self.name,
            "state": "running" if self.pid is not None else idle,
            "pid": self.pid,
            "restarts": self.restarts,
            "last_end": self.last_end,
        }

    def _again(self) -> None:
        if self._wanted:
            self.restarts += 1
            self.start()


def _dup_above(descriptor: int, lowest: int) -> int:

    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, lowest)


class Reaper:
    """Takes note of every process that ends in the sandbox: PID 1 is the parent of all orphans."""

    def __init__(self, services: Callable[[], Sequence[Service]]) -> None:
        self._services = services
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for service in self._services():
                if service.pid == pid:
                    service.ended(status)
