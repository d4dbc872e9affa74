"""Tells the service manager that this process is ready and alive: systemd's sd_notify(3)."""

import os
import socket
from collections.abc import MutableMapping
from typing import Final

_LONGEST: Final = 1000
"""Characters of a status text; a datagram holds them."""


class Notifier:
    """Connects when made, so that privileges that the address needs may be given up afterwards."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Remove the variables from `environ`. Without a working NOTIFY_SOCKET nothing is sent.

        `interval`: call `alive` this often, in seconds, according to WATCHDOG_USEC; None: never.
        """
        self.interval: float | None = None
        self.is_first = True
        """Whether this is the daemon's first process, which alone sends READY."""
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
        """Send READY with a short status."""
        if self.is_first:
            self._say(f"READY=1\nSTATUS=READY {what}")

    def alive(self) -> None:
        """Send that this process works, without waiting for a reader."""
        self._say("WATCHDOG=1", socket.MSG_DONTWAIT)

    def ends(self, why: str) -> None:
        """Send why this process is about to end."""
        self._say(f"STATUS={' '.join(why.split())}"[:_LONGEST])

    def _say(self, text: str, flags: int = 0) -> None:
        if self._socket is not None:
            try:
                self._socket.send(text.encode(), flags)
            except BlockingIOError:
                pass
            except OSError:  # the reader is gone; go on serving
                self.close()

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
