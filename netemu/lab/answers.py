"""Asks, as a guest would, whether the guest's own responder answers it and knows who it is."""

import asyncio
import socket
from collections.abc import Iterable
from typing import Final

from netemu.kernel.namespaces import inside
from netemu.lab.progress import Progress
from netemu.lab.wiring import HTTP, METADATA, WiredGuest

# How many guests ask at the same time: a quarter of the listener's backlog.
_AT_ONCE: Final = 500
# A responder that is still starting refuses or does not answer; it is asked again.
_PATIENCE: Final = 2.0
_PAUSE: Final = 0.05
_QUESTION: Final = (
    f"GET /metadata/v1/InstanceInfo HTTP/1.1\r\nHost: {METADATA}\r\nConnection: close\r\n\r\n"
).encode()


async def all_answered(guests: Iterable[WiredGuest], progress: Progress) -> None:
    """Wait until every guest is answered as the one it is."""
    waiting = list(guests)
    total = len(waiting)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def until_answered(wired: WiredGuest) -> None:
        async with slots:
            while not await answered(wired):
                await asyncio.sleep(_PAUSE)
        done.append(wired)
        progress.step("asking the responders", len(done), total)

    done: list[WiredGuest] = []
    await asyncio.gather(*(until_answered(wired) for wired in waiting))


async def answered(wired: WiredGuest) -> bool:
    """Whether this guest's responder answers it now, by its own name."""
    loop = asyncio.get_running_loop()
    with inside(wired.net):
        link = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with link:
        try:
            async with asyncio.timeout(_PATIENCE):
                await loop.sock_connect(link, (METADATA, HTTP))
                await loop.sock_sendall(link, _QUESTION)
                answer = b""
                while part := await loop.sock_recv(link, 4096):
                    answer += part
        except OSError:  # TimeoutError is one too
            return False
    return answer.startswith(b"HTTP/1.1 200 ") and f'"_{wired.guest.name}"'.encode() in answer
