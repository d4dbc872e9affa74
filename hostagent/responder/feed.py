"""Follows the agent's feed into the knowledge, and sends approvals. In the responder's loop."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from hostagent import subscription
from hostagent.channel.messages import (
    Applied,
    AskPolls,
    Delta,
    Done,
    Failed,
    Heartbeat,
    Message,
    MessageError,
    Poll,
    Polls,
    Snapshot,
    encode,
)
from hostagent.responder.approvals import Approvals
from hostagent.responder.faults import Faults
from hostagent.responder.knowledge import Knowledge

log = logging.getLogger(__name__)


async def follow(
    path: Path,
    knowledge: Knowledge,
    heard: asyncio.Event,
    approvals: Approvals,
    faults: Faults | None = None,
    polls: Callable[[str], tuple[Poll, ...]] = lambda _guest: (),
) -> None:
    """Feed the knowledge from the agent's feed socket at `path` until cancelled.

    `heard` is set after the first snapshot. `polls` gives what a guest has asked. Approvals, the
    counts of faults, and the last sequence applied go to the agent.
    """
    feed = _Feed(knowledge, heard, approvals, faults or Faults(), polls)
    await subscription.follow(path, "responder", feed)


class _Feed:
    def __init__(
        self,
        knowledge: Knowledge,
        heard: asyncio.Event,
        approvals: Approvals,
        faults: Faults,
        polls: Callable[[str], tuple[Poll, ...]],
    ) -> None:
        self._knowledge = knowledge
        self._heard = heard
        self._approvals = approvals
        self._faults = faults
        self._polls = polls
        self._loop = asyncio.get_running_loop()
        self._send: Callable[[bytes], None] | None = None
        self._owing = False  # an Applied is still to be sent

    def welcomed(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._approvals.connected(send)
        self._faults.connected(send)

    def received(self, message: Message) -> None:
        match message:
            case Snapshot() | Delta() | Heartbeat():
                self._knowledge.apply(message, self._loop.time())
                if not isinstance(message, Heartbeat):
                    self._owe()
                if isinstance(message, Snapshot) and not message.more:
                    self._heard.set()
                    log.info("feed: node %s as of %d", message.node, message.sequence)
            case AskPolls():
                if self._send is not None:
                    rows = self._polls(message.guest)
                    self._send(encode(Polls(number=message.number, polls=rows)))
            case Done() | Failed():
                self._approvals.answered(message)
            case _:
                kind = type(message).__name__.lower()
                raise MessageError(f"{kind} is not a message of the feed")

    def _owe(self) -> None:
        """Send Applied, once for all messages of this pass of the loop."""
        if not self._owing:
            self._owing = True
            self._loop.call_soon(self._acknowledge)

    def _acknowledge(self) -> None:
        self._owing = False
        if self._send is not None and self._knowledge.sequence >= 0:
            self._send(encode(Applied(sequence=self._knowledge.sequence)))

    def lost(self) -> None:
        self._send = None
        self._knowledge.interrupted()
        self._approvals.disconnected()
        self._faults.disconnected()
