"""The processes of one guest, seen from outside: by the sandbox's /proc.

Runs in forks of the factory, where no guest sees it.
"""

import fcntl
import os
from collections.abc import Iterator
from typing import Final

_NS_GET_PARENT: Final = 0xB702  # linux/nsfs.h


class GuestProcesses:
    """Those in one PID namespace and in those below it, as of each look."""

    def __init__(self, own: int, others: int) -> None:
        # Whether a PID namespace is the guest's, by its inode.
        self._known = {own: True, others: False}

    @classmethod
    def of(cls, pid_namespace: int) -> "GuestProcesses":
        """Those of the guest whose PID namespace this descriptor is of."""
        return cls(os.fstat(pid_namespace).st_ino, os.stat("/proc/self/ns/pid").st_ino)

    def __iter__(self) -> Iterator[int]:
        for process in filter(str.isdigit, os.listdir("/proc")):
            try:
                if self._is_guests(process):
                    yield int(process)
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
