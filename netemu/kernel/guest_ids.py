"""The user IDs of guests. In root's lab each guest has a range of its own, so that its root has no
rights outside.

Runs in the factory. An ordinary user's lab has one ID, its owner's; there is nothing to divide, and
the owner has no special rights.
"""

import array
import ctypes
import fcntl
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from netemu.kernel import namespaces as ns

# IDs that neither systemd (containers: up to 0x6fffffff) nor shadow's subordinate IDs (100000 to
# 600100000) use. They come round after 4,094 guests: two guests with the same range share limits,
# and nothing else.
_FIRST: Final = 0x7000_0000
_COUNT: Final = 0x1_0000
_RANGES: Final = 4094
ROOT: Final = 0
NONE: Final = 0xFFFF_FFFE
"""No file's owner: the last number, which no range of users has."""

_PR_SET_SECUREBITS: Final = 28
_NO_SETUID_FIXUP: Final = 1 << 2
_NS_GET_OWNER_UID: Final = 0xB704

_libc = ctypes.CDLL(None, use_errno=True)


class Ranges:
    """Hands out ranges one after another, if this process may map them."""

    def __init__(self) -> None:
        self._next = random.randrange(_RANGES)

    def take(self) -> int | None:
        """The first ID of the next range; None if this process may map none."""
        if not may_map():
            return None
        self._next = (self._next + 1) % _RANGES
        return _FIRST + self._next * _COUNT


@cache
def may_map() -> bool:
    """Whether these IDs are known here: they are in root's lab, but for some containers."""
    lines = Path("/proc/self/uid_map").read_text().splitlines()
    last = _FIRST + _RANGES * _COUNT
    extents = [tuple(map(int, line.split())) for line in lines]
    return any(first <= _FIRST and last <= first + count for first, _, count in extents)


@contextmanager
def owner(user: int) -> Iterator[None]:
    """Act as another user, with all capabilities, so that what is made meanwhile belongs to that
    user.

    It counts against that user's limits, and nobody else's.
    """
    _libc.prctl(_PR_SET_SECUREBITS, _NO_SETUID_FIXUP, 0, 0, 0)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)


def owner_of(user_namespace: int) -> int:
    """The owner of a user namespace: the first ID of a guest's range, or 0."""
    found = array.array("I", [0])
    fcntl.ioctl(user_namespace, _NS_GET_OWNER_UID, found)
    return found[0]


def map_range(process: int, first: int) -> None:
    """Have 0 and the following in the new user namespace of `process` be `first` and so on."""
    ns.write_maps(process, f"0 {first} {_COUNT}\n".encode())


def be_root() -> None:
    """Become root of the user namespace that this process has entered, if it has users."""
    if os.geteuid() != 0:
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
