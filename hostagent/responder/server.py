"""The server: accepts, asks who it is, answers.

One connection for one request is what guests do most, so that is done in one pass: when the
listening socket is readable, accept, receive, answer and close, without a transport being made.
What cannot be finished so (a request that is not whole, a connection that is kept alive, a socket
that takes no more) becomes a `Connection`, of which each guest may hold a bounded number.
"""

import asyncio
import logging
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from typing import Final, NamedTuple, TypeAlias

from msgspec import Struct

from hostagent.dialects import answer
from hostagent.http import BadRequest, Request, RequestReader, Response, render
from hostagent.model import View
from hostagent.responder.connection import Connection
from hostagent.responder.knowledge import Knowledge

log = logging.getLogger(__name__)

ACCEPT_BATCH: Final = 64
"""Connections accepted in one pass of the loop: some 2 ms, then the held ones get their turn."""

FIRST_READ: Final = 4096
"""Bytes received in the one pass: any request of any client known, twice over."""

DEFER_ACCEPT: Final = 1
"""Seconds for which the kernel keeps a connection to itself until the request has come."""

ACCEPT_PAUSE: Final = 0.1
"""Seconds without accepting after the process ran out of descriptors."""

FIRST_WORD: Final = 1.0
"""Seconds for which a new responder leaves connections to wait for the agent's first word, rather
than answer 503 because it was the quicker of the two to start."""

SWEEP_INTERVAL: Final = 0.5
"""Seconds between looks at who has held a connection for too long; no timer for each."""

RETRY_AFTER: Final = "5"
"""Seconds. An agent that has been gone for a minute is not back at once."""

RESERVED_DESCRIPTORS: Final = 64
"""Descriptors that are not for guests' connections."""

METADATA_ADDRESS: Final = "169.254.169.254"

Caller: TypeAlias = int | str
"""Who asks: the mark of the connection, or in plain mode its source address."""


class Limits(Struct, frozen=True, kw_only=True):
    """What one guest may take of the responder's time and memory. Seconds, and counts."""

    request_timeout: float = 10.0
    """For a request to arrive whole, from its first byte or the connection's: 408. A guest shares
    the machine with the responder; ten seconds are for one that is being debugged."""
    idle_timeout: float = 60.0
    """For a connection to be kept alive without a request."""
    held_per_guest: int = 30
    """Connections held for one guest. An SDK keeps a few; thirty leave room for a thousand guests
    below the common limits on descriptors."""
    held: int = 32768
    """Connections held in all; the limit on descriptors may bound it further."""
    requests: int = 1000
    """Requests on one connection, so that a connection cannot last for ever."""


class Access(NamedTuple):
    """One request answered, for whoever keeps a record. `guest` is None for a caller unknown."""

    caller: Caller
    guest: str | None
    status: int
    method: str
    target: str


Identity: TypeAlias = tuple[
    Callable[[socket.socket, tuple[str, int]], Caller], Callable[[Knowledge, Caller], View | None]
]


def _mark(sock: socket.socket, _peer: tuple[str, int]) -> Caller:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) & 0xFFFFFFFF  # given as signed


def _address(_sock: socket.socket, peer: tuple[str, int]) -> Caller:
    return peer[0]


BY_MARK: Final[Identity] = (_mark, lambda knowledge, mark: knowledge.by_port(int(mark)))
"""By the port that the connection's first packet came in by: no guest can choose it."""

BY_ADDRESS: Final[Identity] = (_address, lambda knowledge, text: knowledge.by_address(str(text)))
"""By source address, for plain machines: only as good as whatever keeps guests from lying."""


class Responder:
    """Answers guests on any number of listening sockets, on the running loop."""

    def __init__(
        self,
        knowledge: Knowledge,
        *,
        identity: Identity = BY_MARK,
        allowed_hosts: frozenset[str] | None = None,
        limits: Limits | None = None,
        record: Callable[[Access], None] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Answer from `knowledge`.

        `allowed_hosts`: the Host headers that are answered, lower case, see `host_headers`.
        `record` is called with each request answered. `wall` gives real time, epoch seconds.
        """
        self.knowledge = knowledge
        self.limits = limits or Limits()
        self._identify, self._look_up = identity
        self._hosts = host_headers([], []) if allowed_hosts is None else allowed_hosts
        self._record = record
        self._wall = wall
        self._held: set[Connection] = set()
        self._held_by: Counter[Caller] = Counter()
        self._second = -1
        self._date = b""
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._room = min(self.limits.held, max(descriptors - RESERVED_DESCRIPTORS, 16))
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(
        self,
        listeners: list[socket.socket],
        stop: asyncio.Event,
        heard: asyncio.Event,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """Serve until `stop` is set; then close the connections, and the listeners.

        `heard` is set when the agent has spoken; `ready` is called when guests are answered.
        """
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(heard.wait(), FIRST_WORD)
        except TimeoutError:
            log.warning("the agent has not been heard yet")
        for listener in listeners:
            listener.setblocking(False)
            if listener.family in (socket.AF_INET, socket.AF_INET6):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_ACCEPT)
            loop.add_reader(listener, self._accept, listener)
        ready()
        try:
            while not stop.is_set():
                try:
                    await asyncio.wait_for(stop.wait(), SWEEP_INTERVAL)
                except TimeoutError:
                    now = loop.time()
                    for connection in [held for held in self._held if held.deadline <= now]:
                        connection.expire()
        finally:
            for listener in listeners:
                loop.remove_reader(listener)
                listener.close()
            for connection in list(self._held):
                connection.abort()
            await asyncio.sleep(0)

    # Answers

    def reply(self, caller: Caller, request: Request, *, last: bool = False) -> tuple[bytes, bool]:
        """Give the answer's bytes, and whether the connection stays; `last`: it must not."""
        wall = self._wall()
        view = self._look_up(self.knowledge, caller)
        response = self._respond(view, request, wall)
        keep = request.keep_alive and not last
        if self._record is not None:
            target = request.path if request.query is None else f"{request.path}?{request.query}"
            guest = None if view is None else view.guest.name
            self._record(Access(caller, guest, response.status, request.method, target))
        frame = render(
            response,
            date=self._http_date(wall),
            keep_alive=keep,
            version=request.version,
            head_only=request.method == "HEAD",
        )
        return frame, keep

    def refusal(self, caller: Caller, error: BadRequest) -> bytes:
        """Give the answer to what is no request; the connection must be closed after it."""
        if self._record is not None:
            view = self._look_up(self.knowledge, caller)
            guest = None if view is None else view.guest.name
            self._record(Access(caller, guest, error.status, "-", "-"))
        response = Response(error.status, error.reason.encode())
        return render(response, date=self._http_date(self._wall()), keep_alive=False)

    def _respond(self, view: View | None, request: Request, wall: float) -> Response:
        if not self.knowledge.fresh(time.monotonic()):
            text = b"the host agent has not been heard for too long"
            return Response(503, text, headers=(("Retry-After", RETRY_AFTER),))
        if view is None:
            return Response(403, b"no guest of this node asks by this way")
        host = request.headers.get("host")
        if host is not None and host.lower() not in self._hosts:
            # RFC 9110 §15.5.20. A page in a guest's browser whose own name has been pointed here
            # (DNS rebinding) says that name.
            return Response(421, b"this server does not answer for that Host")
        return answer(view, request, wall + self.knowledge.clock_offset)

    def _http_date(self, wall: float) -> bytes:
        second = int(wall)
        if second != self._second:
            self._second = second
            self._date = formatdate(second, usegmt=True).encode()
        return self._date

    # Connections

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPT_BATCH):
            try:
                sock, peer = listener.accept()
            except BlockingIOError:
                return
            except (InterruptedError, ConnectionAbortedError):
                continue
            except OSError as error:
                # No descriptors, no memory: the listener stays readable, so look away for a while.
                log.error("accept: %s", error)
                loop = asyncio.get_running_loop()
                loop.remove_reader(listener)
                loop.call_later(ACCEPT_PAUSE, self._resume, listener)
                return
            try:
                self._serve_at_once(sock, peer)
            except OSError:  # the guest has gone away in the middle
                sock.close()

    def _resume(self, listener: socket.socket) -> None:
        if listener.fileno() != -1:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _serve_at_once(self, sock: socket.socket, peer: tuple[str, int]) -> None:
        """Do the whole of a connection now, if it can be done without waiting."""
        caller = self._identify(sock, peer)
        reader = RequestReader()
        try:
            data = sock.recv(FIRST_READ, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._hold(sock, caller, reader)
            return
        if not data:
            sock.close()
            return
        reader.feed(data)
        try:
            request = reader.next()
        except BadRequest as error:
            self._hold(sock, caller, reader, unsent=self.refusal(caller, error), last=True)
            return
        if request is None:
            self._hold(sock, caller, reader)
            return
        frame, keep = self.reply(caller, request, last=not self._has_room(caller))
        try:
            sent = sock.send(frame, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        # What was not read when a socket is closed makes the kernel send RST, which may overtake
        # the answer (RFC 9112 §9.6).
        if keep or sent < len(frame) or len(data) == FIRST_READ:
            self._hold(sock, caller, reader, unsent=frame[sent:], last=not keep, served=1)
        else:
            sock.close()

    def _has_room(self, caller: Caller) -> bool:
        return len(self._held) < self._room and self._held_by[caller] < self.limits.held_per_guest

    def _hold(
        self,
        sock: socket.socket,
        caller: Caller,
        reader: RequestReader,
        *,
        unsent: bytes = b"",
        last: bool = False,
        served: int = 0,
    ) -> None:
        """Make a Connection of it, or close it if this guest holds too many."""
        if not self._has_room(caller):
            log.debug("caller %s: too many connections", caller)
            if unsent:
                sock.send(unsent, socket.MSG_DONTWAIT)
            sock.close()
            return
        loop = asyncio.get_running_loop()
        connection = Connection(self, caller, reader, unsent=unsent, last=last, served=served)
        self._held.add(connection)
        self._held_by[caller] += 1
        sock.setblocking(False)
        task = loop.create_task(self._adopt(sock, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _adopt(self, sock: socket.socket, connection: Connection) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, sock)
        except OSError:
            sock.close()
            self.release(connection)

    def release(self, connection: Connection) -> None:
        """The connection is gone."""
        if connection in self._held:
            self._held.discard(connection)
            self._held_by[connection.caller] -= 1
            if not self._held_by[connection.caller]:
                del self._held_by[connection.caller]


def host_headers(names: list[str], listeners: list[socket.socket]) -> frozenset[str]:
    """Give the Host headers to answer: the names, with and without a port, and where we listen."""
    hosts = [METADATA_ADDRESS, *names]
    ports = {80}
    for listener in listeners:
        address = listener.getsockname()
        if isinstance(address, tuple):
            hosts.append(address[0])
            ports.add(address[1])
    return frozenset(
        form.lower() for host in hosts for form in (host, *(f"{host}:{port}" for port in ports))
    )
