"""Follows keys of the store, for as long as the lab is up. Runs in the supervisor."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from netemu.errors import NotSo
from netemu.etcd import Change, Client, Compacted

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0

Take: TypeAlias = Callable[[list[Change], bool], Awaitable[None]]


async def follow(client: Client, prefix: str, take: Take, tell: Callable[[str], None]) -> None:
    """Have keys that begin so taken: all that there are (True), and then each change, in order.

    `tell` is called with why they cannot be followed for now.
    """
    pause = _FIRST_PAUSE
    while True:
        try:
            entries, revision = await client.under(prefix)
            there = sorted(entries, key=lambda one: one.modified)
            await take([Change(one.key, one, one.modified) for one in there], True)
            pause = _FIRST_PAUSE
            async for changes in client.watch(prefix, revision + 1):
                await take(changes, False)
        except Compacted:
            continue
        except NotSo as error:
            tell(str(error))
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
