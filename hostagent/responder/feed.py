"""Keeps the knowledge fed, and passes on what guests approve of."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from hostagent import subscription
from hostagent.channel.messages import (
    Delta,
    Done,
    Failed,
    Heartbeat,
    Message,
    MessageError,
    Snapshot,
)
from hostagent.responder.approvals import Approvals
from hostagent.responder.knowledge import Knowledge

log = logging.getLogger(__name__)


async def follow(
    path: Path, knowledge: Knowledge, heard: asyncio.Event, approvals: Approvals
) -> None:
    """Feed the knowledge from the agent's feed socket at `path` until cancelled.

    `heard` is set once something is known. What guests approve of goes the other way.
    """
    await subscription.follow(path, "responder", _Feed(knowledge, heard, approvals))


class _Feed:
    def __init__(self, knowledge: Knowledge, heard: asyncio.Event, approvals: Approvals) -> None:
        self._knowledge = knowledge
        self._heard = heard
        self._approvals = approvals

    def welcomed(self, send: Callable[[bytes], None]) -> None:
        self._approvals.connected(send)

    def received(self, message: Message) -> None:
        match message:
            case Snapshot() | Delta() | Heartbeat():
                self._knowledge.apply(message, time.monotonic())
                if isinstance(message, Snapshot) and not message.more:
                    self._heard.set()
                    log.info("feed: node %s as of %d", message.node, message.sequence)
            case Done() | Failed():
                self._approvals.answered(message)
            case _:
                kind = type(message).__name__.lower()
                raise MessageError(f"{kind} is no message of the feed")

    def lost(self) -> None:
        self._knowledge.interrupted()
        self._approvals.disconnected()
