"""Filters of system calls: what no guest may ask the kernel for, because it is one for the machine.

A filter is for the process that installs it and for all that it starts, and cannot be lifted. The
process has to be root in its user namespace.
"""

import errno
import os
import socket
from collections.abc import Iterable
from typing import Final, NamedTuple

from hostagent import seccomp
from hostagent.classic_bpf import JUMP_EQUAL, JUMP_IF_SET, Instruction
from hostagent.seccomp import (
    ALLOW,
    REFUSE_FOREIGN,
    load_argument,
    load_number,
    on_call,
    refuse,
)
from netemu.kernel.errors import KernelError

# The places of a call's arguments.
_FIRST, _SECOND, _THIRD, _FOURTH = range(4)

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
# A lease delays every process that opens the file for writing: linux/fcntl.h.
_SETLEASE: Final = 1024
# What the descriptor of a tap lets its holder change: linux/if_tun.h, linux/sockios.h. With another
# MAC the port would take another guest's frames, and a tap that persists outlives its machine. QEMU
# needs none of them for a tap that it is handed.
TAP_CHANGES: Final = {
    "SIOCSIFHWADDR": 0x8924,
    "TUNSETIFF": 0x400454CA,
    "TUNSETPERSIST": 0x400454CB,
    "TUNSETOWNER": 0x400454CC,
    "TUNSETLINK": 0x400454CD,
    "TUNSETGROUP": 0x400454CE,
    "TUNSETTXFILTER": 0x400454D1,
    "TUNATTACHFILTER": 0x401054D5,
    "TUNSETQUEUE": 0x400454D9,
    "TUNSETIFINDEX": 0x400454DA,
    "TUNSETSTEERINGEBPF": 0x800454E0,
    "TUNSETFILTEREBPF": 0x800454E1,
    "TUNSETCARRIER": 0x400454E2,
    "TUNGETDEVNETNS": 0x54E3,
}
# Set-user-ID and set-group-ID; O_CREAT and O_TMPFILE, with which a mode is given.
_SET_ID, _MAKES = 0o6000, 0o20000100


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
    """From now on refuse the system calls that reach beyond a guest: see `of_a_guest`."""
    machine = this_machine()
    if machine is not None:
        install(of_a_guest(machine))


def of_a_guest(machine: Machine) -> list[Instruction]:
    """What no guest may ask for.

    Sockets of five families only; no keys, no io_uring, no foreign ABI, no TIOCSTI; no look at the
    machine by bpf, perf_event_open or syslog. In a directory that guests share, a file of a guest's
    is root's: so no set-user-ID, no attribute that grants capabilities, and no lease.
    """
    unknown = refuse(errno.ENOSYS)
    families = [(JUMP_EQUAL, len(_FAMILIES) - place, 0, one) for place, one in enumerate(_FAMILIES)]
    return [
        *load_number(machine.name, unknown),
        *REFUSE_FOREIGN,
        *(step for number in machine.refused for step in on_call(number, unknown)),
        *(step for one in machine.attributes for step in on_call(one, refuse(errno.EOPNOTSUPP))),
        *(step for number, mode in machine.modes for step in _no_set_id(number, mode)),
        *(step for one in machine.makes for step in _no_set_id_made(*one)),
        (JUMP_EQUAL, 0, 4, machine.fcntl),
        load_argument(_SECOND),
        (JUMP_EQUAL, 0, 1, _SETLEASE),
        refuse(errno.EACCES),
        ALLOW,
        (JUMP_EQUAL, 0, 5, machine.ioctl),
        load_argument(_SECOND),
        (JUMP_EQUAL, 1, 0, _TIOCSTI),
        (JUMP_EQUAL, 0, 1, _TIOCLINUX),
        refuse(errno.EPERM),
        ALLOW,
        (JUMP_EQUAL, 1, 0, machine.socket),
        (JUMP_EQUAL, 0, len(families) + 2, machine.socketpair),
        load_argument(_FIRST),
        *families,
        refuse(errno.EAFNOSUPPORT),
        ALLOW,
    ]


def of_an_emulator(machine: Machine) -> list[Instruction]:
    """What the emulator of a machine may not do either: open another tap than it was handed, or
    any socket beyond those.
    """
    numbers = TAP_CHANGES.values()
    sockets = (machine.socket, machine.socketpair)
    return [
        *load_number(machine.name, refuse(errno.ENOSYS)),
        *REFUSE_FOREIGN,
        *(step for number in sockets for step in on_call(number, refuse(errno.EACCES))),
        (JUMP_EQUAL, 1, 0, machine.ioctl),
        ALLOW,
        load_argument(_SECOND),
        *((JUMP_EQUAL, len(numbers) - place, 0, one) for place, one in enumerate(numbers)),
        ALLOW,
        refuse(errno.EPERM),
    ]


def only(machine: Machine, number: int, result: Instruction) -> list[Instruction]:
    """A filter that ends one system call with this result, and allows all others."""
    return [
        *load_number(machine.name, ALLOW),
        *on_call(number, result),
        ALLOW,
    ]


def _no_set_id(number: int, mode: int) -> list[Instruction]:
    """Refuse a call whose argument `mode` would have a program run as another user."""
    check = _without_set_id(mode)
    return [(JUMP_EQUAL, 0, len(check), number), *check]


def _no_set_id_made(number: int, flags: int, mode: int) -> list[Instruction]:
    """The same of a call that has a mode only where its `flags` say that it makes a file."""
    check: list[Instruction] = [
        load_argument(flags),
        (JUMP_IF_SET, 1, 0, _MAKES),
        ALLOW,
        *_without_set_id(mode),
    ]
    return [(JUMP_EQUAL, 0, len(check), number), *check]


def _without_set_id(mode: int) -> list[Instruction]:
    return [load_argument(mode), (JUMP_IF_SET, 0, 1, _SET_ID), refuse(errno.EPERM), ALLOW]


def install(steps: Iterable[Instruction]) -> None:
    """Install a filter, beside those that there are: the severest verdict counts."""
    try:
        seccomp.install(steps)
    except OSError as error:
        raise KernelError("a filter of system calls", error.errno or 0) from None
