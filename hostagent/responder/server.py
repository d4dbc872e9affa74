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

from hostagent.dialects import Dialects, Options
from hostagent.dialects.outcomes import Outcome
from hostagent.http import (
    BadRequest,
    Request,
    RequestReader,
    Response,
    render,
    render_around_date,
)
from hostagent.model import View
from hostagent.responder.approvals import Approvals
from hostagent.responder.connection import Connection
from hostagent.responder.knowledge import Knowledge
from hostagent.responder.waiting import Caller, Pending, Reply, Waiting

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

RESERVED_DESCRIPTORS: Final = 64
"""Descriptors that are not for guests' connections."""

METADATA_ADDRESS: Final = "169.254.169.254"

METADATA_NAMES: Final = (
    *("metadata.google.internal", "metadata.google.internal.", "metadata"),
    *("instance-data", "instance-data.ec2.internal"),
)
"""Names by which clients know that address. None of them can be bought."""

REMEMBERED: Final = 2048
REMEMBERED_BYTES: Final = 4096
"""Answers that are kept as long as they hold, and the longest of them: 8 MB in all. They are all
forgotten when there would be more."""

NO_ROOM: Final = Response(
    503, b"too many requests of this guest wait", headers=(("Retry-After", "5"),)
)


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


class _Made(NamedTuple):
    """An answer as it was rendered, and for whom, for what, and for when it holds."""

    view: View
    request: Request
    since: float
    until: float
    before: bytes
    after: bytes
    status: int


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
        dialects: Dialects | None = None,
        approvals: Approvals | None = None,
    ) -> None:
        """Answer from `knowledge`, in `dialects`; approvals go to `approvals`, or nowhere.

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
        self.dialects = dialects or Dialects(Options())
        self._made: dict[tuple[int, int, bool], _Made] = {}
        self.waiting = Waiting(self, approvals)
        knowledge.watch = self.waiting.changed
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
            self.waiting.close()
            for connection in list(self._held):
                connection.abort()
            await asyncio.sleep(0)

    # Answers

    def now(self) -> float:
        """Give the metadata plane's time, epoch seconds."""
        return self._wall() + self.knowledge.clock_offset

    def look_up(self, caller: Caller) -> View | None:
        """Give what may be told to the caller; None if it is no guest of this node."""
        return self._look_up(self.knowledge, caller)

    def reply(self, caller: Caller, request: Request, *, last: bool = False) -> Reply | Pending:
        """Give the answer, or what it waits for; `last`: the connection must not stay."""
        now = self.now()
        keep = request.keep_alive and not last
        view = self.look_up(caller)
        if not self.knowledge.fresh(time.monotonic()):
            return self.rendered(caller, view, request, self.dialects.unavailable(request), keep)
        made = self._made.get((id(view), id(request), keep))
        if made is not None and made.since <= now < made.until:
            self.note(caller, view, request, made.status)
            return Reply(made.before + self._http_date(self._wall()) + made.after, keep)
        outcome = self._ask(view, request, now)
        if isinstance(outcome, Response):
            lasting = outcome.valid_until > now and len(outcome.body) <= REMEMBERED_BYTES
            if lasting and view is not None and not request.body:
                self._remember(view, request, keep, outcome, now)
            return self.rendered(caller, view, request, outcome, keep)
        assert view is not None
        return Pending(view.guest.name, request, keep, outcome)

    def rendered(
        self, caller: Caller, view: View | None, request: Request, response: Response, keep: bool
    ) -> Reply:
        """Give the response as it is sent, and note it."""
        self.note(caller, view, request, response.status)
        frame = render(
            response,
            date=self._http_date(self._wall()),
            keep_alive=keep,
            version=request.version,
            head_only=request.method == "HEAD",
        )
        return Reply(frame, keep, response.hop_limit)

    def _remember(
        self, view: View, request: Request, keep: bool, response: Response, now: float
    ) -> None:
        """Keep the answer for when this guest, as it is now, sends the same bytes again.

        Requests of the same bytes are one object, for as long as its reader remembers it.
        """
        before, after = render_around_date(
            response,
            keep_alive=keep,
            version=request.version,
            head_only=request.method == "HEAD",
        )
        if len(self._made) >= REMEMBERED:
            self._made.clear()
        self._made[id(view), id(request), keep] = _Made(
            view, request, now, response.valid_until, before, after, response.status
        )

    def note(self, caller: Caller, view: View | None, request: Request, status: int) -> None:
        """Tell whoever keeps a record."""
        if self._record is None:
            return
        target = request.path if request.query is None else f"{request.path}?{request.query}"
        guest = None if view is None else view.guest.name
        self._record(Access(caller, guest, status, request.method, target))

    def refusal(self, caller: Caller, error: BadRequest) -> bytes:
        """Give the answer to what is no request; the connection must be closed after it."""
        if self._record is not None:
            view = self.look_up(caller)
            guest = None if view is None else view.guest.name
            self._record(Access(caller, guest, error.status, "-", "-"))
        response = Response(error.status, error.reason.encode())
        return render(response, date=self._http_date(self._wall()), keep_alive=False)

    def _ask(self, view: View | None, request: Request, now: float) -> Outcome:
        if view is None:
            return Response(403, b"no guest of this node asks by this way")
        host = request.headers.get("host")
        if host is not None and host.lower() not in self._hosts:
            # RFC 9110 §15.5.20. A page in a guest's browser whose own name has been pointed here
            # (DNS rebinding) says that name.
            return Response(421, b"this server does not answer for that Host")
        return self.dialects.answer(view, request, now)

    def _http_date(self, wall: float) -> bytes:
        second = int(wall)
        if second != self._second:
            self._second = second
            self._date = formatdate(second, usegmt=True).encode()
        return self._date

    # Connections

    @property
    def held(self) -> int:
        """How many connections are held."""
        return len(self._held)

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
                loop.call_later(ACCEPT_PAUSE, self._listen_again, listener)
                return
            try:
                self._serve_at_once(sock, peer)
            except OSError:  # the guest has gone away in the middle
                sock.close()

    def _listen_again(self, listener: socket.socket) -> None:
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
        room = self._has_room(caller)
        reply = self.reply(caller, request, last=not room)
        if isinstance(reply, Pending):
            if room:
                self._hold(sock, caller, reader, pending=reply, served=1)
                return
            view = self.look_up(caller)
            reply = self.rendered(caller, view, request, NO_ROOM, False)
        frame, keep, hop_limit = reply
        if hop_limit is not None and sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hop_limit)
        try:
            sent = sock.send(frame, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        # What was not read when a socket is closed makes the kernel send RST, which may overtake
        # the answer (RFC 9112 §9.6).
        if keep or sent < len(frame) or len(data) == FIRST_READ:
            self._hold(
                sock,
                caller,
                reader,
                unsent=frame[sent:],
                last=not keep,
                served=1,
                hop_limit=hop_limit,
            )
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
        pending: Pending | None = None,
        hop_limit: int | None = None,
    ) -> None:
        """Make a Connection of it, or close it if this guest holds too many."""
        if not self._has_room(caller):
            log.debug("caller %s: too many connections", caller)
            if unsent:
                sock.send(unsent, socket.MSG_DONTWAIT)
            sock.close()
            return
        loop = asyncio.get_running_loop()
        connection = Connection(
            self,
            caller,
            reader,
            unsent=unsent,
            last=last,
            served=served,
            pending=pending,
            hop_limit=hop_limit,
        )
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
        self.waiting.leave(connection)
        if connection in self._held:
            self._held.discard(connection)
            self._held_by[connection.caller] -= 1
            if not self._held_by[connection.caller]:
                del self._held_by[connection.caller]


def host_headers(names: list[str], listeners: list[socket.socket]) -> frozenset[str]:
    """Give the Host headers to answer: the names, with and without a port, and where we listen."""
    hosts = [METADATA_ADDRESS, *METADATA_NAMES, *names]
    ports = {80}
    for listener in listeners:
        address = listener.getsockname()
        if isinstance(address, tuple):
            hosts.append(address[0])
            ports.add(address[1])
    return frozenset(
        form.lower() for host in hosts for form in (host, *(f"{host}:{port}" for port in ports))
    )
