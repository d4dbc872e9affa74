"""Sends guests' approvals and writes to the agent over the feed, and again if it breaks."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Literal, TypeAlias
from uuid import uuid4

from hostagent.channel.messages import Done, Failed, encode
from hostagent.channel.requests import Approve, CommandId, Write

TIMEOUT: Final = 5.0
"""Seconds for the agent to store a change. It commits in ms and restarts in a second."""

MAX_WAITING: Final = 4096
MAX_WAITING_PER_GUEST: Final = 128
"""Changes under way, each of one event or name: a guest's full POST and part of the next."""

Change: TypeAlias = Callable[[CommandId], Approve | Write]
"""Makes the command with this ID."""

_REFUSALS: Final = ("unknown-event", "illegal-transition", "too-much")

Result: TypeAlias = Literal["done", "refused", "failed"]


class _Batch:
    """One request's changes. `result` is called once, after the last answer or a failed one."""

    def __init__(self, guest: str, result: Callable[[Result], None]) -> None:
        self.guest = guest
        self.result = result
        self.frames: dict[str, bytes] = {}  # by command id, those not answered yet
        self.timer: asyncio.TimerHandle | None = None


class Approvals:
    """Sends each change until it is answered, with one command id, so that it is applied once."""

    def __init__(self, new_id: Callable[[], str] | None = None) -> None:
        """Start disconnected. `new_id` makes the commands' ids."""
        self._new_id = _random_id if new_id is None else new_id
        self._waiting: dict[str, _Batch] = {}
        self._of_guest: Counter[str] = Counter()
        self._send: Callable[[bytes], None] | None = None

    def submit(
        self, guest: str, event_ids: tuple[str, ...], result: Callable[[Result], None]
    ) -> None:
        """Send the guest's approvals of these events; `result` may be called at once."""
        self.change(guest, [partial(_approve, guest, event_id) for event_id in event_ids], result)

    def write(
        self, guest: str, name: str, text: str | None, result: Callable[[Result], None]
    ) -> None:
        """Send what the guest writes, or deletes; `result` may be called at once."""
        change = partial(_write, guest, name, text)
        self.change(guest, [change], result)

    def change(
        self, guest: str, changes: Sequence[Change], result: Callable[[Result], None]
    ) -> None:
        """Send changes of the guest's; `result` may be called at once."""
        room = min(MAX_WAITING - len(self._waiting), MAX_WAITING_PER_GUEST - self._of_guest[guest])
        if len(changes) > room:
            result("failed")
            return
        batch = _Batch(guest, result)
        for make in changes:
            command = make(self._new_id())
            batch.frames[command.command_id] = encode(command)
            self._waiting[command.command_id] = batch
        self._of_guest[guest] += len(changes)
        loop = asyncio.get_running_loop()
        batch.timer = loop.call_later(TIMEOUT, self._end, batch, "failed")
        if self._send is not None:
            self._send(b"".join(batch.frames.values()))

    def connected(self, send: Callable[[bytes], None]) -> None:
        """The agent is connected: send it all that it has not answered."""
        self._send = send
        for command_id, batch in self._waiting.items():
            send(batch.frames[command_id])

    def disconnected(self) -> None:
        """The agent is gone; unanswered changes wait for it to return."""
        self._send = None

    def answered(self, answer: Done | Failed) -> None:
        """Take the agent's answer."""
        batch = self._waiting.get(answer.command_id or "")
        if batch is None:  # given up already
            return
        if isinstance(answer, Failed):
            self._end(batch, "refused" if answer.code in _REFUSALS else "failed")
            return
        if len(batch.frames) == 1:
            self._end(batch, "done")
        else:
            self._forget(batch, answer.command_id)

    def _end(self, batch: _Batch, result: Result) -> None:
        for command_id in list(batch.frames):
            self._forget(batch, command_id)
        if batch.timer is not None:
            batch.timer.cancel()
        batch.result(result)

    def _forget(self, batch: _Batch, command_id: str) -> None:
        del batch.frames[command_id]
        del self._waiting[command_id]
        self._of_guest[batch.guest] -= 1
        if not self._of_guest[batch.guest]:
            del self._of_guest[batch.guest]


def _random_id() -> str:
    return str(uuid4())


def _approve(guest: str, event_id: str, command_id: str) -> Approve:
    return Approve(command_id=command_id, event_id=event_id, guest=guest)


def _write(guest: str, name: str, text: str | None, command_id: str) -> Write:
    return Write(command_id=command_id, guest=guest, name=name, text=text)
