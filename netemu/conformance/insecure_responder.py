"""An insecure responder: the conformance suite plays its rows against it, to see them fail.

It makes the mistakes that metadata services have made: it believes headers about who asks, serves
any Host and absolute targets, reads lengths two ways, decodes and joins paths, keeps what guests
write, shows statistics, and waits for a request without an end. It runs instead of `hostagent
responder` in labs of a proof, takes the same sockets and follows the same feed; of the arguments
it reads `--agent`.
"""

import asyncio
import json
import os
import posixpath
import socket
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hostagent.notify import Notifier
from hostagent.responder.approvals import Approvals
from hostagent.responder.feed import follow
from hostagent.responder.knowledge import Knowledge
from hostagent.sockets import handed_over

# Seconds between signs of life where nobody has said how often.
_BEAT = 1.0


class InsecureResponder:
    """Answers anything."""

    def __init__(self, knowledge: Knowledge) -> None:
        self._knowledge = knowledge
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
        view = self._knowledge.by_port(mark)
        who = who or (view.guest.name if view else "nobody")
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
    notifier = Notifier.connect(os.environ)
    knowledge, heard = Knowledge(), asyncio.Event()
    feed = Path(sys.argv[sys.argv.index("--agent") + 1])
    serve = InsecureResponder(knowledge).serve
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(follow(feed, knowledge, heard, Approvals()))
        await heard.wait()
        for listener in handed_over(os.environ)["http"]:
            await asyncio.start_server(serve, sock=listener, backlog=2048)
        notifier.ready("insecure responder")
        while True:
            await asyncio.sleep(notifier.interval or _BEAT)
            notifier.alive()


if __name__ == "__main__":
    asyncio.run(main())
