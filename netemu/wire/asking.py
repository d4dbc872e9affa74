"""Asks a lab's control socket from asyncio; `control` does the same without.

Runs in the user's process. It receives no descriptors, so it cannot ask questions that are answered
with some.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Final, TypeVar

from hostagent.channel.frames import FrameError
from netemu.wire import runtime_dir
from netemu.wire.control import SILENCE, NoAnswer, answers, framed, hangs, reader
from netemu.wire.questions import Question

_CHUNK: Final = 65536
A = TypeVar("A")


async def ask(lab: Path, question: Question[A]) -> A:
    """Ask the lab whose directory is `lab`. Raises the lab's error, NoAnswer or Hangs."""
    async with aclosing(listen(lab, question)) as replies:
        async for answer in replies:
            return answer
    raise NoAnswer(f"{lab.name}: the lab ended before it had answered")


async def listen(lab: Path, question: Question[A]) -> AsyncGenerator[A, None]:
    """Ask the lab for a stream, and yield its messages until it ends. Raises NoAnswer and Hangs."""
    frame, replies = framed(question), reader()
    try:
        address = runtime_dir.address(lab, runtime_dir.CONTROL)
        async with asyncio.timeout(SILENCE):
            stream, writer = await asyncio.open_unix_connection(address)
        try:
            writer.write(frame)
            while True:
                async with asyncio.timeout(SILENCE):
                    data = await stream.read(_CHUNK)
                if not data:
                    return
                for answer in answers(question, replies, data):
                    yield answer
        finally:
            writer.close()
    except TimeoutError:
        raise hangs(lab, SILENCE) from None
    except (OSError, FrameError) as error:
        raise NoAnswer(f"{lab.name}: the lab does not answer: {error}") from None
