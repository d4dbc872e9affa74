"""Renders responses as bytes. Pure."""

from http import HTTPStatus
from math import inf
from typing import Final

from msgspec import Struct

REASONS: Final = {
    **dict.fromkeys(range(100, 600), "Unassigned"),
    **{int(status): status.phrase for status in HTTPStatus},
    # Some versions of Python have the names of older RFCs.
    413: "Content Too Large",
    414: "URI Too Long",
}


class Response(Struct, frozen=True):
    """One response; Date, Content-Length and Connection are added by `render`.

    It answers the same request until `valid_until` (on its maker's clock), if nothing else changes;
    by default it must be made again each time. `hop_limit` is the IP TTL to send it with; None: the
    system's default. `close`: the connection ends after it, whatever the client asks for.
    """

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    server: str = "hostagent"
    valid_until: float = -inf
    hop_limit: int | None = None
    close: bool = False


def render(
    response: Response,
    *,
    date: bytes,
    keep_alive: bool,
    version: tuple[int, int] = (1, 1),
    head_only: bool = False,
) -> bytes:
    """Return the response's bytes. `date` is an IMF-fixdate; `version` is the request's;
    `head_only` is for HEAD: the body's length without the body (RFC 9110 §9.3.2).
    """
    before, after = render_around_date(
        response, keep_alive=keep_alive, version=version, head_only=head_only
    )
    return before + date + after


def render_around_date(
    response: Response, *, keep_alive: bool, version: tuple[int, int], head_only: bool
) -> tuple[bytes, bytes]:
    """Return the bytes before and after the date, for a response that is sent repeatedly."""
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
