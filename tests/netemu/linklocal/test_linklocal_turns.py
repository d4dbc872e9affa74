"""Timers and sockets take turns."""

import asyncio

import pytest

from netemu.linklocal import turns
from netemu.linklocal.turns import Turns


def test_when_timers_have_had_their_time_it_is_the_sockets_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is said to all whose timers are due, until the loop has looked at its sockets."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        taken = Turns()
        monkeypatch.setattr(loop, "time", lambda: now)
        assert not taken.over()
        now += turns._TURN
        assert not taken.over()
        now += turns._TURN
        assert taken.over()
        assert taken.over()
        await asyncio.sleep(0)
        assert not taken.over()

    asyncio.run(story())
