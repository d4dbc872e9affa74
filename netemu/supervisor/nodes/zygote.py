"""Starts the nodes' daemons as forks of one process that has imported them: `hostagent.zygote`.

Runs in the supervisor. While that process does not run, a service is started
as a program of its own, which takes a fifth of a second of CPU instead of some milliseconds.
"""

import asyncio
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from hostagent import process_title
from hostagent import zygote as other_end
from netemu.wire.source import python_path
from netemu.wire.status import ServiceStatus

log = logging.getLogger(__name__)

# It imports for a fifth of a second, on an overloaded machine for several.
_READY_WITHIN: Final = 10.0
# A fork takes some milliseconds. The supervisor stands still meanwhile.
_PATIENCE: Final = 1.0
# The pause before the first start again, which doubles up to the last. There is no last attempt:
# what a machine lacks now it may have later.
_FIRST_PAUSE: Final = 1.0
_LAST_PAUSE: Final = 10.0
_ALL: Final = 1 << 30  # above any descriptor: as many as Linux allows a process


class Zygote:
    """The process, which is started again when it ends, or could not be started."""

    def __init__(self, pid: int | None = None, link: socket.socket | None = None) -> None:
        self.pid = pid
        self.restarts = 0
        self.last_end: str | None = None
        self._link = link
        self._ready = asyncio.Event()
        self._wanted = True
        self._pause = _FIRST_PAUSE

    def start(self) -> None:
        """Start the process, without waiting for it; should that fail, again later."""
        ours: socket.socket | None = None
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self.pid = os.posix_spawn(
                    sys.executable,
                    [sys.executable, "-P", "-m", other_end.__name__, process_title.ROOM],
                    _environment(),
                    file_actions=[
                        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                        (os.POSIX_SPAWN_DUP2, theirs.fileno(), other_end.LINK),
                    ],
                    setpgroup=0,
                    setsigdef=[signal.SIGCHLD, signal.SIGPIPE],
                    setsigmask=[],
                )
        except OSError as error:
            if ours is not None:
                ours.close()
            self._again_later(f"no start: {error.strerror}")
            return
        self._link = ours
        self.watch()

    def watch(self) -> None:
        """Hear of it when it is ready."""
        assert self._link is not None
        asyncio.get_running_loop().add_reader(self._link, self._heard)

    async def ready(self) -> None:
        """Wait until it can be asked, for a bounded time: without it daemons start as well."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_READY_WITHIN):
                await self._ready.wait()

    @property
    def is_ready(self) -> bool:
        """Whether it can be asked."""
        return self._ready.is_set()

    def fork(
        self, words: Sequence[str], told: Mapping[str, str], log_to: int, sockets: list[int]
    ) -> int:
        """Start `hostagent` with these words, and with what it is told beside this environment.

        Returns its process's ID. Raises OSError.
        """
        assert self._link is not None
        message = msgspec.msgpack.encode(other_end.Start(list(words), dict(told)))
        theirs, leash = os.pipe()
        try:
            self._link.settimeout(_PATIENCE)
            socket.send_fds(self._link, [message], [theirs, log_to, *sockets])
            answer: other_end.Answer = msgspec.msgpack.decode(
                self._link.recv(other_end.LONGEST), type=other_end.Answer
            )
            if isinstance(answer, other_end.Started):
                os.write(leash, other_end.TAKEN_OVER)
        except (TimeoutError, ConnectionError, msgspec.DecodeError) as error:
            self._end()
            raise OSError(errno.ETIMEDOUT, f"the zygote does not answer: {error}") from None
        finally:
            os.close(theirs)
            os.close(leash)
        if isinstance(answer, other_end.NotStarted):
            raise OSError(answer.error, os.strerror(answer.error))
        return answer.process

    def close(self) -> None:
        """End it for good."""
        self._wanted = False
        self._end()

    def status(self) -> ServiceStatus:
        """Its state in `netemu status`."""
        running = "running" if self.is_ready else "starting"
        away = "restarting" if self._wanted else "ended"
        state = away if self.pid is None else running
        return ServiceStatus("zygote", state, self.pid, self.restarts, self.last_end, None)

    def ended(self, status: int) -> None:
        """The process has ended with this status, as waitpid(2) reports it."""
        code = os.waitstatus_to_exitcode(status)
        self._end()
        self.pid = None
        self._again_later(f"signal {-code}" if code < 0 else f"exit code {code}")

    def _again_later(self, how: str) -> None:
        self.last_end = how
        if self._wanted:
            log.warning("zygote: %s, again in %g s; daemons start as programs", how, self._pause)
            asyncio.get_running_loop().call_later(self._pause, self._again)
            self._pause = min(2 * self._pause, _LAST_PAUSE)

    def _again(self) -> None:
        if self._wanted:
            self.restarts += 1
            self.start()

    def _heard(self) -> None:
        """It is ready, or has ended."""
        assert self._link is not None
        asyncio.get_running_loop().remove_reader(self._link)
        with suppress(ConnectionError):
            if self._link.recv(other_end.LONGEST, socket.MSG_DONTWAIT):
                self._ready.set()

    def _end(self) -> None:
        """Kill it, with daemons that nobody has taken over."""
        self._ready.clear()
        if self._link is not None:
            asyncio.get_running_loop().remove_reader(self._link)
            self._link.close()
            self._link = None
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


def fork_zygote() -> Zygote | None:
    """Fork the first one, with all that this process has imported. None: this was it, or a daemon.

    To be called before this process knows anything that a node's daemon is not to know.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if (process := os.fork()) != 0:
        theirs.close()
        os.setpgid(process, process)
        return Zygote(process, ours)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    ours.detach()
    os.dup2(theirs.detach(), other_end.LINK)
    os.closerange(other_end.LINK + 1, _ALL)
    os.environ.pop("LISTEN_PID", None)
    process_title.show([sys.executable, "-P", "-m", other_end.__name__])
    other_end.main()
    return None


def _environment() -> dict[str, str]:
    """What every daemon inherits."""
    own = {**os.environ, "PYTHONPATH": python_path()}
    own.pop("LISTEN_PID", None)  # of a service manager's, to the process that started the lab
    return own
