"""Asks the kernel to let this process run soon after it wakes.

For processes that others wait for, and that run for little at a time: the responder, and the relay
of impaired wires. Programs of guests run on the same cores, as many as they like.
"""

import ctypes
import os
import struct
from typing import Final

_PRIORITY: Final = -10
_SLICE: Final = 100_000
"""The shortest time slice, in nanoseconds. A process that asks for little is scheduled
first, and so is its session or control group."""

_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}

_libc = ctypes.CDLL(None)


def be_prompt() -> None:
    """Have a short time slice, and where that is allowed a higher priority."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
    except PermissionError:  # this process is an ordinary user's
        pass
    number = _SCHED_SETATTR.get(os.uname().machine)
    if number is not None:  # kernels before 6.12 ignore the slice
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        _libc.syscall(number, 0, struct.pack("=IIQiIQQQ", 48, 0, 0, nice, 0, _SLICE, 0, 0), 0)
