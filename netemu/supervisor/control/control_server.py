"""The lab's control socket, from inside: answers what `netemu.wire.control` asks.

Runs in the supervisor. No client holds it up: a question must come, and an answer be taken, within
a time limit, the number of connections is limited, and a client that goes away leaves nothing. A
question is checked against its type before its handler is called.
"""

import asyncio
import errno
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from hostagent.channel.frames import FrameError, Splitter
from netemu.errors import BadInput, MachineCannot, NetemuError, NotSo
from netemu.kernel import exhaustion
from netemu.kernel.descriptor_link import close_all
from netemu.wire.control import HEARTBEAT, PENDING, Reply, Told, peer
from netemu.wire.framing import BOUND, decoded, framed
from netemu.wire.progress import Failed
from netemu.wire.questions import Console, Enter, Question

log = logging.getLogger(__name__)

Stream = Callable[[], AsyncIterator[Any]]


class Elsewhere(NotSo):
    """What is asked for is on another machine: `machine`, or None if it has not joined."""

    def __init__(self, machine: str | None, text: str) -> None:
        super().__init__(text)
        self.machine = machine


Ask = Callable[[Elsewhere, bytes], Awaitable[bytes]]

A = TypeVar("A")
Q = TypeVar("Q")
A_co = TypeVar("A_co", covariant=True)
Q_co = TypeVar("Q_co", covariant=True)

# Connections at one time; each holds a descriptor of the supervisor's.
MOST: Final = 64
# Seconds for a question to arrive whole, and for the client to take a part of an answer.
ASKED_WITHIN: Final = 5.0
TAKEN_WITHIN: Final = 30.0
# Seconds after which to accept again when a connection could not be accepted: for want of
# descriptors, for one.
_AGAIN: Final = 0.5
_CHUNK: Final = 65536
# Questions whose answers are descriptors, which do not leave a machine.
_BY_DESCRIPTOR: Final = frozenset({Enter.__struct_config__.tag, Console.__struct_config__.tag})


class ControlServer:
    """Answers the user whose lab it is, and nobody else.

    `streams` are sent for as long as the client listens. `elsewhere` is asked what is about
    another machine of the lab, if there are any.
    """

    def __init__(
        self,
        listener: socket.socket,
        handlers: "Sequence[Handler[Any, Any]]",
        streams: Mapping[type[Question[Any]], Stream],
    ) -> None:
        self.elsewhere: Ask | None = None
        self._listener = listener
        self._handlers = {handler.verb: handler for handler in handlers}
        self._streams = {_verb(kind): stream for kind, stream in streams.items()}
        self._loop = asyncio.get_running_loop()
        self._connections: set[asyncio.Task[None]] = set()
        self._silent: dict[asyncio.Task[None], None] = {}  # have not asked yet, the oldest first

    def start(self) -> None:
        """Accept connections from now on."""
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        try:
            link, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:  # it would be offered again at once
            log.warning("control: no connection can be taken: %s", error.strerror)
            self._loop.remove_reader(self._listener)
            self._loop.call_later(_AGAIN, self._loop.add_reader, self._listener, self._accept)
            return
        if peer(link).user != os.geteuid():  # any process can reach an abstract name
            link.close()
            return
        link.setblocking(False)
        if len(self._connections) >= MOST and not self._make_room():
            link.close()
            return
        task = self._loop.create_task(self._serve(link))
        self._connections.add(task)
        self._silent[task] = None
        task.add_done_callback(self._forget)

    def _make_room(self) -> bool:
        """Drop the connection that has been silent for longest, if one is."""
        for task in self._silent:
            task.cancel()
            self._forget(task)
            return True
        return False

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        self._silent.pop(task, None)

    async def _serve(self, link: socket.socket) -> None:
        with link:
            try:
                question = await self._question(link)
                if question is None:
                    return
                verb = decoded(question, _Asked).verb
                if isinstance(verb, str) and verb in self._streams:
                    await self._stream(link, self._streams[verb]())
                else:
                    await self._answer(link, verb, question)
            except (OSError, FrameError) as error:  # TimeoutError is one too
                log.debug("a control connection ends: %r", error)

    async def _question(self, link: socket.socket) -> bytes | None:
        """The first whole message; None if the client goes before."""
        task = asyncio.current_task()
        assert task is not None
        splitter = Splitter(BOUND)
        async with asyncio.timeout(ASKED_WITHIN):
            while data := await self._loop.sock_recv(link, _CHUNK):
                for question in splitter.feed(data):
                    self._silent.pop(task, None)
                    return question
        return None

    async def _answer(self, link: socket.socket, verb: object, question: bytes) -> None:
        beating = self._loop.create_task(_beat(link))
        try:
            reply, descriptors = await self._outcome(verb, question)
        finally:
            beating.cancel()
        # Nothing may run before the descriptors are sent: they belong to the supervisor, which may
        # close them.
        frame = framed(reply)
        if descriptors:
            rights = struct.pack(f"{len(descriptors)}i", *descriptors)
            # The socket's buffer holds heartbeats at most, so this small message is sent whole.
            try:
                sent = link.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                frame = frame[sent:]
            except OSError as error:
                if error.errno != errno.ETOOMANYREFS:  # the client has gone
                    raise
                frame = framed(Failed(exhaustion.words(error), MachineCannot.exit_code))
            finally:
                close_all([one for one in descriptors if isinstance(one, HandedOver)])
        await self._send(link, frame)

    async def here(self, question: bytes) -> bytes:
        """The reply to another machine of the lab. Raises FrameError if it has asked nothing."""
        verb = decoded(question, _Asked).verb
        reply, _ = await self._outcome(verb, question, here=True)
        return msgspec.msgpack.encode(reply)

    async def _outcome(
        self, verb: object, question: bytes, *, here: bool = False
    ) -> tuple[Reply, Sequence[int]]:
        """What the handler returns, or the error that it raises, and descriptors."""
        try:
            found = self._handlers.get(verb) if isinstance(verb, str) else None
            if found is None:
                raise BadInput(f"this lab does not know {verb!r}; is it another version's?")
            try:
                answer = await found.call(question)
            except Elsewhere as error:
                if here or self.elsewhere is None or verb in _BY_DESCRIPTOR:
                    raise
                return decoded(await self.elsewhere(error, question), Reply), ()
            beside = answer.descriptors if isinstance(answer, Beside) else ()
            return _told(answer.answer if isinstance(answer, Beside) else answer), beside
        except NetemuError as error:
            return Failed.of(error), ()
        except Exception as error:
            log.exception("%s failed", verb)
            return Failed(f"{verb}: {error!r}; see the lab's log", 1), ()

    async def _stream(self, link: socket.socket, news: AsyncIterator[Any]) -> None:
        """Send the news until the client goes. It sends nothing itself."""
        duties = {
            self._loop.create_task(self._tell(link, news)),
            self._loop.create_task(self._loop.sock_recv(link, 1)),
        }
        try:
            await asyncio.wait(duties, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for duty in duties:
                duty.cancel()
            await asyncio.gather(*duties, return_exceptions=True)

    async def _tell(self, link: socket.socket, news: AsyncIterator[Any]) -> None:
        coming = asyncio.ensure_future(anext(news))
        try:
            while True:
                done, _ = await asyncio.wait({coming}, timeout=HEARTBEAT)
                if not done:
                    await self._send(link, PENDING)
                    continue
                one = coming.result()
                coming = asyncio.ensure_future(anext(news))
                await self._send(link, framed(_told(one)))
        finally:
            coming.cancel()

    async def _send(self, link: socket.socket, data: bytes) -> None:
        async with asyncio.timeout(TAKEN_WITHIN):
            await self._loop.sock_sendall(link, data)


async def _beat(link: socket.socket) -> None:
    """Send a heartbeat every second. So short a frame is sent whole or not at all."""
    while True:
        await asyncio.sleep(HEARTBEAT)
        try:
            link.send(PENDING)
        except BlockingIOError:
            continue
        except OSError:  # the client has gone; what it has asked for is done
            return


class HandedOver(int):
    """A descriptor that is the client's: here it is closed once it has been sent."""


class Beside(Generic[A]):
    """An answer with descriptors beside it, which stay the handler's unless they are HandedOver."""

    def __init__(self, answer: A, descriptors: Sequence[int]) -> None:
        self.answer = answer
        self.descriptors = descriptors


class Kind(Protocol[Q_co, A_co]):
    """A class of questions Q that are answered with A."""

    def __call__(self, *args: Any, **fields: Any) -> Q_co: ...
    def answer(self, body: bytes) -> A_co: ...


class Handler(Generic[Q, A]):
    """A question, and the function that answers it."""

    def __init__(self, kind: Kind[Q, A], answer: Callable[[Q], Awaitable[A | Beside[A]]]) -> None:
        self.verb = _verb(kind)
        self._kind = kind
        self._answer = answer

    async def call(self, question: bytes) -> A | Beside[A]:
        """Answer the question. Raises BadInput if it does not fit its type."""
        try:
            asked: Q = decoded(question, self._kind)
        except FrameError as error:
            raise BadInput(f"{self.verb}: {error}") from None
        return await self._answer(asked)


class _Asked(msgspec.Struct):
    """The part of a question that says what it is."""

    verb: Any = None


def _told(answer: object) -> Told:
    return Told(msgspec.Raw(msgspec.msgpack.encode(answer)))


def _verb(kind: Any) -> str:
    return str(kind.__struct_config__.tag)
