"""The lab's control socket: a verb and its arguments in, maps and descriptors out.

Frames are the channel's (length and msgpack). An answer is one map, or several for what grows
with the lab: each but the last has `more`. Descriptors travel beside the first.
"""

import asyncio
import errno
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from hostagent.channel.frames import Decoder, FrameError, pack
from netemu.errors import BadInput, NetemuError, NotSo, of_exit_code

log = logging.getLogger(__name__)

Answer = tuple[list[dict[str, Any]], list[int]]
Handler = Callable[..., Awaitable[Answer]]
Stream = Callable[[], AsyncIterator[dict[str, Any]]]

_CHUNK: Final = 65536


class ControlServer:
    """Answers the user whose lab it is, and nobody else.

    `verbs` maps what may be asked to who answers it. What `streams` maps is told for as long as
    the asker listens.
    """

    def __init__(
        self, listener: socket.socket, verbs: Mapping[str, Handler], streams: Mapping[str, Stream]
    ) -> None:
        self._listener = listener
        self._verbs = verbs
        self._streams = streams
        self._loop = asyncio.get_running_loop()
        self._connections: set[asyncio.Task[None]] = set()
        listener.setblocking(False)
        self._loop.add_reader(listener, self._accept)

    def _accept(self) -> None:
        try:
            link, _ = self._listener.accept()
        except OSError:
            return
        if peer(link).user != os.geteuid():  # an abstract name is within everybody's reach
            link.close()
            return
        link.setblocking(False)
        task = self._loop.create_task(self._serve(link))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, link: socket.socket) -> None:
        decoder = Decoder()
        with link:
            try:
                while data := await self._loop.sock_recv(link, _CHUNK):
                    for question in decoder.feed(data):
                        if (verb := question.get("verb")) in self._streams:
                            await self._stream(link, self._streams[str(verb)]())
                            return
                        await self._reply(link, *await self._answer(question))
            except (OSError, FrameError) as error:
                log.debug("a control connection ends: %s", error)

    async def _answer(self, question: dict[str, Any]) -> Answer:
        arguments = dict(question)
        verb = arguments.pop("verb", None)
        try:
            handler = self._verbs.get(verb) if isinstance(verb, str) else None
            if handler is None:
                raise BadInput(f"this lab does not know {verb!r}; is it another version's?")
            return await handler(**arguments)
        except TypeError as error:
            return [{"failed": f"{verb}: {error}", "exit": BadInput.exit_code}], []
        except NetemuError as error:
            return [{"failed": str(error), "exit": error.exit_code}], []
        except Exception as error:
            log.exception("%s failed", verb)
            return [{"failed": f"{verb}: {error!r}; see the lab's log", "exit": 1}], []

    async def _stream(self, link: socket.socket, news: AsyncIterator[dict[str, Any]]) -> None:
        telling = asyncio.create_task(self._tell(link, news))
        try:
            await self._loop.sock_recv(link, 1)  # nothing comes but the end
        finally:
            telling.cancel()

    async def _tell(self, link: socket.socket, news: AsyncIterator[dict[str, Any]]) -> None:
        async for one in news:
            await self._loop.sock_sendall(link, pack({**one, "more": True}))

    async def _reply(
        self, link: socket.socket, maps: list[dict[str, Any]], descriptors: list[int]
    ) -> None:
        frames = [
            pack({**one, "more": True} if place < len(maps) - 1 else one)
            for place, one in enumerate(maps)
        ]
        if descriptors:
            rights = struct.pack(f"{len(descriptors)}i", *descriptors)
            # The socket's buffer is empty: so small a first piece is taken whole.
            sent = link.sendmsg([frames[0]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            frames[0] = frames[0][sent:]
        await self._loop.sock_sendall(link, b"".join(frames))


class NoAnswer(NotSo):
    """The lab has ended, or is about to."""


class Credentials(NamedTuple):
    """The process at the other end of a Unix socket, in this process's own numbers."""

    process: int
    user: int
    group: int


def peer(link: socket.socket) -> Credentials:
    """What the kernel says of the other end; of a server, of who called listen(2)."""
    told = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    return Credentials(*struct.unpack("iII", told))


def connect(address: str, link: socket.socket) -> None:
    """Connect to a socket of a lab of this user. Raises OSError, also if it is somebody else's."""
    link.connect(address)
    if peer(link).user != os.geteuid():
        raise PermissionError(errno.EPERM, "another user has taken its name")


def ask(address: str, verb: str, **arguments: Any) -> tuple[list[dict[str, Any]], list[int]]:
    """Ask the lab at this control address; raises what it raised, NoAnswer if it is gone."""
    with socket.socket(socket.AF_UNIX) as link:
        try:
            connect(address, link)
            link.sendall(pack({"verb": verb, **arguments}))
            return _answers(link)
        except (OSError, FrameError) as error:
            raise NoAnswer(f"the lab does not answer: {error}") from None


def listen(address: str, verb: str) -> Iterator[dict[str, Any]]:
    """Ask the lab for a stream, and give what it tells until it ends. Raises NoAnswer at first."""
    with socket.socket(socket.AF_UNIX) as link:
        try:
            connect(address, link)
            link.sendall(pack({"verb": verb}))
        except OSError as error:
            raise NoAnswer(f"the lab does not answer: {error}") from None
        decoder = Decoder()
        while True:
            try:
                data = link.recv(_CHUNK)
            except ConnectionError:
                return
            if not data:
                return
            for one in decoder.feed(data):
                yield {key: value for key, value in one.items() if key != "more"}


def _answers(link: socket.socket) -> tuple[list[dict[str, Any]], list[int]]:
    decoder = Decoder()
    answers: list[dict[str, Any]] = []
    descriptors: list[int] = []
    while True:
        data, received, _, _ = socket.recv_fds(link, _CHUNK, 16)
        for descriptor in received:  # recv_fds passes no MSG_CMSG_CLOEXEC on
            os.set_inheritable(descriptor, False)
        descriptors += received
        if not data:
            raise NoAnswer("the lab ended before it had answered")
        for answer in decoder.feed(data):
            if "failed" in answer:
                raise of_exit_code(answer["exit"], answer["failed"])
            answers.append(answer)
            if not answer.get("more"):
                return answers, descriptors
