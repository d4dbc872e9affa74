"""Reads requests from bytes, however these are cut. Pure."""

from functools import lru_cache
from typing import Final

from msgspec.structs import replace

from hostagent.http.chunks import Chunks
from hostagent.http.grammar import (
    CHUNKED,
    LINE_END,
    MAX_FIELDS,
    MAX_HEAD,
    MAX_REQUEST_LINE,
    REQUEST_LINE,
    WHOLE_HEAD,
    check_field_line,
    check_headers,
    check_request_line,
    combine,
)
from hostagent.http.request import BadRequest, Request

REPEATED_HEAD: Final = 512
REPEATED_HEADS: Final = 256
"""Clients repeat the same bytes. Parsed heads up to this long are kept, and the latest of them."""

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


def _head(
    method: bytes, path: bytes, query: bytes | None, minor: bytes, fields: list[str]
) -> tuple[Request, int]:
    """Return the request and its body's length, or CHUNKED; raises BadRequest."""
    if len(fields) > MAX_FIELDS:
        raise BadRequest(431, f"more than {MAX_FIELDS} header fields")
    version = (1, int(minor))
    headers = combine(fields)
    length = check_headers(headers, version)
    connection = headers.get("connection", "").lower()
    options = [option.strip(" \t") for option in connection.split(",")] if connection else ()
    request = Request(
        method=method.decode("ascii"),
        path=path.decode("ascii"),
        query=None if query is None else query.decode("ascii"),
        version=version,
        headers=headers,
        # RFC 9112 §9.3: 1.1 persists by default, 1.0 only on request.
        keep_alive="close" not in options and (version == (1, 1) or "keep-alive" in options),
    )
    return request, length


@lru_cache(REPEATED_HEADS)
def _whole_head(head: bytes) -> tuple[Request, int] | None:
    """Return what a regular head says, see `_head`; None if it must be read line by line."""
    match = WHOLE_HEAD.fullmatch(head)
    if match is None or len(head) > MAX_HEAD or match.start(5) > MAX_REQUEST_LINE:
        return None
    method, path, query, minor, block = match.groups()
    return _head(method, path, query, minor, block.decode("latin-1").split("\r\n")[:-1])


class RequestReader:
    """Feed it bytes and take out requests. After a BadRequest it cannot be used."""

    def __init__(self) -> None:
        self._buffer = b""
        self._lines: list[bytes] = []  # of an incomplete head: those that are complete
        self._line_start = 0  # of the first that is not
        self._scanned = 0  # there is no line end between these two
        self._skipped_empty_line = False
        self._request: Request | None = None  # the head whose body is still to come
        self._wanted = 0  # bytes of that body
        self._body = bytearray()
        self._chunks: Chunks | None = None  # of that body, if it comes so
        self.continue_wanted = False
        """Whether the client waits for CONTINUE before it sends the body. Clear it once sent."""

    @property
    def idle(self) -> bool:
        """Whether no part of another request has been received."""
        return not self._buffer and self._request is None

    @property
    def fresh(self) -> bool:
        """Whether the reader is in its initial state: bytes mean the same as to a new one."""
        return not self._buffer and self._request is None and not self._skipped_empty_line

    def feed(self, data: bytes) -> None:
        """Add received bytes. The caller has to limit their amount."""
        if self._chunks is not None:
            self._chunks.feed(data)
        elif self._request is not None:
            self._body += data
        else:
            self._buffer = self._buffer + data if self._buffer else data

    def next(self) -> Request | None:
        """Return the next request, or None until more is fed; raises BadRequest."""
        if self._request is None:
            try:
                request = self._read_head() if self._buffer else None
            except BadRequest as error:
                error.path = self._path()
                raise
            if request is None or self._wanted == 0:
                return request
            self._request = request
        try:
            return self._finish_body(self._request)
        except BadRequest as error:
            error.path = self._request.path
            raise

    def _consume(self, length: int) -> None:
        """Drop the first `length` bytes of the buffer."""
        self._buffer = self._buffer[length:]
        self._lines = []
        self._line_start = self._scanned = 0
        self._skipped_empty_line = False

    def _read_head(self) -> Request | None:
        """Read one head off the buffer if it is whole, and prepare for its body."""
        buffer = self._buffer
        # First the common case in one match. A head that is wrong, too long or incomplete does not
        # match, and is read line by line.
        end = buffer.find(b"\r\n\r\n") + 4 if self._scanned == 0 else 0
        found = None
        if end > 3:
            read = _whole_head if end <= REPEATED_HEAD else _whole_head.__wrapped__
            found = read(buffer[:end])
        if found is None:
            if not self._read_lines():
                return None
            match = REQUEST_LINE.fullmatch(self._lines[0])
            assert match is not None  # _read_lines has checked it
            method, path, query, _, minor = match.groups()
            fields = [line.decode("latin-1") for line in self._lines[1:]]
            found = _head(method, path, query, minor, fields)
            end = self._line_start
        request, self._wanted = found
        self._consume(end)
        if self._wanted:
            here, self._buffer = self._buffer, b""
            if self._wanted == CHUNKED:
                self._chunks = Chunks()
                self._chunks.feed(here)
                partly = not here
            else:
                self._body = bytearray(here)
                partly = len(here) < self._wanted
            # RFC 9110 §10.1.1: a 1.0 client's expectation is ignored; so is one whose body is here.
            self.continue_wanted = (
                "expect" in request.headers and request.version == (1, 1) and partly
            )
        return request

    def _path(self) -> str | None:
        """Return the path of a complete and valid request line; None if there is none."""
        line = self._lines[0] if self._lines else self._buffer.partition(b"\r\n")[0]
        match = REQUEST_LINE.fullmatch(line) if len(line) <= MAX_REQUEST_LINE - 2 else None
        return None if match is None else match[2].decode("ascii")

    def _finish_body(self, request: Request) -> Request | None:
        """Return the request with its body if that is whole, and leave the rest in the buffer."""
        if self._chunks is not None:
            if not self._chunks.whole():
                return None
            body, self._buffer = bytes(self._chunks.body), bytes(self._chunks.rest)
            self._chunks = None
        else:
            if len(self._body) < self._wanted:
                return None
            body = bytes(self._body[: self._wanted])
            self._buffer = bytes(self._body[self._wanted :])
        self._request = None
        self.continue_wanted = False
        return replace(request, body=body)

    def _read_lines(self) -> bool:
        """Check and keep each complete line; returns True at the empty one.

        Each check depends on the line and those before it only, so that the result is the same
        however the input was cut.
        """
        while True:
            buffer = self._buffer
            start = self._line_start
            limit = MAX_HEAD if self._lines else MAX_REQUEST_LINE
            end = LINE_END.search(buffer, self._scanned, limit)
            if end is None or (end.group() == b"\r" and end.end() == limit):
                self._scanned = min(len(buffer), limit - 1)
                if len(buffer) < limit:
                    return False
                if self._lines:
                    raise BadRequest(431, f"more than {MAX_HEAD} bytes of header")
                raise BadRequest(414, f"a request line of more than {MAX_REQUEST_LINE} bytes")
            self._scanned = end.start()
            if end.group() == b"\r" and end.end() == len(buffer):
                return False
            if end.group() != b"\r\n":
                # RFC 9112 §2.2: a bare CR is invalid; a bare LF may be refused.
                raise BadRequest(400, "a line must end with CR LF, and contain neither elsewhere")
            line = buffer[start : end.start()]
            if not line and not self._lines:
                # RFC 9112 §2.2: ignore one empty line before the request line.
                if self._skipped_empty_line:
                    raise BadRequest(400, "more than one empty line before the request")
                self._consume(end.end())
                self._skipped_empty_line = True
                continue
            self._line_start = self._scanned = end.end()
            if not line:
                return True
            if self._lines:
                check_field_line(line)
            else:
                check_request_line(line)
            self._lines.append(line)
