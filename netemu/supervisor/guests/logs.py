"""What the guests' programs say: a file a guest, of bounded size, in the lab's directory."""

import asyncio
import os
from pathlib import Path
from typing import Final

from netemu.wire.runtime_dir import guest_log

# Bytes kept of one guest's words: the newest half at least. A lab's files are in memory.
MOST: Final = 1 << 20
_CHUNK: Final = 65536


class Logs:
    """`directory` is where the files go; `open` gives a descriptor that a program may write to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)

    def open(self, guest: str) -> int:
        """Give the descriptor to write to, the caller's to close.

        What was written before the last boot is still taken.
        """
        hear, tell = os.pipe()
        os.set_blocking(hear, False)
        asyncio.get_running_loop().add_reader(hear, self._heard, guest, hear)
        return tell

    def _heard(self, guest: str, pipe: int) -> None:
        try:
            said = os.read(pipe, _CHUNK)
        except BlockingIOError:
            return
        if not said:
            asyncio.get_running_loop().remove_reader(pipe)
            os.close(pipe)
            return
        path = self._directory / guest_log(guest)
        with path.open("ab") as file:
            file.write(said)
            full = file.tell() > MOST
        if full:
            kept = path.read_bytes()[-MOST // 2 :]
            aside = path.with_suffix(".new")
            aside.write_bytes(kept[kept.find(b"\n") + 1 :])
            aside.replace(path)
