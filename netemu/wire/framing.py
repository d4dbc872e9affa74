"""The framing between our own processes: a length, and a msgspec Struct in msgpack.

Frames are those of the agent's channel. Both ends are of one version: a message that does not fit
its type is a defect, or was cut off by the end of the other process. It raises FrameError.
"""

import socket
from collections.abc import Iterator
from threading import Lock
from typing import Any, Final, Generic, TypeVar

import msgspec

from hostagent.channel.frames import FrameError, Splitter, frame

# The largest is the order for a lab of 65,000 guests: 20 MB.
BOUND: Final = 1 << 26

T = TypeVar("T")


def framed(message: msgspec.Struct) -> bytes:
    """The message's frame. Raises UnicodeEncodeError, or FrameError if it is too long."""
    return frame(msgspec.msgpack.encode(message), BOUND)


_decoders: dict[Any, "msgspec.msgpack.Decoder[Any]"] = {}
# msgspec crashes where two threads meet a type for the first time.
_first_time: Final = Lock()


def _decoder(kind: Any) -> "msgspec.msgpack.Decoder[Any]":
    if kind not in _decoders:
        with _first_time:
            _decoders.setdefault(kind, msgspec.msgpack.Decoder(kind))
    return _decoders[kind]


def decoded(body: bytes, kind: Any) -> Any:
    """A frame's body as `kind`, a Struct or a union of them; in any thread. Raises FrameError."""
    try:
        return _decoder(kind).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"not a message: {error}") from None


class Reader(Generic[T]):
    """Reads messages of one kind from a stream of bytes in pieces of any size."""

    def __init__(self, kind: "type[T] | Any") -> None:
        self._kind = kind
        self._splitter = Splitter(BOUND)

    def feed(self, data: bytes) -> Iterator[T]:
        """The messages that `data` completes. Raises FrameError."""
        for body in self._splitter.feed(data):
            yield decoded(body, self._kind)


class Link:
    """A blocking stream socket to another of our processes: sends and receives whole messages."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def send(self, message: msgspec.Struct) -> None:
        """Send a message. Raises OSError."""
        self._channel.sendall(framed(message))

    def receive(self, kind: Any) -> Any:
        """The next message, of this kind; None if the other end is gone. Raises FrameError."""
        head = self._exactly(4)
        body = head and self._exactly(int.from_bytes(head, "big"))
        return decoded(body, kind) if body else None

    def close(self) -> None:
        self._channel.close()

    def _exactly(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            try:
                part = self._channel.recv(length - len(data))
            except ConnectionResetError:
                return b""
            if not part:
                return b""
            data += part
        return bytes(data)
