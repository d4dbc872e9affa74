"""Telling whoever started us that we are ready: systemd's protocol, sd_notify(3)."""

import os
import socket
from collections.abc import MutableMapping


class Notifier:
    """Connects when made, so that privileges which the address needs may be given up after."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Take NOTIFY_SOCKET out of `environ`; without it, or if it is dead, stay silent."""
        self._socket: socket.socket | None = None
        address = environ.pop("NOTIFY_SOCKET", "")
        if not address:
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.connect("\0" + address[1:] if address[0] == "@" else os.fspath(address))
        except OSError:
            self.close()

    def ready(self, what: str) -> None:
        """Say READY, and in a word what is."""
        if self._socket is not None:
            try:
                self._socket.send(f"READY=1\nSTATUS=READY {what}".encode())
            except OSError:  # nobody waits any more; that is no reason not to serve
                self.close()

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
