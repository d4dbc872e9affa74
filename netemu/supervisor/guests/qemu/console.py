"""A machine's serial console: all of it goes to the guest's log, and to those who are attached.
Runs in the supervisor's loop. A machine that prints more than the log takes waits, as for a slow
terminal; a client that is too slow misses some of it.
"""

import asyncio
import os
import socket
from contextlib import suppress
from typing import Final

from netemu.errors import NotSo

_CHUNK: Final = 16384
# Bytes that are kept for the machine's last words.
_LAST: Final = 200
# Seconds until a full log is tried again.
_PAUSE: Final = 0.05
# Clients of one console: each is a socket of the supervisor's.
MOST: Final = 8


class Console:
    """`link` is the console's socket, `log` a descriptor of this object's that takes its output.

    `errors` is a pipe with what the emulator itself says, which goes to the log too.
    """

    def __init__(self, link: socket.socket, errors: int, log: int) -> None:
        self.last_line = ""
        self._last_said = b""
        self._link, self._errors, self._log = link, errors, log
        self._clients: set[socket.socket] = set()
        self._open = True
        self._loop = asyncio.get_running_loop()
        os.set_blocking(log, False)
        os.set_blocking(errors, False)
        self._loop.add_reader(link, self._printed)
        self._loop.add_reader(errors, self._emulator_said)

    def attach(self) -> socket.socket:
        """A socket that is the console: what is sent there is typed. The caller closes it."""
        if len(self._clients) >= MOST:
            raise NotSo(f"{MOST} are at this console already")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._clients.add(ours)
        self._loop.add_reader(ours, self._typed, ours)
        return theirs

    @property
    def last_words(self) -> str:
        """The last line that the machine has printed, as far as it can be shown."""
        for line in reversed(self._last_said.decode(errors="replace").splitlines()):
            shown = "".join(one for one in line if one.isprintable()).strip()
            if shown:
                return shown
        return ""

    def close(self) -> None:
        """Stop, and let all go who are attached."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._link)
        self._loop.remove_reader(self._errors)
        for client in list(self._clients):
            self._let_go(client)
        self._link.close()
        os.close(self._errors)
        os.close(self._log)

    def _printed(self) -> None:
        try:
            said = self._link.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self._loop.remove_reader(self._link)
            return
        self._last_said = (self._last_said + said)[-_LAST:]
        for client in list(self._clients):
            try:
                client.send(said)
            except BlockingIOError:
                pass
            except OSError:
                self._let_go(client)
        self._keep(said)

    def _emulator_said(self) -> None:
        try:
            said = os.read(self._errors, _CHUNK)
        except BlockingIOError:
            return
        if not said:
            self._loop.remove_reader(self._errors)
            return
        lines = said.decode(errors="replace").split("\n")
        self.last_line = next((one for one in reversed(lines) if one.strip()), self.last_line)
        with suppress(OSError):
            os.write(self._log, said)

    def _keep(self, said: bytes) -> None:
        try:
            written = os.write(self._log, said)
        except BlockingIOError:
            written = 0
        except OSError:  # nobody keeps it any more
            return
        if written < len(said):
            self._loop.remove_reader(self._link)
            self._loop.call_later(_PAUSE, self._keep_rest, said[written:])

    def _keep_rest(self, said: bytes) -> None:
        if self._open:
            self._loop.add_reader(self._link, self._printed)
            self._keep(said)

    def _typed(self, client: socket.socket) -> None:
        try:
            typed = client.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            typed = b""
        if not typed:
            self._let_go(client)
            return
        with suppress(OSError):  # the machine reads nothing
            self._link.send(typed)

    def _let_go(self, client: socket.socket) -> None:
        if client in self._clients:
            self._clients.discard(client)
            self._loop.remove_reader(client)
            client.close()
