"""A body that comes in chunks (RFC 9112 §7.1), out of bytes. Strict, as the head is read."""

import re
from typing import Final

from hostagent.http.grammar import LINE_END, MAX_BODY, check_field_line
from hostagent.http.request import BadRequest

MAX_LINE: Final = 256
"""Bytes of a chunk's size with its extensions, or of a trailer field, with CRLF. Clients send a
number, and none of the others."""

MAX_FRAMING: Final = 16384
"""Bytes of a body that are not its content: two thousand chunks."""

# A size of more digits is too large whatever they are. RFC 9112 §7.1.1: extensions are ignored.
_size = re.compile(rb"([0-9A-Fa-f]{1,8})[\t ]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


class Chunks:
    """Feed it what arrives after the head; it is `whole()` in the end, or raises BadRequest."""

    def __init__(self) -> None:
        self.body = bytearray()
        """The content, as far as it is here."""
        self.rest = bytearray()
        """What is not read yet; of a body that is whole, what follows it."""
        self._left = 0  # bytes of the chunk that is being read
        self._in_chunk = False  # its end is still to come
        self._in_trailer = False
        self._framing = 0

    def feed(self, data: bytes) -> None:
        """Take in what was received."""
        self.rest += data

    def whole(self) -> bool:
        """Read on; whether the body's end has been read. Not to be asked again when it has."""
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
                check_field_line(line)  # RFC 9112 §7.1.2: who does not understand it discards it
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
        """Read what is here of the chunk; whether that is all of it, with the line's end."""
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
            raise BadRequest(400, "a line must end with CR LF, which stand nowhere else")
        line = bytes(self.rest[: end.start()])
        del self.rest[: end.end()]
        self._framing += len(line) + 2
        if self._framing > MAX_FRAMING:
            raise BadRequest(413, f"chunks that need more than {MAX_FRAMING} bytes themselves")
        return line
