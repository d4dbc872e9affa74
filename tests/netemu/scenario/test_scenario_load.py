"""The load of the masked reboot: what it calls well, and what a failure."""

import asyncio
import json
import os
import re
import signal

import pytest

from netemu.scenario.masked_reboot import load

WELL = b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nweb1"


def ask(
    answer: bytes | None, capsys: pytest.CaptureFixture[str], patience: float = 20.0
) -> dict[str, object]:
    """What is told of a request to a server that answers so; None: not at all."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        peers.append(writer.get_extra_info("peername")[0])
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def play() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            await load.ask(f"http://127.0.0.1:{port}/", "127.0.0.2", patience)

    peers: list[str] = []
    asyncio.run(play())
    assert peers == ["127.0.0.2"]
    assert heard[0].startswith(b"GET / HTTP/1.0\r\n")
    told: dict[str, object] = json.loads(capsys.readouterr().out)
    assert told["client"] == "127.0.0.2"
    return told


def test_a_whole_answer_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    told = ask(WELL, capsys)
    assert (told["ok"], told["server"], told["why"]) == (True, "web1", None)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (WELL[:-1], "cut short"),
        (WELL[:-4], "cut short"),
        (b"", "no answer"),
        (b"SSH-2.0", "no answer"),
        (b"HTTP/1.0 503 Service Unavailable\r\n\r\nnone", "status 503"),
    ],
)
def test_all_else_is_a_failure(answer: bytes, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = ask(answer, capsys)
    assert (told["ok"], told["server"], told["why"]) == (False, None, why)


def test_patience_ends(capsys: pytest.CaptureFixture[str]) -> None:
    told = ask(None, capsys, patience=0.05)
    assert (told["ok"], told["why"]) == (False, "timeout")
    assert isinstance(told["took"], float)
    assert told["took"] >= 0.05


def test_nobody_there_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(load.ask("http://127.0.0.1:9/", "127.0.0.2", 20.0))
    told = json.loads(capsys.readouterr().out)
    assert re.fullmatch("Connection refused", told["why"])


def test_the_rate_is_constant_and_no_client_asks_twice_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asking: set[str] = set()
    asked: list[str] = []

    async def ask(url: str, source: str, patience: float) -> None:
        assert source not in asking
        asking.add(source)
        asked.append(source)
        if len(asked) == 60:
            os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.2 if source == "slow" else 0)
        asking.discard(source)

    monkeypatch.setattr(load, "addresses", lambda: ["a", "slow", "b"])
    monkeypatch.setattr(load, "ask", ask)
    asyncio.run(asyncio.wait_for(load.main("http://lb/", 200.0), 10))
    assert not asking  # what was under way is waited for
    assert 60 <= len(asked) < 65  # what was due already
    assert asked[:3] == ["a", "slow", "b"]
    assert 1 <= asked.count("slow") < 15
    assert abs(asked.count("a") - asked.count("b")) <= 2
