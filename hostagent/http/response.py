"""Responses into bytes."""

from math import inf
from typing import Final

from msgspec import Struct

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
    """Return the response's bytes. `date` is an IMF-fixdate; `version` the request's own;
    `head_only` for HEAD: the length of the body, but not the body (RFC 9110 §9.3.2).
    """
    before, after = render_around_date(
        response, keep_alive=keep_alive, version=version, head_only=head_only
    )
    return before + date + after


def render_around_date(
    response: Response, *, keep_alive: bool, version: tuple[int, int], head_only: bool
) -> tuple[bytes, bytes]:
    """Return what stands before and after the date, for a response that is sent again and again."""
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
