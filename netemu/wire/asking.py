"""Asks a lab's control socket from asyncio; `control` does the same without.

Runs in the user's process. It receives no descriptors, so it cannot ask questions that are answered
with some.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

from hostagent.channel.frames import Decoder, FrameError
from netemu.wire import runtime_dir
from netemu.wire.control import SILENCE, NoAnswer, answers, framed, hangs
from netemu.wire.questions import Question

_CHUNK: Final = 65536


async def ask(lab: Path, question: Question) -> list[dict[str, Any]]:
    """Ask the lab whose directory is `lab`. Raises the lab's error, NoAnswer or Hangs."""
    told = []
    async with aclosing(_replies(lab, question)) as replies:
        async for answer in replies:
            told.append(answer)
            if not answer.get("more"):
                return told
    raise NoAnswer(f"{lab.name}: the lab ended before it had answered")


async def listen(lab: Path, question: Question) -> AsyncGenerator[dict[str, Any], None]:
    """Ask the lab for a stream, and yield its messages until it ends. Raises NoAnswer and Hangs."""
    async with aclosing(_replies(lab, question)) as replies:
        async for one in replies:
            yield {key: value for key, value in one.items() if key != "more"}


async def _replies(lab: Path, question: Question) -> AsyncGenerator[dict[str, Any], None]:
    frame, decoder = framed(question), Decoder()
    try:
        address = runtime_dir.address(lab, runtime_dir.CONTROL)
        async with asyncio.timeout(SILENCE):
            reader, writer = await asyncio.open_unix_connection(address)
        try:
            writer.write(frame)
            while True:
                async with asyncio.timeout(SILENCE):
                    data = await reader.read(_CHUNK)
                if not data:
                    return
                for answer in answers(decoder, data):
                    yield answer
        finally:
            writer.close()
    except TimeoutError:
        raise hangs(lab, SILENCE) from None
    except (OSError, FrameError) as error:
        raise NoAnswer(f"{lab.name}: the lab does not answer: {error}") from None
