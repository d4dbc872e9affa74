"""Telling whoever started us that we are ready, and that we live: systemd's sd_notify(3)."""

import os
import socket
from collections.abc import MutableMapping
from typing import Final

_LONGEST: Final = 1000
"""Characters of a reason to end; a datagram holds them."""


class Notifier:
    """Connects when made, so that privileges which the address needs may be given up after."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Take the variables out of `environ`; without NOTIFY_SOCKET, or if it is dead, be silent.

        `interval` is how often `alive` is to be called, in seconds, as WATCHDOG_USEC says; None:
        nobody wants to know.
        """
        self.interval: float | None = None
        self.is_first = True
        """Whether this is the daemon's first process: READY is for that one to say."""
        self._socket: socket.socket | None = None
        address = environ.pop("NOTIFY_SOCKET", "")
        patience = environ.pop("WATCHDOG_USEC", "")
        if not address:
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.connect("\0" + address[1:] if address[0] == "@" else os.fspath(address))
        except OSError:
            self.close()
            return
        if patience.isdecimal() and int(patience) > 0:
            self.interval = int(patience) / 2e6

    def ready(self, what: str) -> None:
        """Say READY, and in a word what is."""
        if self.is_first:
            self._say(f"READY=1\nSTATUS=READY {what}")

    def alive(self) -> None:
        """Say that this process does its work; whether anybody reads it is not waited for."""
        self._say("WATCHDOG=1", socket.MSG_DONTWAIT)

    def ends(self, why: str) -> None:
        """Say why this process is about to end."""
        self._say(f"STATUS={' '.join(why.split())}"[:_LONGEST])

    def _say(self, text: str, flags: int = 0) -> None:
        if self._socket is not None:
            try:
                self._socket.send(text.encode(), flags)
            except BlockingIOError:
                pass
            except OSError:  # nobody waits any more; that is no reason not to serve
                self.close()

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
