"""HTTP/1.1 requests out of bytes, and responses into them. Without I/O, and strict.

A metadata service has one kind of client, a program in a guest, and the guest may be hostile: what
is ambiguous is refused rather than guessed. Beyond the RFCs' own MUSTs this reader refuses
Transfer-Encoding altogether (501: no metadata API takes a body of unknown length), obsolete line
folding, bare LF, absolute-form (there is no proxy here; RFC 9112 §3.2.2 would have a server accept
it) and characters in the target that RFC 3986 does not allow.

What a RequestReader gives does not depend on how its input was cut into pieces.
"""

import re
from collections.abc import Mapping
from math import inf
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

MAX_REQUEST_LINE: Final = 4096
"""Bytes of the request line with its CRLF. The longest path of any metadata API has some 200."""

MAX_HEAD: Final = 8192
"""Bytes of request line and fields with the empty line. What nginx and Apache allow by default."""

MAX_FIELDS: Final = 64
"""Header fields of one request. Browsers send 20, SDKs 10."""

MAX_BODY: Final = 65536
"""Bytes of a body. The largest that an API takes, an approval of many events, is a tenth of it."""

_MEMO_HEAD: Final = 512
_MEMO_COUNT: Final = 256
"""Clients ask the same thing again and again, to the byte. Heads up to this long, and so many of
them, are remembered with what they mean; the memory is emptied when it is full."""

REASONS: Final = {
    100: "Continue",
    200: "OK",
    301: "Moved Permanently",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    410: "Gone",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    421: "Misdirected Request",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class BadRequest(Exception):
    """The request cannot be answered as what it wants to be; the connection must be closed.

    `path` is what it asks for, if its first line says so.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.path: str | None = None


class Request(Struct, frozen=True):
    """One request. `headers` has names in lower case; several fields of one name are joined by
    ", " (RFC 9110 §5.3). `path` and `query` are as they were sent: nothing is decoded.
    """

    method: str
    path: str
    query: str | None
    version: tuple[int, int]
    headers: Mapping[str, str]
    keep_alive: bool
    body: bytes = b""


# Every alternative below begins with a character of its own, so a failed match costs no more than
# its length. (Possessive quantifiers would say so, but Python 3.11's, up to 3.11.7 at least, go on
# behind what a failed branch has consumed: `(?:a|%(?!0)[0-9]{2})*+` matches `%`.)
#
# RFC 9110 §5.6.2 token; RFC 3986 §3.3 pchar, with % followed by two digits that are no control
# character: the octets that would end a line or a string in whoever decodes the path.
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_PERCENT: Final = rb"%(?!0|1|7[Ff])[0-9A-Fa-f]{2}"
_PCHAR: Final = rb"[A-Za-z0-9\-._~!$&'()*+,;=:@]|" + _PERCENT
_TARGET: Final = rb"(/(?:" + _PCHAR + rb"|/)*)(?:\?((?:" + _PCHAR + rb"|[/?])*))?"
_METHOD: Final = rb"(" + _TOKEN + rb"{1,32})"
# RFC 9112 §5: no space before the colon; RFC 9110 §5.5: VCHAR, SP, HTAB, obs-text.
_FIELD: Final = _TOKEN + rb"+:[\t\x20-\x7e\x80-\xff]*"

_whole_head = re.compile(
    rb"(?!CONNECT )"
    + _METHOD
    + rb" "
    + _TARGET
    + rb" HTTP/1\.([01])\r\n((?:"
    + _FIELD
    + rb"\r\n)*)\r\n"
)
_request_line = re.compile(_METHOD + rb" " + _TARGET + rb" HTTP/([0-9])\.([0-9])")
_any_request_line = re.compile(_METHOD + rb" (\S+) (\S+)")
_version = re.compile(rb"HTTP/[0-9]\.[0-9]")
_field = re.compile(_FIELD)
_line_end = re.compile(rb"\r\n|[\r\n]")
# RFC 9110 §7.2: uri-host [":" port]; a reg-name without percent-encoding, or an IP literal.
_host = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
_digits = re.compile(r"[0-9]{1,16}")

_memo: dict[bytes, Request] = {}


class RequestReader:
    """Feed it what arrives; take out requests. After a BadRequest it is of no more use."""

    def __init__(self) -> None:
        self._buffer = b""
        self._lines: list[bytes] = []  # of an incomplete head: those that are complete
        self._line_start = 0  # of the first that is not
        self._scanned = 0  # there is no line end between these two
        self._skipped_empty_line = False
        self._request: Request | None = None  # the head whose body is still to come
        self._wanted = 0  # bytes of that body
        self._body = bytearray()
        self.continue_wanted = False
        """Whether the client waits for CONTINUE before it sends the body. Clear it once sent."""

    @property
    def idle(self) -> bool:
        """Whether no part of a further request has been received."""
        return not self._buffer and self._request is None

    @property
    def fresh(self) -> bool:
        """Whether it is as if nothing had been fed: what comes means what it means to any other."""
        return not self._buffer and self._request is None and not self._skipped_empty_line

    def feed(self, data: bytes) -> None:
        """Take in what was received. It may be any amount: bounding it is the caller's task."""
        if self._request is not None:
            self._body += data
        else:
            self._buffer = self._buffer + data if self._buffer else data

    def next(self) -> Request | None:
        """Give the next request, or None until more is fed; raises BadRequest."""
        if self._request is None:
            buffer = self._buffer
            # A head ends with its first empty line, so what follows it (the next request of a
            # pipeline) has no part in what it means.
            end = buffer.find(b"\r\n\r\n", 0, _MEMO_HEAD) + 4
            if end > 3:
                head = buffer if end == len(buffer) else buffer[:end]
                if (known := _memo.get(head)) is not None:
                    self._consume(end)
                    return known
            try:
                request = self._read_head() if buffer else None
            except BadRequest as error:
                error.path = self._path()
                raise
            if request is None or self._wanted == 0:
                return request
            self._request = request
        return self._finish_body()

    def _consume(self, length: int) -> None:
        """The first `length` bytes of the buffer are dealt with."""
        self._buffer = self._buffer[length:]
        self._lines = []
        self._line_start = self._scanned = 0
        self._skipped_empty_line = False

    def _read_head(self) -> Request | None:
        """Read one head off the buffer, if it is whole, and make ready for its body."""
        buffer = self._buffer
        # First the common case in one stroke. Whatever it does not match, for being wrong, too long
        # or incomplete, is looked at line by line.
        match = _whole_head.match(buffer) if self._scanned == 0 else None
        if match is not None and match.end() <= MAX_HEAD and match.start(5) <= MAX_REQUEST_LINE:
            method, path, query, minor, block = match.groups()
            fields = block.decode("latin-1").split("\r\n")[:-1]
            end = match.end()
        else:
            if not self._read_lines():
                return None
            match = _request_line.fullmatch(self._lines[0])
            assert match is not None  # _read_lines has checked it
            method, path, query, _, minor = match.groups()
            fields = [line.decode("latin-1") for line in self._lines[1:]]
            end = self._line_start
        if len(fields) > MAX_FIELDS:
            raise BadRequest(431, f"more than {MAX_FIELDS} header fields")
        version = (1, int(minor))
        headers = _combine(fields)
        self._wanted = _check_headers(headers, version)
        connection = headers.get("connection", "").lower()
        options = [option.strip() for option in connection.split(",")] if connection else ()
        request = Request(
            method=method.decode("ascii"),
            path=path.decode("ascii"),
            query=None if query is None else query.decode("ascii"),
            version=version,
            headers=headers,
            # RFC 9112 §9.3: 1.1 persists unless told otherwise, 1.0 only if asked to.
            keep_alive="close" not in options and (version == (1, 1) or "keep-alive" in options),
        )
        self._consume(end)
        if self._wanted:
            self._body = bytearray(self._buffer)
            self._buffer = b""
            # RFC 9110 §10.1.1: a 1.0 client's expectation is ignored; so is one whose body is here.
            self.continue_wanted = (
                "expect" in headers and version == (1, 1) and len(self._body) < self._wanted
            )
        elif end <= _MEMO_HEAD:
            if len(_memo) >= _MEMO_COUNT:
                _memo.clear()
            _memo[buffer[:end]] = request
        return request

    def _path(self) -> str | None:
        """Give the path of a request line that is whole and right, whatever follows it."""
        line = self._lines[0] if self._lines else self._buffer.partition(b"\r\n")[0]
        match = _request_line.fullmatch(line) if len(line) <= MAX_REQUEST_LINE - 2 else None
        return None if match is None else match[2].decode("ascii")

    def _finish_body(self) -> Request | None:
        request = self._request
        assert request is not None
        if len(self._body) < self._wanted:
            return None
        self._request = None
        self._buffer = bytes(self._body[self._wanted :])
        self.continue_wanted = False
        return replace(request, body=bytes(self._body[: self._wanted]))

    def _read_lines(self) -> bool:
        """Check each line as it is complete, and keep it; give True at the empty one.

        Every check looks at one line and at what stands before it, never at what follows: so the
        verdict is the same however the input was cut.
        """
        while True:
            buffer = self._buffer
            start = self._line_start
            limit = MAX_HEAD if self._lines else MAX_REQUEST_LINE
            end = _line_end.search(buffer, self._scanned, limit)
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
                # RFC 9112 §2.2: a bare CR is invalid; a bare LF we MAY refuse.
                raise BadRequest(400, "a line must end with CR LF, which stand nowhere else")
            line = buffer[start : end.start()]
            if not line and not self._lines:
                # RFC 9112 §2.2: one empty line before the request line is to be ignored.
                if self._skipped_empty_line:
                    raise BadRequest(400, "empty lines instead of a request")
                self._consume(end.end())
                self._skipped_empty_line = True
                continue
            self._line_start = self._scanned = end.end()
            if not line:
                return True
            if self._lines:
                _check_field_line(line)
            else:
                _check_request_line(line)
            self._lines.append(line)


def _check_request_line(line: bytes) -> None:
    match = _request_line.fullmatch(line)
    if match is None:
        loose = _any_request_line.fullmatch(line)
        if loose is None:
            raise BadRequest(400, "no request line: METHOD SP TARGET SP VERSION")
        if _version.fullmatch(loose[3]) is None:
            raise BadRequest(400, "the version must look like HTTP/1.1")
        if loose[3] not in (b"HTTP/1.0", b"HTTP/1.1"):
            raise BadRequest(505, "this server speaks HTTP/1.0 and HTTP/1.1")
        if not loose[2].startswith(b"/"):
            # RFC 9112 §3.2: absolute-, authority- and asterisk-form.
            raise BadRequest(400, "the target must be a path that begins with /")
        raise BadRequest(400, "the target has characters that RFC 3986 does not allow")
    if match[1] == b"CONNECT":
        raise BadRequest(400, "CONNECT needs a proxy")
    if match[4] != b"1" or match[5] not in b"01":
        raise BadRequest(505, "this server speaks HTTP/1.0 and HTTP/1.1")


def _check_field_line(line: bytes) -> None:
    if _field.fullmatch(line) is not None:
        return
    if line[:1] in b" \t":
        raise BadRequest(400, "folded header lines are obsolete")  # RFC 9112 §5.2
    name = line.partition(b":")[0]
    if name.rstrip(b" \t") != name:
        raise BadRequest(400, "no space may stand before a header's colon")  # RFC 9112 §5.1
    raise BadRequest(400, "a malformed header line")


def _combine(fields: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for field in fields:
        name, _, value = field.partition(":")
        name = name.lower()
        value = value.strip(" \t")
        if name in headers:
            if name in ("host", "content-length"):
                # RFC 9112 §3.2 and §6.3: two of these are two different requests.
                raise BadRequest(400, f"more than one {name} header")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    return headers


def _check_headers(headers: Mapping[str, str], version: tuple[int, int]) -> int:
    """Check what concerns the message as a whole; give the length of the body to come."""
    host = headers.get("host")
    if host is None:
        if version == (1, 1):
            raise BadRequest(400, "a Host header is required")  # RFC 9112 §3.2
    elif _host.fullmatch(host) is None:
        raise BadRequest(400, "the Host header is no host")
    length = headers.get("content-length")
    if "transfer-encoding" in headers:
        if length is not None:
            # RFC 9112 §6.1: the way requests are smuggled.
            raise BadRequest(400, "Content-Length and Transfer-Encoding exclude each other")
        raise BadRequest(501, "no Transfer-Encoding is supported; send Content-Length")
    expect = headers.get("expect")
    if expect is not None and expect.lower() != "100-continue":
        raise BadRequest(417, "only 100-continue can be expected")  # RFC 9110 §10.1.1
    if length is None:
        return 0
    if _digits.fullmatch(length) is None:
        raise BadRequest(400, "Content-Length must be one decimal number")  # RFC 9110 §8.6
    if int(length) > MAX_BODY:
        raise BadRequest(413, f"a body of more than {MAX_BODY} bytes")
    return int(length)


class Response(Struct, frozen=True):
    """One response; Date, Content-Length and Connection are added by `render`.

    As long as nothing else changes it stays the answer to the same request until `valid_until`,
    on whatever clock its maker was given; by default it must be made anew each time. `hop_limit` is
    the IP TTL with which it must leave; None is the system's own.
    """

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    server: str = "hostagent"
    valid_until: float = -inf
    hop_limit: int | None = None


def render(
    response: Response,
    *,
    date: bytes,
    keep_alive: bool,
    version: tuple[int, int] = (1, 1),
    head_only: bool = False,
) -> bytes:
    """Give the response's bytes. `date` is an IMF-fixdate; `version` the request's own;
    `head_only` for HEAD: the length of the body, but not the body (RFC 9110 §9.3.2).
    """
    before, after = render_around_date(
        response, keep_alive=keep_alive, version=version, head_only=head_only
    )
    return before + date + after


def render_around_date(
    response: Response, *, keep_alive: bool, version: tuple[int, int], head_only: bool
) -> tuple[bytes, bytes]:
    """Give what stands before and after the date, for a response that is sent again and again."""
    body = response.body
    extra = "".join([f"\r\n{name}: {value}" for name, value in response.headers])
    if not keep_alive:
        extra += "\r\nConnection: close"
    elif version == (1, 0):
        extra += "\r\nConnection: keep-alive"  # RFC 9112 §9.3: or a 1.0 client closes
    fields = (
        f"\r\nContent-Type: {response.content_type}\r\nContent-Length: {len(body)}{extra}\r\n\r\n"
    )
    status = response.status
    start = f"HTTP/1.1 {status} {REASONS[status]}\r\nServer: {response.server}\r\nDate: "
    after = fields.encode("latin-1")
    return start.encode("latin-1"), after if head_only else after + body
