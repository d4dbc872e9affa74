"""Holds every process of a guest where it is, by tracing all of its threads.

Runs in a process of its own for each frozen guest: a fork of the factory, in the sandbox, where no
guest sees it. A traced thread that is stopped takes no signal but SIGKILL, so nothing that a guest
has prepared (a timer's SIGCONT, a process in a namespace below) lets it run. It needs no cgroup,
and so holds in an ordinary user's lab, too. When this process ends, the kernel has all go on.
"""

import ctypes
import errno
import os
import signal
import time
from collections.abc import Iterator
from typing import Final, NoReturn

from netemu.kernel.errors import KernelError
from netemu.kernel.guest_processes import GuestProcesses

# linux/ptrace.h, linux/wait.h
_SEIZE, _INTERRUPT = 0x4206, 0x4207
_WALL = 0x40000000
# Seconds that a thread may take to leave the kernel and stop. One that waits for a disk does
# nothing meanwhile.
_PATIENCE: Final = 0.5
_LOOK_EVERY: Final = 0.001
# A command that was being started may appear a moment later: seconds for which to look again after
# the guest is held.
_LATER: Final = (0.1, 0.3, 1.0, 3.0)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Tracer:
    """Holds the processes of one PID namespace and of those below it."""

    def __init__(self, pid_namespace: int) -> None:
        self._processes = GuestProcesses.of(pid_namespace)
        self._held: set[int] = set()
        self._others: set[int] = set()

    def hold(self) -> None:
        """Stop all threads. Raises KernelError if the kernel lets none of them be traced."""
        refused = 0
        while new := set(self._threads()) - self._held - self._others:
            for thread in new:
                refused = self._stop(thread) or refused
            for thread in new & self._held:
                _await_stop(thread)
        if refused and not self._held:
            raise KernelError("tracing a guest's processes", refused)

    def stay(self) -> NoReturn:
        """Hold them until this process is asked to end."""
        for pause in _LATER:
            time.sleep(pause)
            self.hold()
        while True:
            signal.pause()

    def let_go(self, *_: object) -> NoReturn:
        """Let them go on, by ending this process."""
        for thread in self._others:
            _kill(thread, signal.SIGCONT)
        os._exit(0)

    def _stop(self, thread: int) -> int:
        """Stop a thread. Returns the error number if it cannot be traced."""
        if _ptrace(_SEIZE, thread) == 0:
            self._held.add(thread)
            _ptrace(_INTERRUPT, thread)
            return 0
        code = ctypes.get_errno()
        if code == errno.ESRCH:  # it has ended
            return 0
        # The guest traces it itself: with any signal it stops and waits for its tracer, which is
        # held, or is about to be.
        self._others.add(thread)
        _kill(thread, signal.SIGSTOP)
        return code

    def _threads(self) -> Iterator[int]:
        for process in self._processes:
            try:
                yield from map(int, os.listdir(f"/proc/{process}/task"))
            except OSError:  # it has ended, or is about to
                continue


def _await_stop(thread: int) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        try:
            if os.waitpid(thread, os.WNOHANG | _WALL)[0]:
                return
        except ChildProcessError:
            return
        time.sleep(_LOOK_EVERY)


def _ptrace(request: int, thread: int) -> int:
    return int(_libc.ptrace(request, thread, None, None))


def _kill(thread: int, number: signal.Signals) -> None:
    try:
        os.kill(thread, number)
    except ProcessLookupError:
        pass
