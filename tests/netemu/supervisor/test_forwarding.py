"""Questions about what is on another machine: carried out there, once, and answered here."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from hostagent.channel.frames import FrameError
from netemu.errors import BadInput, NotSo
from netemu.supervisor.control import forwarding, membership
from netemu.supervisor.control.control_server import Elsewhere
from netemu.supervisor.control.forwarding import Forwarding
from netemu.supervisor.control.membership import Membership, Part
from netemu.supervisor.control.other_machines import OtherMachines
from netemu.supervisor.control.places import Places
from netemu.topology import parse
from netemu.wire.control import Told
from netemu.wire.progress import Failed
from netemu.wire.questions import Seen
from netemu.wire.status import MachineSeen
from tests.netemu.supervisor.fake_etcd import FakeEtcd

LAB = parse("nodes: {n1: {guests: [a]}, n2: {machine: b, guests: [c]}}", source="lab.yaml")
THERE = Elsewhere("b", "c: is on machine b, node n2: that can only be done there")


class Machine:
    """One of two, which notes what it is asked."""

    def __init__(self, etcd: FakeEtcd, name: str, activity: str | None) -> None:
        client: Any = etcd
        part = Part("lab", name, ("n1",), ("n2",), activity, b"")
        self.membership = Membership(client, part)
        self.places = Places(LAB, client, self.membership)
        self.asked: list[bytes] = []
        self.reply = b""
        self.forwarding = Forwarding(client, self.membership, self.places, name, self._answer)

    async def _answer(self, question: bytes) -> bytes:
        self.asked.append(question)
        if self.reply:
            return self.reply
        if question == b"odd":
            raise FrameError("not a message: odd")
        return b"done: " + question

    async def begin(self) -> None:
        await self.membership.begin()
        following = (self.places.run(print), self.forwarding.run(print))
        self.tasks = [asyncio.create_task(one) for one in following]


Script = Callable[[FakeEtcd, Machine, Machine], Coroutine[Any, Any, None]]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], None]:
    monkeypatch.setattr(forwarding, "ALIVE", 0.01)
    monkeypatch.setattr(forwarding, "_LOOK", 0.01)
    monkeypatch.setattr(forwarding, "_PAUSE", 0.001)
    monkeypatch.setattr(membership, "ALIVE", 0.05)

    def run(script: Script) -> None:
        async def staged() -> None:
            etcd = FakeEtcd()
            first = Machine(etcd, "a", None)
            await first.begin()
            (activity,) = (one.value for key, one in etcd.keys.items() if key.endswith("activity"))
            other = Machine(etcd, "b", activity.decode())
            await other.begin()
            async with asyncio.timeout(5):
                while "b" not in first.places.machines:
                    await asyncio.sleep(0.001)
                await script(etcd, first, other)
            for task in (*first.tasks, *other.tasks):
                task.cancel()

        asyncio.run(staged())

    return run


def test_a_question_is_carried_out_once_where_it_belongs(play: Callable[[Script], None]) -> None:
    """And nothing of it is left in the store."""

    async def script(etcd: FakeEtcd, first: Machine, other: Machine) -> None:
        assert await first.forwarding.ask(THERE, b"set") == b"done: set"
        assert (first.asked, other.asked) == ([], [b"set"])
        await asyncio.sleep(0.01)
        assert not [key for key in etcd.keys if "/questions/" in key or "/replies/" in key]

    play(script)


def test_what_is_no_question_is_refused(play: Callable[[Script], None]) -> None:
    async def script(_: FakeEtcd, first: Machine, __: Machine) -> None:
        told = msgspec.msgpack.decode(await first.forwarding.ask(THERE, b"odd"), type=Failed)
        assert told.reason == "not a message: odd"

    play(script)


def test_a_machine_that_is_away_is_not_asked(play: Callable[[Script], None]) -> None:
    async def script(etcd: FakeEtcd, first: Machine, other: Machine) -> None:
        with pytest.raises(NotSo, match=r"^c: is on machine x, which is away$"):
            await first.forwarding.ask(Elsewhere("x", "c: is on machine x: that is there"), b"set")
        other.membership.settled.clear()  # it does nothing for now
        asking = asyncio.create_task(first.forwarding.ask(THERE, b"set"))
        await asyncio.sleep(0.02)
        etcd.end(other.membership.lease)
        with pytest.raises(NotSo, match="which was lost; it may have done it"):
            await asking
        assert other.asked == []

    play(script)


def test_a_question_of_an_earlier_term_is_not_carried_out(play: Callable[[Script], None]) -> None:
    """The guest that it is about may be elsewhere by now."""

    async def script(_: FakeEtcd, first: Machine, other: Machine) -> None:
        other.membership.settled.clear()
        asking = asyncio.create_task(first.forwarding.ask(THERE, b"set"))
        await asyncio.sleep(0.02)
        other.membership.term = 1_000_000
        other.membership.settled.set()
        await asyncio.sleep(0.02)
        assert other.asked == []
        asking.cancel()

    play(script)


def test_several_machines_are_asked_at_once(play: Callable[[Script], None]) -> None:
    """An error says whose it is; those that are late are left out where that is asked for."""

    async def script(_: FakeEtcd, first: Machine, other: Machine) -> None:
        others = OtherMachines(first.places, "a", first.forwarding.ask)
        assert (others.there(), others.away()) == (["b"], [])
        question = {"b": Seen(here=True)}
        seen = MachineSeen("b", 1.0, [], {})
        other.reply = msgspec.msgpack.encode(Told(msgspec.Raw(msgspec.msgpack.encode([seen]))))
        assert await others.ask(question) == await others.ask_soon(question, 5.0) == [[seen]]
        assert msgspec.msgpack.decode(other.asked[0]) == {"verb": "seen", "here": True}
        other.reply = msgspec.msgpack.encode(Failed("c: is not", BadInput.exit_code))
        with pytest.raises(BadInput, match="machine b: c: is not"):
            await others.ask(question)
        assert await others.ask_soon(question, 5.0) == []
        other.membership.settled.clear()
        assert await others.ask_soon(question, 0.01) == []
        with pytest.raises(NotSo, match="on machine x, which is away"):
            await others.ask({"x": Seen(here=True)})

    play(script)
