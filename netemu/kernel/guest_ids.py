"""The user IDs of guests: in root's lab a range for each, so that a guest's root is nobody outside.

Runs in the factory. An ordinary user's lab has one ID, its owner's, and there is nothing to share
out: files and limits are guarded by the owner being nobody special.
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
# 600100000) give to anybody. Two guests in 4,094 have the same when they come round; then they
# share limits, and nothing else.
_FIRST: Final = 0x7000_0000
_COUNT: Final = 0x1_0000
_RANGES: Final = 4094
_PR_SET_SECUREBITS: Final = 28
_NO_SETUID_FIXUP: Final = 1 << 2
_NS_GET_OWNER_UID: Final = 0xB704

_libc = ctypes.CDLL(None, use_errno=True)


class Ranges:
    """Gives out ranges, one after another, where this process may map them."""

    def __init__(self) -> None:
        self._next = random.randrange(_RANGES)

    def take(self) -> int | None:
        """The first ID of a range; None where there are none to give."""
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
    """Be another user for a moment, with all capabilities: who makes a namespace is its owner.

    What it makes counts against the limits of that user, and of nobody else.
    """
    _libc.prctl(_PR_SET_SECUREBITS, _NO_SETUID_FIXUP, 0, 0, 0)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)


def owner_of(user_namespace: int) -> int:
    """Who owns a user namespace: for a guest's the first ID of its range, or 0."""
    found = array.array("I", [0])
    fcntl.ioctl(user_namespace, _NS_GET_OWNER_UID, found)
    return found[0]


def map_range(process: int, first: int, count: int = _COUNT) -> None:
    """Have 0 and the following in the new user namespace of `process` be `first` and so on."""
    ns.write_maps(process, f"0 {first} {count}\n".encode())


def be_root() -> None:
    """Be root of the user namespace that was entered, where one is nobody so far."""
    if os.geteuid() != 0:
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
