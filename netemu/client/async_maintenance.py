"""Verbs of events, of the clock and of wires, for programs on asyncio. Runs in the user's process.

They are those of `netemu.client.maintenance` and `netemu.client.links`. Nothing here starts a
thread.
"""

from collections.abc import AsyncIterator
from typing import Any, Self, TypeVar

from hostagent.verb import Awaited
from netemu.client import labs
from netemu.client.links import LinkVerbs
from netemu.client.maintenance import Call, EventVerbs
from netemu.wire import runtime_dir
from netemu.wire.asking import ask, listen
from netemu.wire.questions import Follow

T = TypeVar("T")


class AsyncMaintenance(EventVerbs, LinkVerbs, Awaited):
    """Events and wires of one running lab: `async with` makes it. All methods raise NetemuError."""

    def __init__(self, lab: str | None = None) -> None:
        """Without a name it is the only lab that runs. Raises NotSo and BadInput."""
        self._lab = runtime_dir.root() / labs.the_one(lab)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def make(self, call: Call[T]) -> T:
        """Ask the lab. Returns what the call reads from the answer."""
        return call.read(await ask(self._lab, call.question))

    def happening(self) -> AsyncIterator[dict[str, Any]]:
        """What has happened and what happens, as `netemu events --follow --json` prints it."""
        return listen(self._lab, Follow())
