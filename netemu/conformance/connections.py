"""Connections of a place's own kernel: dial, speak, and serve.

This is the part of `netemu.conformance.inside` that handles ordinary sockets.
"""

import socket
import struct
import time


class Connections:
    """The connections of one place, by their names."""

    def __init__(self) -> None:
        self._links: dict[str, socket.socket] = {}
        self._kept: list[socket.socket] = []

    def dial(
        self,
        name: str,
        to: str,
        port: int,
        *,
        patience: float = 1.0,
        mark: int | None = None,
        room: int | None = None,
        source: str = "",
    ) -> tuple[str, int]:
        """Connect. Returns "" and the own port, or the error and 0.

        `mark` is the socket's, `room` the bytes of its receive buffer.
        """
        family = socket.AF_INET6 if ":" in to else socket.AF_INET
        link = socket.socket(family, socket.SOCK_STREAM)
        link.settimeout(patience)
        try:
            if mark is not None:
                link.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark))
            if room is not None:
                link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
            if source:
                link.bind((source, 0))
            # The whole address: that of a link has its interface's index in it.
            link.connect(socket.getaddrinfo(to, port, family)[0][4])
        except OSError as error:
            link.close()
            return type(error).__name__, 0
        self.hang_up(name)
        self._links[name] = link
        return "", link.getsockname()[1]

    def say(self, name: str, data: bytes) -> str:
        """Send on a connection, without waiting for room. Returns the error, or ""."""
        link = self._links[name]
        link.setblocking(False)
        try:
            link.send(data)
        except BlockingIOError:
            return ""
        except OSError as error:
            return type(error).__name__
        return ""

    def hear(self, name: str, patience: float) -> tuple[bytes, str]:
        """Receive one HTTP answer, or what arrives of it. Returns it with "open", "closed" or the
        error.
        """
        link = self._links[name]
        end = time.monotonic() + patience
        data = b""
        while (left := end - time.monotonic()) > 0:
            link.settimeout(left)
            try:
                part = link.recv(65536)
            except TimeoutError:
                break
            except OSError as error:
                return data, type(error).__name__
            if not part:
                return data, "closed"
            data += part
            if _is_whole(data):
                # If the other end closes after it, that happens at once.
                end = min(end, time.monotonic() + 0.02)
        return data, "open"

    def hang_up(self, name: str) -> None:
        """Close a connection, if it is there."""
        if name in self._links:
            self._links.pop(name).close()

    def get(self, request: bytes, to: str, port: int, patience: float) -> tuple[bytes, str, float]:
        """Send one request on a connection of its own. Returns the answer, how it ended, and the
        seconds it took.
        """
        begun = time.monotonic()
        wrong, _ = self.dial("get", to, port, patience=patience)
        if wrong:
            return b"", wrong, time.monotonic() - begun
        self.say("get", request)
        answer, end = self.hear("get", patience)
        taken = time.monotonic() - begun
        self.hang_up("get")
        return answer, end, taken

    def datagram(self, source: str, to: str) -> str:
        """Send a UDP datagram, from `source` if one is given. Returns the error, or ""."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            try:
                if source:
                    link.bind((source, 0))
                link.sendto(b"x", (to, 9))
            except OSError as error:
                return str(error)
        return ""

    def serve(self, family: int, port: int) -> str:
        """Listen for TCP and UDP on every address of the place. Returns the error, or ""."""
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                made = socket.socket(family, kind)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                made.bind(("", port))
                if kind is socket.SOCK_STREAM:
                    made.listen(16)
                self._kept.append(made)
        except OSError as error:
            return str(error)
        return ""

    def stop_serving(self) -> None:
        """Close what `serve` has opened."""
        for made in self._kept:
            made.close()
        self._kept.clear()


def _is_whole(data: bytes) -> bool:
    head, mark, body = data.partition(b"\r\n\r\n")
    if not mark:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return True
