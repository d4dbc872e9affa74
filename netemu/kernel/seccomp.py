"""Filters of system calls: what no guest may ask the kernel for, because it is one for the machine.

A filter is for the process that installs it and for all that it starts, and cannot be lifted. The
process has to be root in its user namespace.
"""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from netemu.kernel.errors import KernelError

# linux/prctl.h, linux/seccomp.h, linux/filter.h
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
# Offsets in struct seccomp_data; of the arguments the lower halves.
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND = 0, 4, 16, 24
_FOREIGN: Final = 0x40000000  # from here on x86-64 has the numbers of x32

# What a guest needs for its own network, and what stays on its own machine.
_FAMILIES: Final = (
    socket.AF_UNIX,
    socket.AF_INET,
    socket.AF_INET6,
    socket.AF_NETLINK,
    socket.AF_PACKET,
)
# Typing into a terminal, and what a console does on command: asm-generic/ioctls.h.
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C

Step = tuple[int, int, int, int]
"""An instruction of classic BPF: code, jump if true, jump if false, operand."""


class Machine(NamedTuple):
    """An architecture's name in linux/audit.h, and its numbers of system calls."""

    name: int
    socket: int
    socketpair: int
    ioctl: int
    setgroups: int
    refused: tuple[int, ...]


# io_setup (contexts are counted for the whole machine), add_key, request_key, keyctl (so are keys),
# io_uring_setup, _enter and _register (which do what a filter cannot see).
_MACHINES: Final = {
    "x86_64": Machine(0xC000003E, 41, 53, 16, 116, (206, 248, 249, 250, 425, 426, 427)),
    "aarch64": Machine(0xC00000B7, 198, 199, 29, 159, (0, 217, 218, 219, 425, 426, 427)),
}


def this_machine() -> Machine | None:
    """The numbers of this machine, if they are known."""
    return _MACHINES.get(os.uname().machine)


def confine_guest() -> None:
    """From now on refuse what would reach beyond a guest: see `of_a_guest`."""
    machine = this_machine()
    if machine is not None:
        install(of_a_guest(machine))


def of_a_guest(machine: Machine) -> list[Step]:
    """Sockets of five families only; no keys, no io_uring, no foreign ABI, no TIOCSTI."""
    families = [(_EQUAL, len(_FAMILIES) - place, 0, one) for place, one in enumerate(_FAMILIES)]
    return [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, machine.name),
        refuse(errno.ENOSYS),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _FOREIGN),
        refuse(errno.ENOSYS),
        *(step for number in machine.refused for step in _if(number, refuse(errno.ENOSYS))),
        (_EQUAL, 0, 5, machine.ioctl),
        (_LOAD, 0, 0, _SECOND),
        (_EQUAL, 1, 0, _TIOCSTI),
        (_EQUAL, 0, 1, _TIOCLINUX),
        refuse(errno.EPERM),
        ALLOW,
        (_EQUAL, 1, 0, machine.socket),
        (_EQUAL, 0, len(families) + 2, machine.socketpair),
        (_LOAD, 0, 0, _FIRST),
        *families,
        refuse(errno.EAFNOSUPPORT),
        ALLOW,
    ]


def refuse(code: int) -> Step:
    """Have the call fail with this error number; with 0 it does nothing, and succeeds."""
    return (_RETURN, 0, 0, _ERRNO | code)


ALLOW: Final[Step] = (_RETURN, 0, 0, _ALLOW)


def only(machine: Machine, number: int, result: Step) -> list[Step]:
    """A filter that gives one system call this result, and lets all others be."""
    return [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, machine.name),
        ALLOW,
        (_LOAD, 0, 0, _NUMBER),
        *_if(number, result),
        ALLOW,
    ]


def _if(number: int, result: Step) -> tuple[Step, Step]:
    return (_EQUAL, 0, 1, number), result


def install(steps: Iterable[Step]) -> None:
    """Install a filter, beside those that there are: the severest verdict counts."""
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    kept = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: how many, and where.
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(kept))
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0) != 0:
        raise KernelError("a filter of system calls", ctypes.get_errno())
