"""Holds every process of a guest where it is, by tracing all of its threads.

Runs in a process of its own for each frozen guest: a fork of the factory, in the sandbox, where no
guest sees it. A traced thread that is stopped takes no signal but SIGKILL, so nothing that a guest
has prepared (a timer's SIGCONT, a process in a namespace below) lets it run. It needs no cgroup,
and so holds in an ordinary user's lab, too. When this process ends, the kernel has all go on.
"""

import ctypes
import errno
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from typing import Final, NoReturn

from netemu.kernel.errors import KernelError

# linux/ptrace.h, linux/nsfs.h, linux/wait.h
_SEIZE, _INTERRUPT = 0x4206, 0x4207
_NS_GET_PARENT = 0xB702
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
        inode = os.fstat(pid_namespace).st_ino
        # Whether a PID namespace is the guest's, by its inode.
        self._known = {inode: True, os.stat("/proc/self/ns/pid").st_ino: False}
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
        for process in filter(str.isdigit, os.listdir("/proc")):
            try:
                if self._is_guests(process):
                    yield from map(int, os.listdir(f"/proc/{process}/task"))
            except OSError:  # it has ended, or is about to
                continue

    def _is_guests(self, process: str) -> bool:
        path = f"/proc/{process}/ns/pid"
        inode = os.stat(path).st_ino
        if inode not in self._known:
            self._known[inode] = self._is_below(path)
        return self._known[inode]

    def _is_below(self, path: str) -> bool:
        """Whether a PID namespace is below the guest's; a guest may make as many as it likes."""
        current = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        while True:
            try:
                parent = fcntl.ioctl(current, _NS_GET_PARENT)
            except OSError:  # that is beyond our own
                return False
            finally:
                os.close(current)
            known = self._known.get(os.fstat(parent).st_ino)
            if known is not None:
                os.close(parent)
                return known
            current = parent


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
