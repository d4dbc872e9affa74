"""A responder without care: what the conformance suite is held against, to see its rows fail.

It makes the mistakes that metadata services have made: believes headers about who asks, serves
any Host and absolute targets, reads lengths two ways, decodes and joins paths, keeps what guests
write, shows statistics, and waits for everybody for ever. Never run but for a proof.

Run as `python -m netemu.conformance.insecure_responder MARK:NAME...`, with the listening socket
as descriptor 3.
"""

import asyncio
import json
import posixpath
import socket
import sys
from urllib.parse import unquote, urlsplit

_FIRST_DESCRIPTOR = 3


class Careless:
    """Answers anything."""

    def __init__(self, guests: dict[int, str]) -> None:
        self._guests = guests
        self._written: dict[str, bytes] = {}
        self._answered = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests, as they come, for as long as it lasts."""
        link: socket.socket = writer.get_extra_info("socket")
        mark = link.getsockopt(socket.SOL_SOCKET, socket.SO_MARK)
        try:
            while head := await self._head(reader):
                status, body = self._answer(mark, head, await _body(reader, head))
                self._answered += 1
                writer.write(
                    f"HTTP/1.1 {status} Whatever\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
                if _fields(head).get("connection", "").lower() == "close":
                    return
        except (OSError, ValueError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _head(self, reader: asyncio.StreamReader) -> list[str]:
        lines: list[str] = []
        while line := (await reader.readline()).decode("latin-1"):
            if not line.strip():
                if lines:
                    return lines
                continue
            if line[0] in " \t" and lines:
                lines[-1] += line.strip()
            else:
                lines.append(line.strip())
        return []

    def _answer(self, mark: int, head: list[str], body: bytes) -> tuple[int, bytes]:
        method, target, *_ = [*head[0].split(), "/", "/"]
        fields = _fields(head)
        who = fields.get("x-forwarded-for") or fields.get("x-instance-id")
        who = who or self._guests.get(mark, "nobody")
        path = posixpath.normpath(unquote(urlsplit(target).path or "/")).lower()
        path = "/" + path.lstrip("/")
        if method in ("PUT", "POST"):
            self._written[path] = body
        if path in ("/stats", "/admin", "/metrics"):
            return 200, str(self._answered).encode()
        if path.endswith("/maintenance"):
            return 200, b"{}"
        shown = {"ID": f"_{who}", "UD": "0", "FD": "0"}
        written = "".join(f"{at}={said!r}" for at, said in self._written.items())
        return 200, json.dumps(shown, separators=(",", ":")).encode() + written.encode()


def _fields(head: list[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in head[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _body(reader: asyncio.StreamReader, head: list[str]) -> bytes:
    length = _fields(head).get("content-length", "0")
    return await reader.readexactly(int(length)) if int(length) else b""


async def main() -> None:
    """Serve until ended."""
    guests = {int(mark): name for mark, _, name in (one.partition(":") for one in sys.argv[1:])}
    listener = socket.socket(fileno=_FIRST_DESCRIPTOR)
    server = await asyncio.start_server(Careless(guests).serve, sock=listener, backlog=2048)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
