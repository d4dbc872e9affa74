"""Tells the service manager that this process is ready and alive: systemd's sd_notify(3)."""

import os
import socket
from collections.abc import MutableMapping
from typing import Final

_LONGEST: Final = 1000
"""Characters of a status text; a datagram holds them."""


class Notifier:
    """Speaks to the service manager, if there is one.

    `interval`: call `alive` this often, in seconds; None: never.
    """

    def __init__(self, connected: socket.socket | None, interval: float | None) -> None:
        self.interval = interval
        self.is_first = True
        """Whether this is the daemon's first process, which alone sends READY."""
        self._socket = connected

    @classmethod
    def connect(cls, environ: MutableMapping[str, str]) -> "Notifier":
        """Connect as NOTIFY_SOCKET and WATCHDOG_USEC say, and remove them from `environ`.

        Privileges that the address needs may be given up afterwards. Without a working address
        nothing is sent.
        """
        address = environ.pop("NOTIFY_SOCKET", "")
        patience = environ.pop("WATCHDOG_USEC", "")
        if not address:
            return cls(None, None)
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            connected.connect("\0" + address[1:] if address[0] == "@" else os.fspath(address))
        except OSError:
            connected.close()
            return cls(None, None)
        watched = patience.isdecimal() and int(patience) > 0
        return cls(connected, int(patience) / 2e6 if watched else None)

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
        if self._socket is not None:
            self._socket.close()
            self._socket = None
