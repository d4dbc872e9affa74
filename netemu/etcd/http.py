"""One HTTP/1.1 connection to a server of etcd: JSON is posted, and JSON comes back.

It reads what etcd's gateway sends: a body of a known length, or in chunks. Anything else is an
error of the connection (OSError), and ends it.
"""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final, NamedTuple, Self, TypeAlias

from netemu.errors import BadInput

LONGEST_BODY: Final = 64 << 20
"""A snapshot of 100,000 guests' placements is some 40 MiB."""
LONGEST_LINE: Final = 8 << 20
"""etcd takes requests of 1.5 MiB, and a watch tells some of them at once, in base64."""


class Endpoint(NamedTuple):
    """Where a server takes clients."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def context(ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext | None:
    """What TLS needs, out of files; None: there is to be none. Raises BadInput for other files."""
    if ca is None:
        return None
    try:
        made = ssl.create_default_context(cafile=ca)
        if cert is not None:
            made.load_cert_chain(cert, key)
    except OSError as error:  # SSLError is one
        files = ", ".join(filter(None, (ca, cert, key)))
        raise BadInput(f"{files}: no files for TLS: {error.strerror or error}") from None
    return made


Dial: TypeAlias = Callable[[Endpoint], Awaitable[socket.socket]]
"""Returns a socket that is connected to a server. Raises OSError."""


async def dial(endpoint: Endpoint) -> socket.socket:
    """Connect from here."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    family, kind, _, _, address = found[0]
    made = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        await loop.sock_connect(made, address)
    except BaseException:
        made.close()
        raise
    return made


class Answered(NamedTuple):
    """A status, and the JSON of the body."""

    status: int
    body: Any


class Connection:
    """Carries one request at a time. Every method raises OSError, and the connection is over."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, endpoint: Endpoint, tls: ssl.SSLContext | None, dial: Dial) -> Self:
        """Connect; with `tls` both sides show their certificates."""
        made = await dial(endpoint)
        name = None if tls is None else endpoint.host
        return cls(
            *await asyncio.open_connection(
                sock=made, ssl=tls, server_hostname=name, limit=LONGEST_LINE
            )
        )

    def close(self) -> None:
        """Close it at once: TLS's own end would wait for a server that may be stopped."""
        self._writer.transport.abort()

    async def ask(self, path: str, message: Any) -> Answered:
        """Post a message. Returns the whole answer."""
        try:
            status, length = await self._begin(path, message)
            body = b"".join([part async for part in self._body(length)])
            return Answered(status, json.loads(body) if body else {})
        except (EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise ConnectionAbortedError(f"not understood: {error}") from None

    async def listen(self, path: str, message: Any) -> AsyncGenerator[Answered, None]:
        """Post a message. Yields each line of the answer as it comes, until it ends."""
        try:
            status, length = await self._begin(path, message)
            pending = b""
            async for part in self._body(length, endless=True):
                *lines, pending = (pending + part).split(b"\n")
                if len(pending) > LONGEST_LINE:
                    raise ValueError(f"a line of more than {LONGEST_LINE} bytes")
                for line in lines:
                    yield Answered(status, json.loads(line))
            if pending:
                yield Answered(status, json.loads(pending))
        except (EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise ConnectionAbortedError(f"not understood: {error}") from None

    async def _begin(self, path: str, message: Any) -> tuple[int, int | None]:
        """Send a request and read the answer's head: its status, and its body's length if known."""
        body = json.dumps(message).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: etcd\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        await self._writer.drain()
        told = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = {}
        for line in told[1:-2]:
            name, _, value = line.partition(":")
            fields[name.strip().lower()] = value.strip().lower()
        _, code, *_ = told[0].split(" ")
        status = int(code)
        if fields.get("transfer-encoding") == "chunked":
            return status, None
        return status, int(fields.get("content-length", 0))

    async def _body(
        self, length: int | None, *, endless: bool = False
    ) -> AsyncGenerator[bytes, None]:
        if length is not None:
            if not 0 <= length <= LONGEST_BODY:
                raise ValueError(f"a body of {length} bytes")
            yield await self._reader.readexactly(length)
            return
        taken = 0
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            taken = size if endless else taken + size
            if not 0 < taken <= LONGEST_BODY:
                raise ValueError(f"a body of {taken} bytes")
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readuntil(b"\r\n")
