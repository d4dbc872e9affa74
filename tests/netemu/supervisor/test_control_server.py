"""The lab's control socket: whatever a client does, others are answered, and nothing is left."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from hostagent.channel.frames import pack
from netemu.errors import BadInput, NetemuError, NotSo
from netemu.supervisor.control import control_server
from netemu.supervisor.control.control_server import ControlServer, Handler
from netemu.wire import runtime_dir
from netemu.wire.control import NoAnswer, answers, ask, listen, reader
from netemu.wire.questions import Question

T = TypeVar("T")
Story = Callable[[Path], Awaitable[None]]


class Echo(Question[list[str]], tag="echo"):
    guest: str
    times: int = 1


class Set(Question[dict[str, str]], tag="set"):
    guest: str
    properties: dict[str, str]


class Faulty(Question[None], tag="faulty"):
    pass


class Refuses(Question[None], tag="refuses"):
    pass


class Slow(Question[bool], tag="slow"):
    pass


class News(Question[int], tag="news"):
    pass


class Much(Question[str], tag="much"):
    pass


async def _echo(question: Echo) -> list[str]:
    return [question.guest] * question.times


async def _set(question: Set) -> dict[str, str]:
    return question.properties


async def _faulty(_: Faulty) -> None:
    len(3)  # type: ignore[arg-type] # a mistake of ours


async def _refuses(_: Refuses) -> None:
    raise NotSo("no")


async def _slow(_: Slow) -> bool:
    await asyncio.sleep(0.5)
    return True


async def _news() -> AsyncIterator[int]:
    yield 1
    await asyncio.sleep(0.3)
    yield 2
    await asyncio.Event().wait()


async def _much() -> AsyncIterator[str]:
    while True:
        yield "x" * 60_000


HANDLERS = [
    Handler(Echo, _echo),
    Handler(Set, _set),
    Handler(Faulty, _faulty),
    Handler(Refuses, _refuses),
    Handler(Slow, _slow),
]


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Story], None]:
    """Plays a story with a server; it leaves no descriptor and no task."""

    async def whole(story: Story) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(runtime_dir.address(tmp_path, runtime_dir.CONTROL))
        listener.listen(64)
        ControlServer(listener, HANDLERS, {News: _news, Much: _much}).start()
        before = set(os.listdir("/proc/self/fd"))
        await story(tmp_path)
        async with asyncio.timeout(10):
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0.01)
        assert set(os.listdir("/proc/self/fd")) == before
        asyncio.get_running_loop().remove_reader(listener)
        listener.close()

    def run(story: Story) -> None:
        asyncio.run(whole(story))

    return run


async def asked(lab: Path, question: Question[T]) -> T:
    return (await asyncio.to_thread(ask, lab, question))[0]


def asked_by_map(lab: Path, question: dict[str, Any]) -> list[list[str]]:
    """As another version's client might ask."""
    with client(lab, pack(question)) as link:
        link.settimeout(5)
        return list(answers(Echo(""), reader(), link.recv(65536)))


def client(lab: Path, sent: bytes = b"") -> socket.socket:
    link = socket.socket(socket.AF_UNIX)
    link.connect(runtime_dir.address(lab, runtime_dir.CONTROL))
    link.sendall(sent)
    return link


def test_a_verb_is_answered(play: Callable[[Story], None]) -> None:
    async def tell(lab: Path) -> None:
        assert await asked(lab, Echo("web1")) == ["web1"]
        assert len(await asked(lab, Echo("web1", 500))) == 500

    play(tell)


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("nonsense", {}),
        (["echo"], {}),
        (None, {}),
        ("echo", {}),
        ("echo", {"guest": "web1", "more": 3}),
        ("echo", {"guest": 5}),
        ("echo", {"guest": {"a": []}}),
        ("set", {"guest": "web1", "properties": {"a": 5}}),
        ("set", {"guest": "web1", "properties": None}),
        ("faulty", {"guest": "web1"}),
        ("echo", {"self": 1}),
    ],
)
def test_what_a_verb_does_not_take_is_bad_input(
    play: Callable[[Story], None], verb: Any, arguments: dict[str, Any]
) -> None:
    async def tell(lab: Path) -> None:
        with pytest.raises(BadInput):
            await asyncio.to_thread(asked_by_map, lab, {"verb": verb, **arguments})

    play(tell)


def test_a_mistake_of_ours_is_not_bad_input(play: Callable[[Story], None]) -> None:
    async def tell(lab: Path) -> None:
        with pytest.raises(NetemuError, match=r"TypeError.*see the lab's log") as said:
            await asked(lab, Faulty())
        assert said.value.exit_code == 1
        with pytest.raises(NotSo, match=r"^no$"):
            await asked(lab, Refuses())

    play(tell)


def test_a_slow_answer_is_announced(
    play: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_server, "HEARTBEAT", 0.02)
    monkeypatch.setattr("netemu.wire.control.SILENCE", 0.4)

    async def tell(lab: Path) -> None:
        assert await asked(lab, Slow())

    play(tell)


def test_a_stream_is_told_with_heartbeats_between(
    play: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_server, "HEARTBEAT", 0.02)
    monkeypatch.setattr("netemu.wire.control.SILENCE", 0.25)

    async def tell(lab: Path) -> None:
        news = listen(lab, News())
        assert await asyncio.to_thread(next, news) == 1
        assert await asyncio.to_thread(next, news) == 2
        await asyncio.to_thread(news.close)  # type: ignore[attr-defined]

    play(tell)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\0\0",
        b"\0\0\0\x20half",
        b"\xff\xff\xff\xffhuge",
        b"\0\x10\0\0" + b"x" * 65536,
        b"\0\0\0\1\xc1",
        b"\0\0\0\1\xa0",
        pack({"verb": "slow"}),
        pack({"verb": "news"}),
        pack({"verb": "much"}),
        pack({"verb": "echo", "guest": "x", "times": 50_000}),
        pack({"verb": "echo", "guest": "x"}) * 3000,
    ],
)
def test_clients_that_hold_on_or_go_away_hold_nobody_up(
    play: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(control_server, "ASKED_WITHIN", 0.3)
    monkeypatch.setattr(control_server, "TAKEN_WITHIN", 0.3)

    async def tell(lab: Path) -> None:
        held = [client(lab, sent) for _ in range(10)]
        for link in held[:5]:
            link.close()
        assert await asked(lab, Echo("web1")) == ["web1"]
        await asyncio.sleep(0.5)
        assert await asked(lab, Echo("web1")) == ["web1"]
        for link in held:
            link.close()

    play(tell)


def test_more_connections_than_there_may_be_drop_the_oldest_silent_one(
    play: Callable[[Story], None],
) -> None:
    async def tell(lab: Path) -> None:
        held = []
        for _ in range(3 * control_server.MOST):
            held.append(client(lab))
            await asyncio.sleep(0)
        assert await asked(lab, Echo("web1")) == ["web1"]
        tasks = len(asyncio.all_tasks())
        assert tasks <= control_server.MOST + 1
        for link in held:
            link.close()

    play(tell)


def test_more_askers_than_there_may_be_are_turned_away(play: Callable[[Story], None]) -> None:
    async def tell(lab: Path) -> None:
        held = [client(lab, pack({"verb": "news"})) for _ in range(control_server.MOST // 2)]
        await asyncio.sleep(0.1)
        held += [client(lab, pack({"verb": "news"})) for _ in range(control_server.MOST // 2)]
        await asyncio.sleep(0.1)
        with pytest.raises(NoAnswer):
            await asked(lab, Echo("web1"))
        held.pop().close()
        await asyncio.sleep(0.1)
        assert await asked(lab, Echo("web1")) == ["web1"]
        for link in held:
            link.close()

    play(tell)


def test_without_descriptors_the_loop_stays_quiet_and_goes_on_later(
    play: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_server, "_AGAIN", 0.2)
    tries = []
    accept = socket.socket.accept

    def failing(listener: socket.socket) -> tuple[socket.socket, Any]:
        tries.append(1)
        if len(tries) < 3:
            raise OSError(24, "Too many open files")
        return accept(listener)

    async def tell(lab: Path) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "accept", failing)
            assert await asked(lab, Echo("web1")) == ["web1"]
        assert len(tries) == 3

    play(tell)
