"""What a process gives up before it runs a guest's code: descriptors, keys, readable memory.

Used by guests' first processes and by every process that starts a command in a lab, after the fork
and before the command. Nothing here can be undone by what runs afterwards.
"""

import ctypes
import fcntl
import os
import signal
from collections.abc import Sequence
from typing import Final

# linux/prctl.h, linux/keyctl.h, and the numbers of system calls that libraries do not wrap.
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_JOIN_SESSION_KEYRING: Final = 1
_SYS_KEYCTL: Final = {"x86_64": 250, "aarch64": 219}
_SYS_CLOSE_RANGE: Final = 436
_LAST_DESCRIPTOR: Final = 0xFFFFFFFF
FIRST_OTHER: Final = 3

_libc = ctypes.CDLL(None, use_errno=True)


def keep_standard_streams_only() -> None:
    """Close every descriptor but 0, 1 and 2."""
    close_from(FIRST_OTHER)


def keep_only(descriptors: Sequence[int]) -> None:
    """Keep 0, 1 and 2, and these, which get the numbers from 3 on: programs inherit them."""
    end = FIRST_OTHER + len(descriptors)
    # First out of the way: one may have the number that another is to get.
    copies = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, end) for one in descriptors]
    for place, copy in enumerate(copies, start=FIRST_OTHER):
        os.dup2(copy, place)
    close_from(end)


def close_from(first: int) -> None:
    """Close every descriptor from `first` on."""
    if _libc.syscall(_SYS_CLOSE_RANGE, first, _LAST_DESCRIPTOR, 0) != 0:
        os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def hide_memory() -> None:
    """Let no process of a guest trace this one or read its memory, until it runs a program.

    A fork that has entered a guest still has its parent's memory and environment.
    """
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def leave_keys_behind() -> None:
    """Replace the session keyring of the lab's owner by an empty one."""
    number = _SYS_KEYCTL.get(os.uname().machine)
    if number is not None:  # a kernel without keys refuses, and there is nothing to leave
        _libc.syscall(number, _JOIN_SESSION_KEYRING, None, None, None, None)
