"""What a service says to the supervisor: its output, line by line, and its sd_notify(3) notices.

Runs in the supervisor. Both ends that a service writes to never block it: what does not fit while
the supervisor is busy is lost.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

# Bytes read at one go: the whole of a pipe.
_CHUNK: Final = 65536
# Of the last line so many characters are kept, to be shown.
_LINE: Final = 300
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Output:
    """A pipe for standard output and error. What comes goes to the descriptor `log`."""

    def __init__(self, log: int) -> None:
        """Make the pipe; raises OSError. `theirs` is the end for the service."""
        self.last_line: str | None = None
        self._log = log
        self._ours, self.theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._ours, self.read)

    def read(self) -> None:
        """Take what is there."""
        try:
            data = os.read(self._ours, _CHUNK)
        except BlockingIOError:
            return
        try:
            os.write(self._log, data)
        except OSError:  # a full disk: the service goes on
            pass
        lines = data.decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        if said:
            shown = said[-1][-_LINE:]
            self.last_line = "".join(one if one.isprintable() else "\ufffd" for one in shown)

    def close(self) -> None:
        """Take what is left, and close both ends."""
        self.read()
        self._loop.remove_reader(self._ours)
        os.close(self._ours)
        os.close(self.theirs)


class Notices:
    """The socket at `path` that a service notifies; `heard` is told who said what."""

    def __init__(self, path: Path, heard: Callable[[int, str], None]) -> None:
        """Make the socket; raises OSError."""
        self._heard = heard
        self._path = path
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self._socket.bind(str(path))
            path.chmod(0o600)
        except OSError:
            self._socket.close()
            raise
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self.read)

    def read(self) -> None:
        """Take what is there."""
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
        """Close the socket, and remove its file."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._path.unlink(missing_ok=True)
