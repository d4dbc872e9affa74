"""Limits the size of the lab's log, to which supervisor, agents, responders and guests' inits
print.

Runs in the supervisor. All append to one file. It is shortened in place, so that nobody has to open
another.
"""

import asyncio
import logging
import os
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

# Bytes. An access log at a hundred requests a second passes this within an hour, and a lab's files
# are in memory on most machines. The newest half is kept.
MOST: Final = 16 << 20
_LOOK: Final = 1.0


async def keep_short(path: Path) -> None:
    """Look at the log every second, for as long as the lab is up."""
    while True:
        await asyncio.sleep(_LOOK)
        try:
            shorten(path, MOST)
        except OSError as error:  # for instance a full disk
            log.warning("the log cannot be shortened: %s", error.strerror)


def shorten(path: Path, most: int) -> None:
    """Keep the newest whole lines, half of `most` bytes, of a log that has more than `most`."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        if size <= most:
            return
        kept = os.pread(descriptor, most, size - most // 2)
        os.ftruncate(descriptor, 0)
        rest = memoryview(kept)[kept.find(b"\n") + 1 :]
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    finally:
        os.close(descriptor)
