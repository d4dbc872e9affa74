"""The way to the servers of a lab's store, by the dialler outside.

Runs in the supervisor, only where the lab has such a store.
"""

import asyncio
import errno
import os
import socket
from typing import Final

import msgspec

from netemu.etcd.http import Endpoint
from netemu.kernel.descriptor_link import close_all, receive, send
from netemu.supervisor.boot.store_dialler import Answer, Dial, Unreachable

# Seconds for one question before the store counts as unavailable: enough for two servers that are
# stopped and one that answers.
WITHIN: Final = 5.0
# Nothing that is outside still belongs to the lab then. The other machines heal its guests.
_ENDED: Final = (
    "the processes that connect to it have been killed, all at once; 'netemu leave' and"
    " 'netemu join' bring this machine back"
)


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
            try:
                made = await self._ask(self._numbers[endpoint])
            except (ConnectionResetError, BrokenPipeError):
                raise OSError(_ENDED) from None
        try:
            await _ready(made, writing=True)
            if error := made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, os.strerror(error))
        except BaseException:
            made.close()
            raise
        return made

    async def _ask(self, server: int) -> socket.socket:
        self._asked += 1
        send(self._link, msgspec.to_builtins(Dial(self._asked, server)), [])
        while True:
            await _ready(self._link)
            told, descriptors, _ = receive(self._link)
            if not told:
                raise ConnectionResetError
            answer: Answer = msgspec.convert(told, Answer)
            if answer.number == self._asked:
                break
            close_all(descriptors)  # of a question that was given up
        if isinstance(answer, Unreachable):
            raise OSError(answer.reason)
        if not descriptors:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
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
