"""The request, and the error for a bad one. Pure."""

from collections.abc import Mapping

from msgspec import Struct


class BadRequest(Exception):
    """The request is invalid or not supported; close the connection after the answer.

    `path` is that of its request line, if that was valid.
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
