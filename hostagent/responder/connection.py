"""One guest's connection while it is held: for what could not be answered in one pass."""

import asyncio
import os
import socket
from math import inf
from typing import Final, Protocol, cast

from msgspec import Struct

from hostagent.http import CONTINUE, BadRequest, RequestReader
from hostagent.responder.answers import Answers, Caller, Pending, Reply
from hostagent.responder.waiting import Waiting

PIPELINE_BATCH: Final = 16
"""Requests of one connection that are answered before others get their turn."""

MAX_UNSENT: Final = 65536
"""Bytes of answers that wait for the guest to read before its requests are read any further."""

LINGER: Final = 2.0
"""Seconds for which a guest's further bytes are thrown away after the last answer, so that the
kernel's RST does not overtake it (RFC 9112 §9.6)."""

_LATELY: Final = -1.0
"""The deadline of a connection that has been answered since the responder looked: it is as long
ago as that, and the clock need not be asked for every answer."""


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


class Server(Protocol):
    """The responder that holds the connection."""

    answers: Answers
    limits: Limits
    waiting: Waiting

    def release(self, connection: "Connection") -> None:
        """The connection is gone."""


class Connection(asyncio.Protocol):
    """Reads requests, writes answers, and knows until when it may take to do so (`deadline`)."""

    __slots__ = (
        *("caller", "deadline", "pending"),
        *("_answers", "_blocked", "_clear", "_descriptor", "_eof", "_hop_limit", "_limits"),
        *("_lingering", "_loop", "_now", "_reader", "_responder", "_resting", "_served"),
        *("_transport", "_unsent", "_waiting"),
        *("_asked", "_changes", "_count", "_frame", "_length", "_most", "_same_until"),
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
        """Go on where the one pass has ended: `unsent` of the answer, which may be the `last`, and
        leaves with the hop limit; or a request that is `pending`. `descriptor` is the socket's.
        """
        self.caller = caller
        self._responder = responder
        self._answers = responder.answers
        self._limits = responder.limits
        self._reader = reader
        self._descriptor = descriptor
        self._clear = False  # nothing waits in the transport to be sent
        self._unsent = unsent
        self._lingering = last
        self._served = served
        self._hop_limit = hop_limit
        self.pending = pending
        self._transport: asyncio.Transport | None = None
        self._waiting = True  # for more bytes, and not for the loop or for the guest to read
        self._blocked = False
        self._resting = False  # nothing is under way: what comes means what it means to any other
        self._eof = False
        # What is repeated: the bytes asked, and their answers as `Answers.again` gave them.
        self._asked = self._frame = b""
        self._length = self._count = self._most = self._changes = 0
        self._same_until = -inf  # on the loop's clock, unless there are more changes
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time  # the pass's: no system's clock is asked
        timeout = responder.limits.request_timeout
        self.deadline = self._loop.time() + timeout  # on the loop's clock

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what is left of the answer, and look at what else has arrived."""
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
            # Not at once: uvloop begins to read after this call, whether paused in it or not.
            self._loop.call_soon(self._proceed)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Leave the responder's books."""
        self._transport = None
        self._responder.release(self)

    def data_received(self, data: bytes) -> None:
        """Take what has arrived, which the socket's buffer bounds."""
        # A client repeats itself to the byte. A tenth of such a request's time is spent here, the
        # rest is the kernel's: so what was looked up is kept, and nothing called without need.
        if self._resting and (
            (
                data == self._asked
                and self._changes == self._answers.changes
                and self._now() < self._same_until
                and self._served < self._most
            )
            or self._recall(data)
        ):
            self._served += self._count
            self.deadline = _LATELY
            # Past the transport, which would write later and take 2 % of the request's time to,
            # unless something waits there. The descriptor is ours while data is being received,
            # and not yet another guest's.
            sent = 0
            if self._clear or self._is_clear():
                try:
                    sent = os.write(self._descriptor, self._frame)
                except BlockingIOError:
                    pass
                except OSError:
                    self.abort()  # the guest has gone
                    return
            if sent < self._length:
                self._write_rest(sent)
            return
        if self._lingering:
            return
        if self.pending is not None:
            self._reader.feed(data)
            self._pause()  # the next request has time until this one is answered
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
            return False  # it does not wait for the answer any more
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
        """The deadline has passed, or is still to be told."""
        if self._transport is None:
            return
        if self.deadline == _LATELY:
            self.deadline = self._loop.time() + self._limits.idle_timeout
            return
        if self._lingering or self._blocked:
            self._transport.abort()
        elif self._reader.idle and self._served:
            self._transport.close()  # an answer now would be taken for the next request's
        else:
            self._refuse(BadRequest(408, "the request did not arrive in time"))

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _recall(self, data: bytes) -> bool:
        """Whether these bytes may be answered as before, and the connection stays: by `_frame`."""
        known = self._answers.again(self.caller, data)
        if known is None:
            return False
        frame, count, keep, until = known
        most = self._limits.requests - count
        if not keep or self._served >= most:
            return False
        self._asked, self._changes, self._same_until = data, self._answers.changes, until
        self._frame, self._length, self._count, self._most = frame, len(frame), count, most
        return True

    def _proceed(self, asked: bytes = b"") -> None:
        """Answer what is complete; `asked` is all of it, or b"" if that is not known."""
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
            if not isinstance(reply, tuple):
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
                self._answers.remember(self.caller, asked, replies)
        self._wait()

    def _await(self, pending: Pending) -> None:
        """Have the responder answer when it can; read on, to see if the guest hangs up."""
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
        self._write(reply)
        self.deadline = self._loop.time() + self._limits.idle_timeout
        if not reply.keep:
            self._finish()
        elif self._eof or not self._waiting or not self._reader.idle:
            self._loop.call_soon(self._proceed)

    def _write(self, reply: Reply) -> None:
        assert self._transport is not None
        if reply.hop_limit != self._hop_limit:
            # What leaves after a limited answer has been read leaves as anything else does: -1 is
            # the system's own (ip(7)).
            self._hop_limit = reply.hop_limit
            sock = self._transport.get_extra_info("socket")
            if sock.family == socket.AF_INET:
                ttl = -1 if reply.hop_limit is None else reply.hop_limit
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        self._clear = False
        self._transport.write(reply.frame)

    def _is_clear(self) -> bool:
        """Whether nothing waits in the transport to be sent; true until `_write` adds to it."""
        assert self._transport is not None
        self._clear = self._transport.get_write_buffer_size() == 0
        return self._clear

    def _write_rest(self, sent: int) -> None:
        """Leave to the transport what the socket has not taken of `_frame`."""
        assert self._transport is not None
        self._clear = False
        self._transport.write(self._frame[sent:])

    def _pause(self) -> None:
        """Read no more until what is here has been answered."""
        if self._waiting and self._transport is not None:
            self._waiting = False
            self._transport.pause_reading()
            if self.pending is not None:
                return
            self.deadline = self._loop.time() + self._limits.request_timeout

    def _wait(self) -> None:
        """Nothing is left to answer; wait for more."""
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
        """The last answer is written: let the guest read it, whatever it still sends."""
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
