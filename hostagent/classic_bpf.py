"""Classic BPF: the language of socket filters and of filters of system calls.

Packs programs for the kernel. Runs in any process; keeps nothing.
"""

import ctypes
import struct
from collections.abc import Iterable
from typing import Final

# <linux/bpf_common.h>, <linux/filter.h>
LOAD_WORD: Final = 0x20
LOAD_HALF: Final = 0x28
LOAD_BYTE: Final = 0x30
LOAD_LENGTH: Final = 0x80
MODULO: Final = 0x94
JUMP_EQUAL: Final = 0x15
JUMP_AT_LEAST: Final = 0x35
JUMP_IF_SET: Final = 0x45
RETURN: Final = 0x06
RETURN_LOADED: Final = 0x16

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand: struct sock_filter."""

SOCK_FILTER: Final = struct.Struct("=HBBI")


def pack(instructions: Iterable[Instruction]) -> bytes:
    """The program as an array of struct sock_filter."""
    return b"".join(SOCK_FILTER.pack(*one) for one in instructions)


class Program(ctypes.Structure):
    """A packed program, as struct sock_fprog. The kernel copies it when it is attached."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    def __init__(self, packed: bytes) -> None:
        super().__init__(len(packed) // SOCK_FILTER.size, packed)
