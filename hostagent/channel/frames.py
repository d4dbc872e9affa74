"""Frames: four bytes of length, big-endian, and one msgpack map. Pure."""

from collections.abc import Iterator
from typing import Any, Final

import msgpack

MAX_FRAME: Final = 1 << 20
"""Bytes of one frame's body. The largest message, a thousand guests with the longest names, is a
quarter of that (snapshots and lists go in parts); a greater length is garbage or an attack."""

MAX_DEPTH: Final = 8
"""Nested maps and lists. The message set needs four."""

_LENGTH_BYTES: Final = 4


class FrameError(Exception):
    """The stream is not a sequence of frames; nothing after this point can be read."""


def pack(obj: dict[str, Any]) -> bytes:
    """Return the frame for `obj`; raises FrameError if it cannot be encoded or is too long."""
    try:
        body: bytes = msgpack.packb(obj)
    except OverflowError as error:
        raise FrameError("a number has more than 64 bits") from error
    except UnicodeEncodeError as error:
        raise FrameError("a text is not Unicode") from error
    return frame(body)


def frame(body: bytes, bound: int = MAX_FRAME) -> bytes:
    """Return the frame with this body; raises FrameError if it is longer than the bound."""
    if len(body) > bound:
        raise FrameError(f"a frame of {len(body)} bytes exceeds the bound of {bound}")
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


class Splitter:
    """Bytes in, bodies out. Holds at most one unfinished frame beyond what was just fed."""

    def __init__(self, bound: int = MAX_FRAME) -> None:
        self._bound = bound
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the bodies that are complete with `data`; raises FrameError at a length too great.

        Frames before that one are yielded. After a FrameError the splitter cannot be used.
        """
        self._buffer += data
        start = 0
        try:
            while len(self._buffer) - start >= _LENGTH_BYTES:
                body = start + _LENGTH_BYTES
                length = int.from_bytes(self._buffer[start:body], "big")
                if length > self._bound:
                    raise FrameError(
                        f"a frame says it has {length} bytes; the bound is {self._bound}"
                    )
                if len(self._buffer) - body < length:
                    return
                start = body + length
                yield bytes(self._buffer[body:start])
        finally:
            del self._buffer[:start]


class Decoder:
    """Bytes in, maps out."""

    def __init__(self) -> None:
        self._splitter = Splitter()

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Yield the maps that are complete with `data`; raises FrameError at the first bad frame.

        Frames before a bad one are yielded. After a FrameError the decoder cannot be used.
        """
        for body in self._splitter.feed(data):
            yield _unpack(body)


def _unpack(body: bytes) -> dict[str, Any]:
    try:
        # strict_map_key: keys are strings; lists and maps are bounded by the body's length.
        obj = msgpack.unpackb(body, raw=False, strict_map_key=True)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise FrameError(f"not msgpack: {error or type(error).__name__}") from error
    if not isinstance(obj, dict):
        raise FrameError(f"a frame must hold a map, not {type(obj).__name__}")
    _check_depth(obj)
    return obj


def _check_depth(obj: object) -> None:
    """Refuse deep nesting, level by level: recursion could exhaust the stack."""
    level: list[Any] = [obj]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            values = item.values() if isinstance(item, dict) else item
            inner += [value for value in values if isinstance(value, (dict, list))]
        if not inner:
            return
        level = inner
    raise FrameError(f"nested deeper than {MAX_DEPTH} levels")
