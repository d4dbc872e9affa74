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
_LOAD, _EQUAL, _AT_LEAST, _BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# Offsets in struct seccomp_data; of the arguments the lower halves.
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND, _THIRD, _FOURTH = 0, 4, 16, 24, 32, 40
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
# A lease makes whoever opens the file for writing wait: linux/fcntl.h.
_SETLEASE: Final = 1024
# Set-user-ID and set-group-ID; O_CREAT and O_TMPFILE, with which a mode is given.
_SET_ID, _MAKES = 0o6000, 0o20000100

Step = tuple[int, int, int, int]
"""An instruction of classic BPF: code, jump if true, jump if false, operand."""


class Machine(NamedTuple):
    """An architecture's name in linux/audit.h, and its numbers of system calls."""

    name: int
    socket: int
    socketpair: int
    ioctl: int
    setgroups: int
    fcntl: int
    modes: tuple[tuple[int, int], ...]
    makes: tuple[tuple[int, int, int], ...]
    attributes: tuple[int, ...]
    refused: tuple[int, ...]


# `modes`: chmod, fchmod, fchmodat, fchmodat2, mknodat (creat, mknod), each with the place of the
# mode. `makes`: openat (open), with the places of the flags and the mode. `attributes`: setxattr,
# lsetxattr, fsetxattr, setxattrat.
# `refused`: io_setup (contexts are counted for the whole machine), add_key, request_key, keyctl (so
# are keys), syslog, bpf, perf_event_open, io_uring_setup, _enter and _register (which do what a
# filter cannot see, as does openat2).
_NEW: Final = (425, 426, 427, 437)
_MACHINES: Final = {
    "x86_64": Machine(
        0xC000003E,
        *(41, 53, 16, 116, 72),
        (
            *((90, _SECOND), (91, _SECOND), (268, _THIRD), (452, _THIRD), (259, _THIRD)),
            *((85, _SECOND), (133, _SECOND)),
        ),
        ((257, _THIRD, _FOURTH), (2, _SECOND, _THIRD)),
        (188, 189, 190, 463),
        (206, 248, 249, 250, 103, 321, 298, *_NEW),
    ),
    "aarch64": Machine(
        0xC00000B7,
        *(198, 199, 29, 159, 25),
        ((52, _SECOND), (53, _THIRD), (452, _THIRD), (33, _THIRD)),
        ((56, _THIRD, _FOURTH),),
        (5, 6, 7, 463),
        (0, 217, 218, 219, 116, 280, 241, *_NEW),
    ),
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
    """What no guest may ask for.

    Sockets of five families only; no keys, no io_uring, no foreign ABI, no TIOCSTI; no look at the
    machine by bpf, perf_event_open or syslog. In a directory that guests share, a file of a guest's
    is root's: so no set-user-ID, no attribute that grants capabilities, and no lease.
    """
    families = [(_EQUAL, len(_FAMILIES) - place, 0, one) for place, one in enumerate(_FAMILIES)]
    return [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, machine.name),
        refuse(errno.ENOSYS),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _FOREIGN),
        refuse(errno.ENOSYS),
        *(step for number in machine.refused for step in _if(number, refuse(errno.ENOSYS))),
        *(step for one in machine.attributes for step in _if(one, refuse(errno.EOPNOTSUPP))),
        *(step for number, mode in machine.modes for step in _no_set_id(number, mode)),
        *(step for one in machine.makes for step in _no_set_id_made(*one)),
        (_EQUAL, 0, 4, machine.fcntl),
        (_LOAD, 0, 0, _SECOND),
        (_EQUAL, 0, 1, _SETLEASE),
        refuse(errno.EACCES),
        ALLOW,
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


def _no_set_id(number: int, mode: int) -> list[Step]:
    """Refuse a call whose argument `mode` would have a program run as another user."""
    check: list[Step] = [(_LOAD, 0, 0, mode), (_BITS, 0, 1, _SET_ID), refuse(errno.EPERM), ALLOW]
    return [(_EQUAL, 0, len(check), number), *check]


def _no_set_id_made(number: int, flags: int, mode: int) -> list[Step]:
    """The same of a call that has a mode only where its `flags` say that it makes a file."""
    check: list[Step] = [
        (_LOAD, 0, 0, flags),
        (_BITS, 1, 0, _MAKES),
        ALLOW,
        (_LOAD, 0, 0, mode),
        (_BITS, 0, 1, _SET_ID),
        refuse(errno.EPERM),
        ALLOW,
    ]
    return [(_EQUAL, 0, len(check), number), *check]


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
