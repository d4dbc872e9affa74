"""Receives what services report by sd_notify(3). Runs in the supervisor."""

import asyncio
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Notices:
    """The socket at `path` that a service notifies; `heard` is called with the process and the
    text.
    """

    def __init__(
        self, opened: socket.socket, path: Path, heard: Callable[[int, str], None]
    ) -> None:
        self._socket = opened
        self._heard = heard
        self._path = path
        self._loop = asyncio.get_running_loop()

    @classmethod
    def open(cls, path: Path, heard: Callable[[int, str], None]) -> "Notices":
        """Make the socket, and have the running loop read it. Raises OSError."""
        path.unlink(missing_ok=True)
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            opened.bind(str(path))
            path.chmod(0o600)
        except OSError:
            opened.close()
            raise
        made = cls(opened, path, heard)
        made._loop.add_reader(opened, made.read)
        return made

    def read(self) -> None:
        """Read what has arrived."""
        while True:
            try:
                text, extra, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
            except BlockingIOError:
                return
            for level, kind, data in extra:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                    pid, _, _ = _CREDENTIALS.unpack(data)
                    self._heard(pid, text.decode(errors="replace"))

    def close(self) -> None:
        """Read what is left, close the socket, and remove its file."""
        self.read()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._path.unlink(missing_ok=True)
