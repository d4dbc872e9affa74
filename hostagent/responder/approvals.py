"""Sends guests' approvals to the agent over the feed, and again if it breaks."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final, Literal, TypeAlias
from uuid import uuid4

from hostagent.channel.messages import Done, Failed, encode
from hostagent.channel.requests import Approve

TIMEOUT: Final = 5.0
"""Seconds for the agent to store an approval. It commits in ms and restarts in a second."""

MAX_WAITING: Final = 4096
MAX_WAITING_PER_GUEST: Final = 128
"""Approvals under way, each of one event: a guest's full POST and part of the next."""

Result: TypeAlias = Literal["done", "refused", "failed"]


class _Batch:
    """The approvals of one POST. `result` is called once: after the last answer or a failed one."""

    def __init__(self, guest: str, result: Callable[[Result], None]) -> None:
        self.guest = guest
        self.result = result
        self.frames: dict[str, bytes] = {}  # by command id, those not answered yet
        self.timer: asyncio.TimerHandle | None = None


class Approvals:
    """Sends each approval until it is answered, with one command id, so that it is applied once."""

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
        room = min(MAX_WAITING - len(self._waiting), MAX_WAITING_PER_GUEST - self._of_guest[guest])
        if len(event_ids) > room:
            result("failed")
            return
        batch = _Batch(guest, result)
        for event_id in event_ids:
            approve = Approve(command_id=self._new_id(), event_id=event_id, guest=guest)
            batch.frames[approve.command_id] = encode(approve)
            self._waiting[approve.command_id] = batch
        self._of_guest[guest] += len(event_ids)
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
        """The agent is gone; unanswered approvals wait for it to return."""
        self._send = None

    def answered(self, answer: Done | Failed) -> None:
        """Take the agent's answer."""
        batch = self._waiting.get(answer.command_id or "")
        if batch is None:  # given up already
            return
        if isinstance(answer, Failed):
            gone = answer.code in ("unknown-event", "illegal-transition")
            self._end(batch, "refused" if gone else "failed")
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
