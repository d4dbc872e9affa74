"""Filters of system calls, written in classic BPF: what every such filter consists of.

A filter is for the process that installs it and for all that it starts, and cannot be lifted.
"""

import ctypes
import errno
import os
from collections.abc import Iterable
from typing import Final

from hostagent.classic_bpf import (
    JUMP_AT_LEAST,
    JUMP_EQUAL,
    LOAD_WORD,
    RETURN,
    Instruction,
    Program,
    pack,
)

# linux/prctl.h, linux/seccomp.h
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
# Offsets in struct seccomp_data; of the arguments the lower halves.
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_FOREIGN: Final = 0x40000000  # from here on x86-64 has the numbers of x32

ALLOW: Final[Instruction] = (RETURN, 0, 0, _ALLOW)


def refuse(code: int) -> Instruction:
    """Have the call fail with this error number; with 0 it does nothing, and succeeds."""
    return (RETURN, 0, 0, _ERRNO | code)


def load_argument(place: int) -> Instruction:
    """Load the lower half of the call's argument at this place, from 0."""
    return (LOAD_WORD, 0, 0, _FIRST_ARGUMENT + 8 * place)


def load_number(architecture: int, otherwise: Instruction) -> tuple[Instruction, ...]:
    """Load the number of the call; calls of any other architecture end `otherwise`.

    `architecture` is of linux/audit.h.
    """
    return (
        (LOAD_WORD, 0, 0, _ARCHITECTURE),
        (JUMP_EQUAL, 1, 0, architecture),
        otherwise,
        (LOAD_WORD, 0, 0, _NUMBER),
    )


REFUSE_FOREIGN: Final[tuple[Instruction, ...]] = (
    (JUMP_AT_LEAST, 0, 1, _FOREIGN),
    refuse(errno.ENOSYS),
)
"""Refuse the numbers of an ABI that shares the architecture, once the number is loaded."""


def on_call(number: int, result: Instruction) -> tuple[Instruction, ...]:
    """End a call so, once the number is loaded; go on with any other."""
    return (JUMP_EQUAL, 0, 1, number), result


def install(instructions: Iterable[Instruction]) -> None:
    """Install a filter beside those that this process has: the severest verdict counts.

    The process has no_new_privs, or is root in its user namespace. Raises OSError.
    """
    library = ctypes.CDLL(None, use_errno=True)
    program = ctypes.byref(Program(pack(instructions)))
    if library.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
