"""The server: accepts connections, identifies callers and sends answers, in the responder's loop.

Most guests make one connection for each request. That is handled in one pass: when the listening
socket is readable, accept, receive, answer and close, without a transport. Otherwise (an incomplete
request, a connection that is kept alive, a full socket buffer) the connection becomes a
`Connection`, of which each guest may hold a limited number.
"""

import asyncio
import logging
import resource
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from itertools import chain
from typing import Final

from hostagent.dialects import Dialects, Options
from hostagent.http import BadRequest, RequestReader
from hostagent.responder.answers import (
    BY_MARK,
    Answers,
    Identity,
    Pending,
    Reply,
    host_headers,
)
from hostagent.responder.approvals import Approvals
from hostagent.responder.connection import HOP_LIMITS, Connection, Limits
from hostagent.responder.faults import Faults
from hostagent.responder.knowledge import Knowledge
from hostagent.responder.reply_cache import Access, Caller
from hostagent.responder.waiting import Waiting

__all__ = ["Limits", "Responder"]

log = logging.getLogger(__name__)

SERVE_BATCH: Final = 64
"""Connections served in one pass of the loop: some 2 ms, before held ones get their turn."""

ACCEPT_BATCH: Final = 256
"""Connections accepted in one pass: those of a guest that opens more than its share only wait."""

SHARE: Final = 32
"""New connections of one guest that are served in one pass, before others get their turn: some more
than it may hold."""

WAITING_PER_GUEST: Final = 1024
"""New connections of one guest that may wait for their turn; further ones are reset. They are out
of the kernel's queue, which all guests share: when it is full, a neighbour tries again a second
later."""

FIRST_READ: Final = 4096
"""Bytes received in the one pass: twice the longest request of any known client."""

RECEIVE_BUFFER: Final = 32768
"""The kernel's buffer for received bytes (it doubles the value for its own needs): some heads, half
a body. They are read in one call."""

DEFER_ACCEPT: Final = 1
"""Seconds for which the kernel holds a new connection back until its request has come."""

_SEND_AND_END: Final = socket.MSG_DONTWAIT | socket.MSG_MORE

ACCEPT_PAUSE: Final = 0.1
"""Seconds without accepting after the process ran out of descriptors."""

FIRST_WORD: Final = 1.0
"""Seconds for which a new responder waits for the agent's first snapshot before it answers, rather
than answer 503 because it started faster."""

SWEEP_INTERVAL: Final = 0.5
"""Seconds between sweeps for connections past their deadline; there is no timer for each."""

RESERVED_DESCRIPTORS: Final = 64
"""Descriptors that are not for guests' connections."""


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
        wall: Callable[[], float] | None = None,
        clock: Callable[[], float] | None = None,
        dialects: Dialects | None = None,
        approvals: Approvals | None = None,
        faults: Faults | None = None,
    ) -> None:
        """Answer from `knowledge`, in `dialects`. Without `approvals` every approval fails.

        `allowed_hosts`: the Host headers to answer, lower case, see `host_headers`. `record` is
        called with each answered request. `wall` returns the machine's time in epoch seconds
        (default: `time.time`), `clock` the loop's time (default: `time.monotonic`).
        """
        self.limits = limits or Limits()
        self._identify, look_up = identity
        self.answers = Answers(
            knowledge,
            dialects or Dialects(Options()),
            look_up=look_up,
            allowed_hosts=host_headers([], []) if allowed_hosts is None else allowed_hosts,
            record=record,
            wall=time.time if wall is None else wall,
            clock=time.monotonic if clock is None else clock,
            faults=faults,
        )
        self._held: dict[Connection, None] = {}
        self._held_by: Counter[Caller] = Counter()
        self._deferred: dict[Caller, deque[socket.SocketType]] = {}
        self.waiting = Waiting(self, approvals)
        knowledge.watch = self._changed
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._room = min(self.limits.held, max(descriptors - RESERVED_DESCRIPTORS, 16))
        self._tasks: dict[asyncio.Task[None], None] = {}

    async def serve(
        self,
        listeners: list[socket.socket],
        stop: asyncio.Event,
        heard: asyncio.Event,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """Serve until `stop` is set; then close the connections, and the listeners.

        `heard` is set after the first snapshot; `ready` is called once guests are answered.
        """
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(heard.wait(), FIRST_WORD)
        except TimeoutError:
            log.warning("the agent has not been heard yet")
        for listener in listeners:
            listener.setblocking(False)
            # Accepted sockets inherit these options.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            if listener.family in (socket.AF_INET, socket.AF_INET6):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_ACCEPT)
                # No separate acknowledgement of a request: the answer carries it.
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
            loop.add_reader(listener, self._accept, listener, int(listener.family))
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
            for sock in chain.from_iterable(self._deferred.values()):
                sock.close()
            self._deferred.clear()
            for connection in list(self._held):
                connection.abort()
            await asyncio.sleep(0)

    def _changed(self, names: Collection[str] | None) -> None:
        """The views of these guests have changed; None: all views, or the clock has moved."""
        self.answers.replies.forget()
        self.waiting.changed(names)

    # Connections

    @property
    def held(self) -> int:
        """How many connections are held."""
        return len(self._held)

    def _accept(self, listener: socket.socket, family: int) -> None:
        shares: dict[Caller, int] = {}
        deferred = self._deferred
        served = 0
        for _ in range(ACCEPT_BATCH):
            try:
                # The rest of socket.accept would take a tenth of the whole pass.
                descriptor, peer = listener._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            except (InterruptedError, ConnectionAbortedError):
                continue
            except OSError as error:
                # No descriptors or memory. The listener stays readable, so pause accepting.
                log.error("accept: %s", error)
                loop = asyncio.get_running_loop()
                loop.remove_reader(listener)
                loop.call_later(ACCEPT_PAUSE, self._listen_again, listener, family)
                return
            sock = socket.SocketType(family, socket.SOCK_STREAM, 0, descriptor)
            try:
                caller = self._identify(sock, peer)
            except OSError:  # the guest has closed the connection
                sock.close()
                continue
            if deferred and (waiting := deferred.get(caller)) is not None:
                if len(waiting) < WAITING_PER_GUEST:
                    waiting.append(sock)
                else:
                    sock.close()
                continue
            share = shares.get(caller, 0)
            if share == SHARE:
                if not deferred:
                    asyncio.get_running_loop().call_soon(self._take_turns)
                deferred[caller] = deque((sock,))
                continue
            shares[caller] = share + 1
            try:
                self._serve_at_once(sock, caller)
            except OSError:  # the guest has closed the connection
                sock.close()
            served += 1
            if served == SERVE_BATCH:
                return

    def _take_turns(self) -> None:
        """Serve a share of the connections of each guest that has some waiting."""
        share = max(SHARE, SERVE_BATCH // len(self._deferred))
        for caller, waiting in list(self._deferred.items()):
            for _ in range(min(share, len(waiting))):
                sock = waiting.popleft()
                try:
                    self._serve_at_once(sock, caller)
                except OSError:  # the guest has closed the connection
                    sock.close()
            if not waiting:
                del self._deferred[caller]
        if self._deferred:
            asyncio.get_running_loop().call_soon(self._take_turns)

    def _listen_again(self, listener: socket.socket, family: int) -> None:
        if listener.fileno() != -1:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener, family)

    def _serve_at_once(self, sock: socket.SocketType, caller: Caller) -> None:
        """Handle a whole connection now if that needs no waiting."""
        try:
            data = sock.recv(FIRST_READ, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._hold(sock, caller, RequestReader())
            return
        if not data:
            sock.close()
            return
        kept = self.answers.replies.get(caller, data)
        if kept is not None and (
            not kept.keep or (kept.count < self.limits.requests and self._has_room(caller))
        ):
            self.answers.replies.used(kept)
            self._send_at_once(sock, caller, data, kept.frame, kept.keep, kept.count)
            return
        reader = RequestReader()
        reader.feed(data)
        try:
            request = reader.next()
        except BadRequest as error:
            refusal = self.answers.refusal(caller, error)
            self._hold(sock, caller, reader, unsent=refusal, last=True)
            return
        if request is None:
            self._hold(sock, caller, reader)
            return
        room = self._has_room(caller)
        reply = self.answers.reply(caller, request, last=not room)
        if isinstance(reply, Pending):
            if room:
                self._hold(sock, caller, reader, pending=reply, served=1)
                return
            view = self.answers.look_up(caller)
            crowded = self.answers.dialects.crowded(request)
            reply = self.answers.rendered(caller, view, request, crowded, False)
            assert isinstance(reply, Reply)  # it meets no fault
        elif reader.fresh and (room or not request.keep_alive):  # else: closed for want of room
            self.answers.replies.keep(caller, data, (reply.made,), reply.keep)
        frame, keep, hop_limit, *_ = reply
        self._send_at_once(sock, caller, data, frame, keep, 1, reader, hop_limit)

    def _send_at_once(
        self,
        sock: socket.SocketType,
        caller: Caller,
        data: bytes,
        frame: bytes,
        keep: bool,
        served: int,
        reader: RequestReader | None = None,
        hop_limit: int | None = None,
    ) -> None:
        """Send the answer to `data`, which `reader` has read; then close or hold the connection."""
        if hop_limit is not None and (option := HOP_LIMITS.get(sock.family)):
            sock.setsockopt(*option, hop_limit)
        # Closing a socket with unread bytes makes the kernel send RST, which may overtake the
        # answer (RFC 9112 §9.6).
        end = not keep and len(data) < FIRST_READ
        try:
            # The last bytes and the FIN go in one segment.
            sent = sock.send(frame, _SEND_AND_END if end else socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        if end and sent == len(frame):
            sock.shutdown(socket.SHUT_WR)  # with unread bytes, close would not send FIN
            sock.close()
            return
        self._hold(
            sock,
            caller,
            reader or RequestReader(),
            unsent=frame[sent:],
            last=not keep,
            served=served,
            hop_limit=hop_limit,
        )

    def _has_room(self, caller: Caller) -> bool:
        return len(self._held) < self._room and self._held_by[caller] < self.limits.held_per_guest

    def _hold(
        self,
        sock: socket.SocketType,
        caller: Caller,
        reader: RequestReader,
        *,
        unsent: bytes = b"",
        last: bool = False,
        served: int = 0,
        pending: Pending | None = None,
        hop_limit: int | None = None,
    ) -> None:
        """Turn the socket into a Connection, or close it if this guest holds too many."""
        if not self._has_room(caller):
            log.debug("caller %s: too many connections", caller)
            if unsent:
                sock.send(unsent, socket.MSG_DONTWAIT)
            sock.close()
            return
        loop = asyncio.get_running_loop()
        held = socket.socket(sock.family, socket.SOCK_STREAM, 0, sock.detach())
        held.setblocking(False)
        connection = Connection(
            self,
            caller,
            reader,
            held.fileno(),
            unsent=unsent,
            last=last,
            served=served,
            pending=pending,
            hop_limit=hop_limit,
        )
        self._held[connection] = None
        self._held_by[caller] += 1
        if not served and held.family != socket.AF_UNIX:
            # A client that sends its request in pieces may wait for each acknowledgement.
            held.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        task = loop.create_task(self._adopt(held, connection))
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

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
            del self._held[connection]
            self._held_by[connection.caller] -= 1
            if not self._held_by[connection.caller]:
                del self._held_by[connection.caller]
