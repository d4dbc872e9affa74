"""The client beside servers that misbehave: another is asked, and every error is a typed one."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import pytest

from netemu.etcd import Client, Refused, Unreachable, client
from netemu.etcd.http import Endpoint

Behave = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEADER = {"header": {"revision": "7"}}


def answering(body: Any, status: str = "200 OK", *, chunked: bool = False) -> Behave:
    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        text = (body if isinstance(body, str) else json.dumps(body)).encode()
        head = f"HTTP/1.1 {status}\r\n"
        if chunked:
            parts = b"".join(b"1\r\n%c\r\n" % one for one in text)
            writer.write(
                f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + parts + b"0\r\n\r\n"
            )
        else:
            writer.write(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text)

    return behave


async def closes(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def hangs(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


def saying(data: bytes) -> Behave:
    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.close()

    return behave


@asynccontextmanager
async def served(*behaviours: Behave, within: float = 30.0) -> AsyncIterator[Client]:
    """A client of servers that behave like that, asked in this order."""
    async with AsyncExitStack() as stack:
        endpoints = []
        for behave in behaviours:

            async def serve(
                reader: asyncio.StreamReader,
                writer: asyncio.StreamWriter,
                behave: Behave = behave,
            ) -> None:
                try:
                    while await reader.readuntil(b"\r\n\r\n"):
                        await behave(reader, writer)
                except (OSError, EOFError):
                    pass
                finally:
                    writer.close()

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            stack.callback(server.close)
            endpoints.append(Endpoint(*server.sockets[0].getsockname()))
        one = Client(endpoints, within=within)
        one._turn = 0
        async with one:
            yield one


@pytest.mark.parametrize(
    "behave",
    [
        closes,
        hangs,
        saying(b"SSH-2.0-nonsense\r\n\r\n"),
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"),
        saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n"),
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"),
        answering("no JSON"),
        answering("[]"),
        answering({"kvs": 5}),
        answering({"error": "etcdserver: no leader", "code": 14}, "503 Service Unavailable"),
        answering({"error": "etcdserver: request timed out", "code": 4}, "504 Gateway Timeout"),
        answering("", "502 Bad Gateway"),
    ],
)
def test_another_server_is_asked_when_one_does_not_answer(
    behave: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ATTEMPT", 0.5)

    async def script() -> None:
        async with served(behave, answering(HEADER, chunked=True)) as one:
            assert await one.put("a", b"") == 7
            assert await one.put("a", b"") == 7  # and is asked first from then on

    asyncio.run(script())


def test_that_nobody_answers_is_told_after_a_while() -> None:
    async def script() -> None:
        async with served(closes, closes, within=0.1) as one:
            with pytest.raises(Unreachable, match=r"^the store does not answer: 127.0.0.1:\d+: "):
                await one.get("a")

    asyncio.run(script())


def test_a_refusal_is_final() -> None:
    refusal = {"error": "etcdserver: key is not provided", "code": 3}

    async def script() -> None:
        async with served(answering(refusal, "400 Bad Request"), answering(HEADER)) as one:
            with pytest.raises(
                Refused, match=r"^the store refuses: etcdserver: key is not provided$"
            ):
                await one.get("")

    asyncio.run(script())


def test_a_watch_goes_on_where_it_was_at_the_next_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first server tells one change and hangs, and answers no question then."""
    monkeypatch.setattr(client, "ATTEMPT", 0.1)
    monkeypatch.setattr(client, "BEAT", 0.05)
    since: list[str] = []

    def watching(revision: int, then: Behave) -> Behave:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked = json.loads(await reader.readuntil(b"}}"))
            since.append(asked["create_request"]["start_revision"])
            kv = {"key": "YQ==", "value": "Yg==", "mod_revision": str(revision)}
            line = json.dumps({"result": {**HEADER, "events": [{"kv": kv}]}}) + "\n"
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            writer.write(b"%x\r\n%s\r\n" % (len(line), line.encode()))
            await then(reader, writer)

        return behave

    async def script() -> None:
        async with (
            served(watching(5, hangs), watching(6, hangs)) as one,
            aclosing(one.watch("a", 3)) as changes,
        ):
            found = [await anext(changes), await anext(changes)]
        assert [[one.revision for one in part] for part in found] == [[5], [6]]
        assert found[0][0].entry is not None
        assert found[0][0].entry.value == b"b"
        assert since[0] == "3"
        assert since[-1] == "6"

    asyncio.run(script())
