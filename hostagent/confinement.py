"""What the agent's and the responder's processes can no longer do, even if somebody took one over.

Runs in those processes, once everything is open and imported and privileges are given up; it cannot
be undone. seccomp(2) takes away system calls that neither needs: no program and no process can be
started, and no socket made but a Unix one. Landlock takes away the file system but for one
directory, and the signals to other processes. Either may be missing from a kernel: the daemon then
goes on without it, and says so.
"""

import ctypes
import errno
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from hostagent import seccomp
from hostagent.classic_bpf import JUMP_EQUAL, JUMP_IF_SET, Instruction
from hostagent.seccomp import ALLOW, refuse

_CLONE_THREAD: Final = 0x10000


class _Machine(NamedTuple):
    """An architecture's name in linux/audit.h, and its numbers of system calls."""

    name: int
    sockets: tuple[int, int]
    clone: int
    refused: tuple[int, ...]


# Old numbers differ by architecture, in this order: execve, execveat, (fork, vfork), ptrace,
# process_vm_readv, process_vm_writev, mount, umount2, pivot_root, chroot, unshare, setns, bpf,
# perf_event_open, add_key, request_key, keyctl, userfaultfd, open_by_handle_at, io_setup,
# mknodat, personality, kcmp, seccomp, modules (init, finit, delete), kexec_load, reboot.
# From 424 on they are the same: io_uring (setup, enter, register), open_tree, move_mount, fsopen,
# fsconfig, fsmount, fspick, pidfd_getfd, mount_setattr. clone3 is refused as unknown, for its flags
# cannot be seen: libraries then call clone.
_NEW: Final = (425, 426, 427, 428, 429, 430, 431, 432, 433, 435, 438, 442)
_MACHINES: Final = {
    "x86_64": _Machine(
        0xC000003E,
        (41, 53),
        56,
        (
            *(59, 322, 57, 58, 101, 310, 311, 165, 166, 155, 161, 272, 308, 321, 298, 248, 249),
            *(250, 323, 304, 206, 259, 133, 135, 312, 317, 175, 313, 176, 246, 169, *_NEW),
        ),
    ),
    "aarch64": _Machine(
        0xC00000B7,
        (198, 199),
        220,
        (
            *(221, 281, 117, 270, 271, 40, 39, 41, 51, 97, 268, 280, 241, 217, 218, 219, 282, 265),
            *(0, 33, 92, 272, 277, 105, 273, 106, 104, 142, *_NEW),
        ),
    ),
}

# linux/landlock.h. These system calls have one number on all architectures.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
# Access to files by the version that knows it: all of the first, REFER, TRUNCATE, IOCTL_DEV.
_FILE_ACCESS: Final = ((1, 0x1FFF), (2, 1 << 13), (3, 1 << 14), (5, 1 << 15))
_NET_SINCE, _BIND_AND_CONNECT_TCP = 4, 3
_SCOPES_SINCE, _ABSTRACT_SOCKETS_AND_SIGNALS = 6, 3
_EXECUTE, _READ_FILE, _READ_DIRECTORY = 1 << 0, 1 << 2, 1 << 3
# Of a file that is not a directory: executing, writing, reading, truncating, and a device's ioctls.
_OF_A_FILE: Final = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
# Libraries and modules that are loaded late, as by the end of a thread.
READABLE: Final = ("/usr", "/lib", "/lib64", sys.base_prefix, sys.prefix)

_libc = ctypes.CDLL(None, use_errno=True)


def confine(store: Path | None) -> list[str]:
    """From now on refuse what the daemon does not need; `store` is the directory that it writes.

    Returns what this kernel cannot refuse, a line each.
    """
    missing = []
    try:
        restrict_files(READABLE, () if store is None else (store,))
    except OSError as error:
        missing.append(f"Landlock: it could open files, as its user may ({error.strerror})")
    try:
        _filter_calls(_MACHINES.get(os.uname().machine))
    except OSError as error:
        missing.append(f"seccomp: it could start programs, as its user may ({error.strerror})")
    return missing


def landlock_version() -> int:
    """The version of Landlock that this kernel has; 0 if it has none."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, 0, _VERSION)))


def restrict_files(
    readable: Iterable[str | Path], written: Iterable[str | Path], *, programs: bool = False
) -> None:
    """From now on open no files but those, and those in these directories.

    What is `written` may be read too, and what is `readable` run if `programs` may be. No process
    outside gets a signal, and no abstract socket is reached. Raises OSError.
    """
    version = landlock_version()
    if not version:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    access = sum(bits for since, bits in _FILE_ACCESS if version >= since)
    # struct landlock_ruleset_attr; a kernel takes the part that it knows.
    told = struct.pack(
        "=3Q",
        access,
        _BIND_AND_CONNECT_TCP if version >= _NET_SINCE else 0,
        _ABSTRACT_SOCKETS_AND_SIGNALS if version >= _SCOPES_SINCE else 0,
    )
    known = 24 if version >= _SCOPES_SINCE else 16 if version >= _NET_SINCE else 8
    rules = _check(_libc.syscall(_CREATE_RULESET, told, known, 0))
    try:
        for path in readable:
            _let(rules, path, _READ_FILE | _READ_DIRECTORY | (_EXECUTE if programs else 0))
        for path in written:
            _let(rules, path, access)
        _check(_libc.syscall(_RESTRICT_SELF, rules, 0))
    finally:
        os.close(rules)


def _let(rules: int, path: str | Path, access: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return  # nothing is lost then
    if not stat.S_ISDIR(os.fstat(place).st_mode):
        access &= _OF_A_FILE
    try:
        # struct landlock_path_beneath_attr, which is packed
        _check(_libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", access, place), 0))
    finally:
        os.close(place)


def _filter_calls(machine: _Machine | None) -> None:
    if machine is None:
        raise OSError(errno.ENOSYS, "the numbers of its system calls are not known")
    seccomp.install(_steps(machine))


def _steps(machine: _Machine) -> list[Instruction]:
    unknown = refuse(errno.ENOSYS)
    return [
        *seccomp.load_number(machine.name, unknown),
        *seccomp.REFUSE_FOREIGN,
        *(step for number in machine.refused for step in seccomp.on_call(number, unknown)),
        (JUMP_EQUAL, 0, 4, machine.clone),  # threads only
        seccomp.load_argument(0),
        (JUMP_IF_SET, 1, 0, _CLONE_THREAD),
        refuse(errno.EPERM),
        ALLOW,
        (JUMP_EQUAL, 1, 0, machine.sockets[0]),
        (JUMP_EQUAL, 0, 3, machine.sockets[1]),
        seccomp.load_argument(0),
        (JUMP_EQUAL, 1, 0, socket.AF_UNIX),
        refuse(errno.EAFNOSUPPORT),
        ALLOW,
    ]


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
