"""Follows an agent's feed, and subscribes again when it breaks: for responders and watchers."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from hostagent.channel.frames import Decoder, FrameError
from hostagent.channel.messages import (
    HEARTBEAT_INTERVAL,
    VERSION,
    Failed,
    Hello,
    Message,
    MessageError,
    Role,
    Welcome,
    decode,
    encode,
)
from hostagent.channel.replica import Gap

log = logging.getLogger(__name__)

FIRST_DELAY: Final = 0.05
LAST_DELAY: Final = 2.0
"""Seconds between attempts to subscribe: short at first, as a restarted agent is soon back, then
doubled each time up to the second value."""

SILENCE: Final = 4 * HEARTBEAT_INTERVAL
"""Seconds without a message after which the connection is taken for dead."""

_CHUNK: Final = 65536


class Subscriber(Protocol):
    """Receives what the agent sends."""

    def welcomed(self, send: Callable[[bytes], None]) -> None:
        """The agent has sent Welcome; `send` sends frames to it."""

    def received(self, message: Message) -> None:
        """The agent has sent this; raise Gap or MessageError to get a new snapshot."""

    def lost(self) -> None:
        """The connection is gone, or could not be made; there will be another attempt."""


async def follow(path: Path, role: Role, subscriber: Subscriber) -> None:
    """Subscribe at the agent's feed socket at `path`, and again whenever that ends.

    Runs until cancelled, on any event loop.
    """
    delay = FIRST_DELAY
    told = ""
    now = asyncio.get_running_loop().time
    while True:
        began, welcome = now(), asyncio.Event()
        try:
            await _subscribe(path, role, subscriber, welcome)
        except (OSError, Gap, FrameError, MessageError) as error:
            reason = str(error) or "the agent is silent"
        subscriber.lost()
        if welcome.is_set() and now() - began > LAST_DELAY:  # the connection had worked
            delay, told = FIRST_DELAY, ""
        if reason != told:  # once, not at every attempt
            log.warning("feed: %s; asking again", reason)
            told = reason
        await asyncio.sleep(delay)
        delay = min(2 * delay, LAST_DELAY)


async def _subscribe(
    path: Path, role: Role, subscriber: Subscriber, welcome: asyncio.Event
) -> None:
    """Follow one connection until it ends with an exception.

    `welcome` is set once the agent has answered.
    """
    decoder = Decoder()
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(encode(Hello(version=VERSION, role=role)))
        while True:
            async with asyncio.timeout(SILENCE):
                data = await reader.read(_CHUNK)
            if not data:
                raise ConnectionResetError("the agent closed the connection")
            for obj in decoder.feed(data):
                match decode(obj):
                    case Welcome():
                        welcome.set()
                        subscriber.welcomed(writer.write)
                    case Failed(command_id=None) as refusal:
                        raise ConnectionAbortedError(f"the agent refuses: {refusal.reason}")
                    case message:
                        subscriber.received(message)
    finally:
        writer.close()
