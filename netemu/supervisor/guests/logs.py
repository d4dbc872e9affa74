"""Collects the output of the guests' programs: one file for each guest, limited in size, in the
lab's directory.

Runs in the supervisor's loop. Whatever a guest prints, it takes a limited share of the loop's time,
of memory and of descriptors. A guest that prints more waits, as for a slow terminal.
"""

import asyncio
import logging
import os
from pathlib import Path
from typing import Final

from netemu.wire.runtime_dir import guest_log

log = logging.getLogger(__name__)

# Bytes kept of one guest's output: at least the newest half. A lab's files are in memory.
MOST: Final = 1 << 20
_CHUNK: Final = 65536
# Seconds without reading from a guest after each chunk: it can print 1.3 MB a second at most.
_PAUSE: Final = 0.05
# Pipes of one guest that are read: that of this boot, and what is left in the one before. A guest
# may keep older ones open, by handing them to another.
_PIPES: Final = 2


class Logs:
    """`directory` is where the files go; `open` returns a descriptor to write to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pipes: dict[str, list[int]] = {}

    def open(self, guest: str) -> int:
        """The descriptor to write to, which the caller closes.

        Output from before the last boot is still read.
        """
        self._directory.mkdir(mode=0o700, exist_ok=True)
        pipes = self._pipes.setdefault(guest, [])
        hear, tell = os.pipe()
        os.set_blocking(hear, False)
        pipes.append(hear)
        asyncio.get_running_loop().add_reader(hear, self._heard, guest, hear)
        while len(pipes) > _PIPES:
            self._close(guest, pipes[0])
        return tell

    def _close(self, guest: str, pipe: int) -> None:
        asyncio.get_running_loop().remove_reader(pipe)
        self._pipes[guest].remove(pipe)
        os.close(pipe)

    def _heard(self, guest: str, pipe: int) -> None:
        try:
            said = os.read(pipe, _CHUNK)
        except BlockingIOError:
            return
        if not said:
            self._close(guest, pipe)
            return
        try:
            self._keep(self._directory / guest_log(guest), said)
        except OSError as error:  # a full disk; the guest goes on
            log.warning("what %s says is lost: %s", guest, error)
        loop = asyncio.get_running_loop()
        loop.remove_reader(pipe)
        loop.call_later(_PAUSE, self._listen_again, guest, pipe)

    def _listen_again(self, guest: str, pipe: int) -> None:
        if pipe in self._pipes[guest]:
            asyncio.get_running_loop().add_reader(pipe, self._heard, guest, pipe)

    def _keep(self, path: Path, said: bytes) -> None:
        with path.open("ab") as file:
            file.write(said)
            full = file.tell() > MOST
        if full:
            kept = path.read_bytes()[-MOST // 2 :]
            aside = path.with_suffix(".new")
            aside.write_bytes(kept[kept.find(b"\n") + 1 :])
            aside.replace(path)
