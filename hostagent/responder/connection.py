"""One guest's connection while it is held: what `server` could not finish in one pass."""

import asyncio
import os
import socket
import struct
from collections.abc import Mapping
from math import inf
from typing import Final, Protocol, cast

from msgspec import Struct

from hostagent.http import CONTINUE, BadRequest, RequestReader
from hostagent.responder.answers import Answers, Pending, Reply
from hostagent.responder.reply_cache import Caller, Kept
from hostagent.responder.waiting import Waiting

PIPELINE_BATCH: Final = 16
"""Requests of one connection that are answered before other connections get their turn."""

MAX_UNSENT: Final = 65536
"""Bytes of unread answers at which no further requests are read from the guest."""

LINGER: Final = 2.0
"""Seconds for which further bytes are discarded after the last answer, so that the kernel's RST
does not overtake it (RFC 9112 §9.6)."""

SENT_WITHIN: Final = 0.05
"""Seconds for the part of an answer that goes before a reset to leave: the guests are local."""

HOP_LIMITS: Final[Mapping[int, tuple[int, int]]] = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TTL),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS),
}
"""The option that limits an answer's way, by the socket's family."""

_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER, socket(7): closing resets the connection."""

_LATELY: Final = -1.0
"""The deadline of a connection that was answered since the responder's last sweep. It saves reading
the clock for every answer; `expire` sets the real one."""


class Limits(Struct, frozen=True, kw_only=True):
    """Limits of one guest's use of the responder: seconds and counts."""

    request_timeout: float = 10.0
    """For a whole request to arrive, from its first byte or the connection's start; then 408. A
    guest shares the machine with the responder; ten seconds suffice even for one in a debugger."""
    idle_timeout: float = 60.0
    """For an idle connection."""
    held_per_guest: int = 30
    """Connections held for one guest. An SDK keeps a few; thirty leave room for a thousand guests
    below the common limits on descriptors."""
    held: int = 32768
    """Connections held in total; the limit on descriptors may lower it."""
    requests: int = 1000
    """Requests on one connection, so that no connection lasts without end."""


class Server(Protocol):
    """The responder that holds the connection."""

    answers: Answers
    limits: Limits
    waiting: Waiting

    def release(self, connection: "Connection") -> None:
        """The connection is gone."""


class Connection(asyncio.Protocol):
    """Reads requests and writes answers; the responder calls `expire` at its `deadline`."""

    __slots__ = (
        *("caller", "deadline", "pending"),
        *("_answers", "_blocked", "_clear", "_descriptor", "_eof", "_hop_limit", "_limits"),
        *("_lingering", "_loop", "_reader", "_replies", "_responder", "_resting", "_served"),
        *("_asked", "_clock", "_kept", "_most", "_transport", "_unsent", "_waiting"),
    )

    def __init__(
        self,
        responder: Server,
        caller: Caller,
        reader: RequestReader,
        descriptor: int,
        *,
        unsent: bytes,
        last: bool,
        served: int,
        pending: Pending | None = None,
        hop_limit: int | None = None,
    ) -> None:
        """Continue after the one pass: with the rest of the answer (`unsent`), which is sent with
        `hop_limit` and may be the `last`, or with a `pending` request. `descriptor` is the
        socket's.
        """
        self.caller = caller
        self._responder = responder
        self._answers = responder.answers
        self._replies = responder.answers.replies
        self._limits = responder.limits
        self._reader = reader
        self._descriptor = descriptor
        self._clear = False  # the transport's write buffer is empty
        self._unsent = unsent
        self._lingering = last
        self._served = served
        self._hop_limit = hop_limit
        self.pending = pending
        self._transport: asyncio.Transport | None = None
        self._waiting = True  # for more bytes: reading is not paused
        self._blocked = False
        self._resting = False  # idle: bytes mean the same as on a new connection
        self._eof = False
        self._asked = b""
        self._kept: Kept | None = None  # the answers to that
        self._most = 0  # and how many requests may have been answered before them
        self._clock = responder.answers.clock
        self._loop = asyncio.get_running_loop()
        timeout = responder.limits.request_timeout
        self.deadline = self._loop.time() + timeout  # on the loop's clock

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the rest of the answer, and handle what else has arrived."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=MAX_UNSENT)
        if self._unsent:
            self._transport.write(self._unsent)
            self._unsent = b""
        if self._lingering:
            self._finish()
        elif self.pending is not None:
            self._await(self.pending)
        else:
            # Not at once: uvloop starts reading after this call, even if it is paused here.
            self._loop.call_soon(self._proceed)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Release the connection in the responder."""
        self._transport = None
        self._responder.release(self)

    def data_received(self, data: bytes) -> None:
        """Handle received bytes, whose amount the socket's buffer limits."""
        # Hot path: clients repeat the same bytes, and the kernel takes nine tenths of the time.
        kept = self._kept if self._resting else None
        if (
            kept is not None
            and data == self._asked
            and self._clock() < kept.dated_until
            and self._served < self._most
        ):
            kept.hits += 1
        elif self._resting:
            kept = self._recall(data)
        if kept is not None:
            self._served += kept.count
            self.deadline = _LATELY
            # Write around the transport, which would take 2 % of the request's time, unless it has
            # unsent bytes. While data is being received the descriptor is still this connection's.
            sent = 0
            if self._clear or self._is_clear():
                try:
                    sent = os.write(self._descriptor, kept.frame)
                except BlockingIOError:
                    pass
                except OSError:
                    self.abort()  # the guest has gone
                    return
            if sent < len(kept.frame):
                self._write_rest(kept.frame[sent:])
            return
        if self._lingering:
            return
        if self.pending is not None:
            self._reader.feed(data)
            self._pause()  # the next request waits until this one is answered
            return
        begins, self._resting = self._resting, False
        if self._reader.idle:
            self.deadline = self._loop.time() + self._limits.request_timeout
        self._reader.feed(data)
        self._proceed(data if begins else b"")

    def eof_received(self) -> bool:
        """Close once everything that has arrived is answered."""
        self._eof = True
        if self._lingering or self.pending is not None:
            return False  # the guest no longer waits for the answer
        self._loop.call_soon(self._proceed)
        return True

    def pause_writing(self) -> None:
        """The guest does not read: answer nothing more until it does."""
        self._blocked = True
        self._resting = False
        self.deadline = self._loop.time() + self._limits.request_timeout

    def resume_writing(self) -> None:
        """The guest reads again."""
        self._blocked = False
        if not self._waiting and not self._lingering:
            self.deadline = self._loop.time() + self._limits.request_timeout
            self._proceed()

    def expire(self) -> None:
        """The deadline has passed, or is _LATELY and still to be set."""
        if self._transport is None:
            return
        if self.deadline == _LATELY:
            self.deadline = self._loop.time() + self._limits.idle_timeout
            return
        if self._lingering or self._blocked:
            self._transport.abort()
        elif self._reader.idle and self._served:
            self._transport.close()  # a 408 would be read as the next request's answer
        else:
            self._refuse(BadRequest(408, "the request did not arrive in time"))

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _recall(self, data: bytes) -> Kept | None:
        """Return kept answers for these bytes, if they are to be sent and the connection stays."""
        kept = self._replies.get(self.caller, data)
        self._most = 0 if kept is None or not kept.keep else self._limits.requests - kept.count
        if self._served >= self._most:
            kept = None
        else:
            assert kept is not None
            self._replies.used(kept)
        self._asked, self._kept = data, kept
        return kept

    def _proceed(self, asked: bytes = b"") -> None:
        """Answer the complete requests; `asked` is all of their bytes, or b"" if not known."""
        transport = self._transport
        if transport is None or self._lingering or self.pending is not None:
            return
        replies: list[Reply] = []
        for _ in range(PIPELINE_BATCH):
            if self._blocked:
                self._pause()
                return
            try:
                request = self._reader.next()
            except BadRequest as error:
                self._refuse(error)
                return
            if request is None:
                break
            self._served += 1
            last = self._served >= self._limits.requests
            reply = self._answers.reply(self.caller, request, last=last)
            if isinstance(reply, Pending):
                self.pending = reply
                self._await(reply)
                return
            self._write(reply)
            if not reply.keep:
                self._finish()
                return
            replies.append(reply)
        if not self._reader.idle and request is not None:
            self._pause()
            self._loop.call_soon(self._proceed)
            return
        if self._reader.fresh and not self._hop_limit and not self._blocked:
            self._resting = True
            if asked:
                self._replies.keep(self.caller, asked, [reply.made for reply in replies], True)
        self._wait()

    def _await(self, pending: Pending) -> None:
        """Have the request answered later; read on, to notice if the guest hangs up."""
        assert self._transport is not None
        self.deadline = inf
        if not self._waiting and self._reader.idle:
            self._waiting = True
            self._transport.resume_reading()
        self._responder.waiting.enter(self, pending)

    def deliver(self, reply: Reply) -> None:
        """Send the answer to the request that was pending, and go on."""
        if self._transport is None or self._transport.is_closing():
            return
        if reply.frame:
            self._write(reply)
        if reply.reset or not reply.frame:
            self._break(reply)
            return
        self.deadline = self._loop.time() + self._limits.idle_timeout
        if not reply.keep:
            self._finish()
        elif self._eof or not self._waiting or not self._reader.idle:
            self._loop.call_soon(self._proceed)

    def _break(self, reply: Reply) -> None:
        """End the connection as a fault does: by RST, or closed without a whole answer."""
        assert self._transport is not None
        self._lingering = True
        self._resting = False
        self.deadline = inf
        if reply.reset:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        # What was sent of the answer has to leave first: a reset would drop it.
        self._loop.call_later(SENT_WITHIN if reply.frame else 0.0, self.abort)

    def _write(self, reply: Reply) -> None:
        assert self._transport is not None
        if reply.hop_limit != self._hop_limit:
            # After a limited answer the TTL is reset: -1 is the system's default (ip(7)).
            self._hop_limit = reply.hop_limit
            sock = self._transport.get_extra_info("socket")
            if option := HOP_LIMITS.get(sock.family):
                sock.setsockopt(*option, -1 if reply.hop_limit is None else reply.hop_limit)
        self._clear = False
        self._transport.write(reply.frame)

    def _is_clear(self) -> bool:
        """Whether the transport's write buffer is empty; true until `_write` adds to it."""
        assert self._transport is not None
        self._clear = self._transport.get_write_buffer_size() == 0
        return self._clear

    def _write_rest(self, rest: bytes) -> None:
        assert self._transport is not None
        self._clear = False
        self._transport.write(rest)

    def _pause(self) -> None:
        """Pause reading until the received requests are answered."""
        if self._waiting and self._transport is not None:
            self._waiting = False
            self._transport.pause_reading()
            if self.pending is not None:
                return
            self.deadline = self._loop.time() + self._limits.request_timeout

    def _wait(self) -> None:
        """Wait for more: all received requests are answered."""
        assert self._transport is not None
        if self._eof:
            self._transport.close()
            return
        if self._reader.continue_wanted:
            self._reader.continue_wanted = False
            self._transport.write(CONTINUE)
        if self._reader.idle and self._served:
            self.deadline = self._loop.time() + self._limits.idle_timeout
        if not self._waiting:
            self._waiting = True
            self._transport.resume_reading()

    def _refuse(self, error: BadRequest) -> None:
        assert self._transport is not None
        self._transport.write(self._answers.refusal(self.caller, error))
        self._finish()

    def _finish(self) -> None:
        """After the last answer: let the guest read it, and discard what it still sends."""
        assert self._transport is not None
        self._lingering = True
        self._resting = False
        self.deadline = self._loop.time() + LINGER
        if not self._waiting:
            self._waiting = True
            self._transport.resume_reading()
        if self._eof:
            self._transport.close()
        else:
            self._transport.write_eof()
