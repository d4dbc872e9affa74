"""A strict reader of chunked bodies (RFC 9112 §7.1). Pure."""

import re
from typing import Final

from hostagent.http.grammar import LINE_END, MAX_BODY, TOKEN, check_field_line
from hostagent.http.request import BadRequest

MAX_LINE: Final = 256
"""Bytes of a chunk's size with its extensions, or of a trailer field, with CRLF. Real clients send
only the size."""

MAX_FRAMING: Final = 16384
"""Bytes of a body's framing: two thousand chunks."""

# RFC 9112 §7.1.1, RFC 9110 §5.6.4. A reader that takes less than this for an extension may look for
# the chunk's data elsewhere.
_QUOTED: Final = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSION: Final = (
    rb"[\t ]*;[\t ]*" + TOKEN + rb"+(?:[\t ]*=[\t ]*(?:" + TOKEN + rb"+|" + _QUOTED + rb"))?"
)
# A size of more digits is too large whatever they are. Extensions are ignored.
_size = re.compile(rb"([0-9A-Fa-f]{1,8})(?:" + _EXTENSION + rb")*")

# RFC 9110 §6.5.1. Other trailers are discarded (RFC 9112 §7.1.2).
_NO_TRAILERS: Final = (b"content-length", b"host", b"transfer-encoding")


def _check_trailer(line: bytes) -> None:
    check_field_line(line)
    if line.partition(b":")[0].lower() in _NO_TRAILERS:
        raise BadRequest(400, "a trailer must not tell where the message ends or where it goes")


class Chunks:
    """Feed it the bytes after the head until `whole()` is true; raises BadRequest."""

    def __init__(self) -> None:
        self.body = bytearray()
        """The content received so far."""
        self.rest = bytearray()
        """Bytes not read yet; after a whole body, the bytes that follow it."""
        self._left = 0  # bytes of the chunk that is being read
        self._in_chunk = False  # until its end is read
        self._in_trailer = False
        self._framing = 0

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self.rest += data

    def whole(self) -> bool:
        """Read on; returns whether the body's end was read. Do not call it again after that."""
        while True:
            if self._in_chunk:
                if not self._read_chunk():
                    return False
                continue
            line = self._read_line()
            if line is None:
                return False
            if not self._in_trailer:
                self._begin_chunk(line)
            elif line:
                _check_trailer(line)
            else:
                return True

    def _begin_chunk(self, line: bytes) -> None:
        match = _size.fullmatch(line)
        if match is None:
            raise BadRequest(400, "a chunk must begin with its size in hexadecimal digits")
        self._left = int(match[1], 16)
        if len(self.body) + self._left > MAX_BODY:
            raise BadRequest(413, f"a body of more than {MAX_BODY} bytes")
        self._in_chunk = self._left > 0
        self._in_trailer = not self._in_chunk

    def _read_chunk(self) -> bool:
        """Read of the chunk what has arrived; returns whether it is whole, with its line end."""
        here = self.rest[: self._left]
        self.body += here
        del self.rest[: len(here)]
        self._left -= len(here)
        if self._left:
            return False
        if not b"\r\n".startswith(self.rest[:2]):
            raise BadRequest(400, "a chunk is longer than it says")
        if len(self.rest) < 2:
            return False
        del self.rest[:2]
        self._in_chunk = False
        return True

    def _read_line(self) -> bytes | None:
        """Read a line without its end, or None if it is not here yet."""
        end = LINE_END.search(self.rest, 0, MAX_LINE)
        if end is None or (end.group() == b"\r" and end.end() in (len(self.rest), MAX_LINE)):
            if len(self.rest) < MAX_LINE:
                return None
            raise BadRequest(400, f"a line of more than {MAX_LINE} bytes in a body's chunks")
        if end.group() != b"\r\n":
            raise BadRequest(400, "a line must end with CR LF, and contain neither elsewhere")
        line = bytes(self.rest[: end.start()])
        del self.rest[: end.end()]
        self._framing += len(line) + 2
        if self._framing > MAX_FRAMING:
            raise BadRequest(413, f"chunks with more than {MAX_FRAMING} bytes of framing")
        return line
