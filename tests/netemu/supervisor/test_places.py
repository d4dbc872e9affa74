"""On which machine guests of a lab are, as the store has it, and who may write that."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from netemu.errors import NotSo
from netemu.supervisor.control.membership import Membership, Part
from netemu.supervisor.control.places import Machine, Place, Places
from netemu.topology import parse
from tests.netemu.supervisor.fake_etcd import FakeEtcd

LAB = parse("nodes: {n1: {guests: [a]}, n2: {machine: b, guests: [c, d]}}", source="lab.yaml")


class Stage:
    """Machine `b` as it is lost, and machine `a`, which heals."""

    def __init__(self) -> None:
        self.etcd = FakeEtcd()
        self.a, self.b = self._member("a", "n1", None), None
        self.places = Places(LAB, self._client, self.a)

    @property
    def _client(self) -> Any:
        return self.etcd

    def _member(self, name: str, node: str, activity: str | None) -> Membership:
        return Membership(self._client, Part("lab", name, (node,), (), activity, b""))

    async def begin(self) -> None:
        await self.a.begin()
        self.b = self._member("b", "n2", self.a.key("").split("/")[3])
        await self.b.begin()
        self.following = asyncio.create_task(self.places.run(print))
        await self.until(lambda: "b" in self.places.machines and "b" in self.places.terms)

    async def until(self, what: Any) -> None:
        async with asyncio.timeout(5):
            while not what():
                await asyncio.sleep(0.001)

    async def lose(self) -> Machine:
        assert self.b is not None
        self.etcd.end(self.b.lease)
        await self.until(lambda: "b" in self.places.lost())
        return self.places.lost()["b"]

    async def claim(self, term: Machine, *guests: str) -> list[str]:
        healer = await self.a.campaign()
        assert healer is not None
        came = {guest: Place("a", 1, "b") for guest in guests}
        return sorted(await self.places.claim(healer, "b", term, came))


def play(script: Any) -> None:
    async def staged() -> None:
        stage = Stage()
        await stage.begin()
        work: Coroutine[Any, Any, None] = script(stage)
        await work
        stage.following.cancel()

    asyncio.run(staged())


def test_guests_of_a_lost_machine_are_brought_elsewhere_once() -> None:
    async def script(stage: Stage) -> None:
        assert stage.places.on("b") == ["c", "d"]
        term = await stage.lose()
        assert await stage.claim(term) == []  # it is the healer from now on
        stage.etcd.losing = 1  # what is asked next is done, and no answer comes
        with pytest.raises(NotSo):
            await stage.claim(term, "c")
        await stage.until(lambda: stage.places.on("a") == ["a", "c"])
        assert await stage.claim(term, "d") == ["d"]
        assert stage.places.on("b") == []

    play(script)


def test_nobody_takes_guests_from_a_machine_that_has_come_back() -> None:
    """It was lost when it was looked at, and may have acknowledged something since."""

    async def script(stage: Stage) -> None:
        term = await stage.lose()
        assert stage.b is not None
        await stage.b.begin()
        assert await stage.claim(term, "c") == []
        again = await stage.lose()
        assert await stage.claim(term, "c") == []  # that term is over
        assert await stage.claim(again, "c") == ["c"]

    play(script)


def test_a_guest_that_was_terminated_is_on_no_machine() -> None:
    async def script(stage: Stage) -> None:
        assert stage.b is not None
        other = Places(LAB, stage._client, stage.b)
        await other.terminated("c")
        await stage.until(lambda: stage.places.gone == {"c"})
        await stage.lose()
        assert stage.places.on("b") == ["d"]
        with pytest.raises(NotSo):  # the machine is not there any more
            await other.terminated("d")

    play(script)
