"""The way to the servers of a lab's store, by the dialler outside.

Runs in the supervisor, only where the lab has such a store.
"""

import asyncio
import os
import socket
from typing import Final

from netemu.etcd.http import Endpoint
from netemu.supervisor.boot.store_dialler import CONNECTING

# Seconds for one question before the store counts as unavailable: enough for two servers that are
# stopped and one that answers.
WITHIN: Final = 5.0


class Outside:
    """Asks the dialler at the other end of `link` for sockets."""

    def __init__(self, link: socket.socket, endpoints: list[Endpoint]) -> None:
        link.setblocking(False)
        self._link = link
        self._numbers = {one: number for number, one in enumerate(endpoints)}
        self._turn = asyncio.Lock()
        self._asked = 0

    async def dial(self, endpoint: Endpoint) -> socket.socket:
        """A socket that is connected to a server. Raises OSError."""
        async with self._turn:
            made = await self._ask(self._numbers[endpoint])
        try:
            await _ready(made, writing=True)
            if error := made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, os.strerror(error))
        except BaseException:
            made.close()
            raise
        return made

    async def _ask(self, server: int) -> socket.socket:
        self._asked = (self._asked + 1) % 256
        self._link.send(bytes([server, self._asked]))
        while True:
            await _ready(self._link)
            answer, descriptors, _, _ = socket.recv_fds(self._link, 256, 1)
            if not answer:
                raise OSError("the store's dialler has ended")
            if answer[0] == self._asked:
                break
            for descriptor in descriptors:  # of a question that was given up
                os.close(descriptor)
        if answer[1:] != CONNECTING:
            raise OSError(answer[1:].decode(errors="replace"))
        os.set_inheritable(descriptors[0], False)
        made = socket.socket(fileno=descriptors[0])
        made.setblocking(False)
        return made


async def _ready(one: socket.socket, *, writing: bool = False) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    watch, leave = (
        (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    )
    watch(one, ready.set)
    try:
        await ready.wait()
    finally:
        leave(one)
