"""Keeps the knowledge fed: subscribes to the agent's feed, and again whenever that ends."""

import asyncio
import logging
import time
from pathlib import Path
from typing import Final

from hostagent.channel.frames import Decoder, FrameError
from hostagent.channel.messages import (
    HEARTBEAT_INTERVAL,
    VERSION,
    Delta,
    Done,
    Failed,
    Heartbeat,
    Hello,
    MessageError,
    Snapshot,
    Welcome,
    decode,
    encode,
)
from hostagent.responder.approvals import Approvals
from hostagent.responder.knowledge import Gap, Knowledge

log = logging.getLogger(__name__)

FIRST_DELAY: Final = 0.05
LAST_DELAY: Final = 2.0
"""Seconds between attempts to subscribe: soon at first, as a restarted agent is back in a moment,
then twice as long each time, but no longer than the second, so that it is heard when it returns."""

SILENCE: Final = 4 * HEARTBEAT_INTERVAL
"""Seconds without a message after which the connection is taken for dead."""

_CHUNK: Final = 65536


async def follow(
    path: Path, knowledge: Knowledge, heard: asyncio.Event, approvals: Approvals
) -> None:
    """Feed the knowledge from the agent's feed socket at `path` until cancelled.

    `heard` is set once something is known. What guests approve of goes the other way.
    """
    delay = FIRST_DELAY
    told = ""
    while True:
        began = time.monotonic()
        try:
            await _subscribe(path, knowledge, heard, approvals)
        except (OSError, Gap, FrameError, MessageError) as error:
            reason = str(error) or "the agent is silent"
        knowledge.interrupted()
        approvals.disconnected()
        if time.monotonic() - began > LAST_DELAY:  # it had been well until now
            delay, told = FIRST_DELAY, ""
        if reason != told:  # once, not at every attempt
            log.warning("feed: %s; asking again", reason)
            told = reason
        await asyncio.sleep(delay)
        delay = min(2 * delay, LAST_DELAY)


async def _subscribe(
    path: Path, knowledge: Knowledge, heard: asyncio.Event, approvals: Approvals
) -> None:
    """Follow one connection until it ends, which it does with an exception."""
    decoder = Decoder()
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(encode(Hello(version=VERSION, role="responder")))
        while True:
            async with asyncio.timeout(SILENCE):
                data = await reader.read(_CHUNK)
            if not data:
                raise ConnectionResetError("the agent closed the connection")
            for obj in decoder.feed(data):
                message = decode(obj)
                match message:
                    case Snapshot() | Delta() | Heartbeat():
                        knowledge.apply(message, time.monotonic())
                        if isinstance(message, Snapshot) and not message.more:
                            heard.set()
                            log.info("feed: node %s as of %d", message.node, message.sequence)
                    case Welcome():
                        approvals.connected(writer.write)
                    case Done() | Failed(command_id=str()):
                        approvals.answered(message)
                    case Failed():
                        raise ConnectionAbortedError(f"the agent refuses: {message.reason}")
                    case _:
                        kind = type(message).__name__.lower()
                        raise MessageError(f"{kind} is no message of the feed")
    finally:
        writer.close()
