"""Timers and sockets take turns."""

import asyncio
import socket
from functools import partial

import pytest

from netemu.linklocal import fair_timer
from netemu.linklocal.fair_timer import FairTimer


def test_who_is_due_is_called_at_once_or_after_those_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the order in which they come, as many in a turn as there is time for."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        monkeypatch.setattr(loop, "time", lambda: now)
        taken = FairTimer()
        called: list[int] = []

        def due(number: int) -> None:
            nonlocal now
            called.append(number)
            now += 0.6 * fair_timer._TURN

        for number in range(5):
            taken.take(partial(due, number))
        assert called == [0, 1]
        await asyncio.sleep(0)  # a pass of the loop in which this comes before the timers
        await asyncio.sleep(0)
        assert called == [0, 1, 2, 3]
        taken.take(partial(due, 5))
        assert called == [0, 1, 2, 3]  # though there is time, another has come before
        await asyncio.sleep(0)
        assert called == [0, 1, 2, 3, 4, 5]
        await asyncio.sleep(0)
        taken.take(partial(due, 6))
        assert called[-1] == 6

    asyncio.run(story())


def test_sockets_are_read_between_two_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many timers are due in one moment, and be each of them a turn."""

    async def story() -> list[str]:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(fair_timer, "_TURN", -1.0)
        one, other = socket.socketpair()
        one.setblocking(False)
        taken = FairTimer()
        told: list[str] = []

        def due() -> None:
            told.append("due")
            other.send(b"x")

        loop.add_reader(one, lambda: told.append(one.recv(100).decode()))
        for _ in range(3):
            loop.call_later(0, taken.take, due)
        await asyncio.sleep(0.05)
        loop.remove_reader(one)
        one.close()
        other.close()
        return told

    assert asyncio.run(story()) == ["due", "x"] * 3
