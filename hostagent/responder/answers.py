"""Makes the answers to guests. Runs in the responder's loop; sends nothing.

`replies` keeps them for repeated questions. Every answer may be made again at any time.
"""

import re
import socket
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Final, NamedTuple, TypeAlias

from msgspec import Struct

from hostagent.addresses import METADATA
from hostagent.channel.messages import Poll
from hostagent.dialects import Dialects
from hostagent.dialects.outcomes import Approval, Outcome, Park, Writing
from hostagent.faults import Fault
from hostagent.http import BadRequest, Request, Response, render, render_around_date
from hostagent.model import View
from hostagent.responder.faults import Faults, asked_as, cut, failure, is_silent, late, spoiled
from hostagent.responder.knowledge import Knowledge
from hostagent.responder.poll_log import PollLog, events_told, target_of
from hostagent.responder.reply_cache import Access, Caller, Made, ReplyCache, http_date

METADATA_NAMES: Final = (
    *("metadata.google.internal", "metadata.google.internal.", "metadata"),
    *("instance-data", "instance-data.ec2.internal", "instance-data.ec2.internal."),
)
"""Names that clients use for that address. None of them can be registered by anyone."""

ANY_ADDRESS: Final = "0.0.0.0"
_address_literal = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?::[0-9]{1,5})?")


class Reply(NamedTuple):
    """An answer's bytes, whether the connection stays, and the IP TTL to send it with, if any.

    `reset`: reset the connection after them.
    """

    frame: bytes
    keep: bool
    hop_limit: int | None = None
    made: Made | None = None
    reset: bool = False


class Late(Struct, frozen=True):
    """A reply that is sent at `until`, metadata plane's time, or earlier once the fault is gone."""

    until: float
    reply: Reply
    fault: Fault


class Pending(Struct):
    """A request that waits, whether its connection stays open afterwards, and the fault it met."""

    guest: str
    request: Request
    keep: bool
    outcome: Park | Approval | Writing | Late
    fault: Fault | None = None
    shift: float = 0.0
    """Seconds that the fault's clock is ahead, for a Park."""


Identity: TypeAlias = tuple[
    Callable[[socket.SocketType, tuple[str, int]], Caller],
    Callable[[Knowledge, Caller], View | None],
]


def _mark(sock: socket.SocketType, _peer: tuple[str, int]) -> Caller:
    return (
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) & 0xFFFFFFFF
    )  # the kernel returns it signed


def _address(_sock: socket.SocketType, peer: tuple[str, int]) -> Caller:
    return peer[0]


BY_MARK: Final[Identity] = (_mark, lambda knowledge, mark: knowledge.by_port(int(mark)))
"""By the ingress port of the connection's first packet, which no guest can choose."""

BY_ADDRESS: Final[Identity] = (_address, lambda knowledge, text: knowledge.by_address(str(text)))
"""By source address, for plain machines: only as safe as their protection against spoofing."""


class Answers:
    """Answers requests from the knowledge. Opens nothing and sends nothing."""

    def __init__(
        self,
        knowledge: Knowledge,
        dialects: Dialects,
        *,
        look_up: Callable[[Knowledge, Caller], View | None],
        allowed_hosts: frozenset[str],
        wall: Callable[[], float],
        clock: Callable[[], float],
        record: Callable[[Access], None] | None = None,
        faults: Faults | None = None,
    ) -> None:
        """See `Responder`; `look_up` is the second member of an Identity."""
        self.knowledge = knowledge
        self.dialects = dialects
        self._look_up = look_up
        self._hosts = allowed_hosts
        self._record = record
        self._wall = wall
        self.clock = clock
        self._polls = polls = PollLog(knowledge.guests)
        self.replies = ReplyCache(knowledge, wall, clock, record, polls)
        self.faults = Faults() if faults is None else faults
        self._unmetered = dialects.unmetered()

    def now(self) -> float:
        """Return the metadata plane's time, epoch seconds."""
        return self._wall() + self.knowledge.clock_offset

    def look_up(self, caller: Caller) -> View | None:
        """Return the caller's view; None if it is not a guest of this node."""
        return self._look_up(self.knowledge, caller)

    def reply(self, caller: Caller, request: Request, *, last: bool = False) -> Reply | Pending:
        """Return the answer, or what it waits for; `last`: the connection must be closed."""
        now = self.now()
        keep = request.keep_alive and not last
        view = self.look_up(caller)
        if not self.knowledge.fresh(self.clock()):
            return self.rendered(caller, view, request, self.dialects.unavailable(request), keep)
        fault = None
        if view is not None and (known := self.knowledge.faults_of(view.guest.name)):
            fault = self.faults.met(view.guest.name, known, request, now)
        outcome = self._ask(view, request, now, fault)
        if isinstance(outcome, Response):
            return self.rendered(caller, view, request, outcome, keep, fault)
        assert view is not None
        shift = 0.0 if fault is None else asked_as(fault, view, now, request)[2] - now
        return Pending(view.guest.name, request, keep, outcome, fault, shift)

    def fails(self, view: View, request: Request, now: float) -> Response | None:
        """Return the failure that a request meets that was waiting already, if it meets one."""
        known = [one for one in self.knowledge.faults_of(view.guest.name) if one.status is not None]
        fault = self.faults.met(view.guest.name, known, request, now)
        return None if fault is None else self.dialects.failure(request.path, fault.status or 500)

    def rendered(
        self,
        caller: Caller,
        view: View | None,
        request: Request,
        response: Response,
        keep: bool,
        fault: Fault | None = None,
    ) -> Reply | Pending:
        """Return the response as it is sent, with the fault that the request met; and record it."""
        if fault is not None:
            response = spoiled(fault, response)
        keep = keep and not response.close
        before, after = render_around_date(
            response,
            keep_alive=keep,
            version=request.version,
            head_only=request.method == "HEAD",
        )
        now = self.now()
        access = self._note(caller, view, self._poll(view, request, response, fault, now))
        made = None
        if (
            view is not None
            and response.valid_until > now
            and response.hop_limit is None
            and not self.knowledge.faults_of(view.guest.name)
        ):
            made = Made(before, after, now, response.valid_until, access)
        if fault is None:
            return Reply(before + self.replies.date() + after, keep, response.hop_limit, made)
        assert view is not None
        frame = cut(fault, before + http_date(self._wall() + (fault.clock or 0.0)) + after)
        keep = keep and fault.truncate is None and not fault.hang
        reply = Reply(frame, keep, response.hop_limit, None, fault.reset)
        until = late(fault, now)
        if until is None:
            return reply
        return Pending(view.guest.name, request, keep, Late(until, reply, fault))

    def _poll(
        self,
        view: View | None,
        request: Request,
        response: Response,
        fault: Fault | None,
        now: float,
    ) -> Poll:
        """Return the row of an answer in the record."""
        poll = Poll(
            at=now, method=request.method, target=target_of(request), status=response.status
        )
        if fault is not None:
            poll.fault = fault.id
            if is_silent(fault):
                poll.status = 0
        if view is not None and (view.events or fault is not None):
            # A stale answer tells of events that have ended, too.
            events = view.events if fault is None else view.events + view.history
            poll.told = events_told(view.guest.name, events, request, poll.status, response.body)
        return poll

    def _note(self, caller: Caller, view: View | None, poll: Poll) -> Access:
        """Record what the guest has asked and been told."""
        guest = None
        if view is not None:
            guest = view.guest.name
            poll = self._polls.note(guest, poll)
        access = Access(caller, guest, poll)
        if self._record is not None:
            self._record(access)
        return access

    def refusal(self, caller: Caller, error: BadRequest) -> bytes:
        """Return the answer to a bad request; close the connection after it."""
        poll = Poll(at=self.now(), method="-", target="-", status=error.status)
        self._note(caller, self.look_up(caller), poll)
        response = self.dialects.refusal(error.path, error.status, error.reason)
        return render(response, date=self.replies.date(), keep_alive=False)

    def _ask(self, view: View | None, request: Request, now: float, fault: Fault | None) -> Outcome:
        if view is None:
            return Response(403, b"no guest of this node asks by this way")
        host = request.headers.get("host")
        if host is not None and not self._ours(host.lower()):
            # RFC 9110 §15.5.20. With DNS rebinding, a page in a guest's browser sends its own host
            # name.
            why = "this server does not answer for that Host"
            return self.dialects.refusal(request.path, 421, why)
        if fault is None:
            return self.dialects.answer(view, request, now)
        if (status := failure(fault)) is not None:
            return self.dialects.failure(request.path, status)
        dialects = self._unmetered if fault.stale else self.dialects
        return dialects.answer(*asked_as(fault, view, now, request))

    def _ours(self, host: str) -> bool:
        if host in self._hosts or (host.startswith("[") and _ipv6_host(host) in self._hosts):
            return True
        # On all addresses any literal is accepted: DNS cannot rebind a literal.
        return ANY_ADDRESS in self._hosts and _address_literal.fullmatch(host) is not None


def _ipv6_host(host: str) -> str:
    """Return a Host header that begins with an IPv6 literal in its one form, without a zone."""
    literal, bracket, port = host[1:].partition("]")
    try:
        address = IPv6Address(literal.partition("%")[0])
    except ValueError:
        return ""
    return f"[{address}{bracket}{port}"


def host_of(address: str) -> str:
    """Return an address as it stands in a URL."""
    return f"[{IPv6Address(address.partition('%')[0])}]" if ":" in address else address


def host_headers(names: list[str], listeners: list[socket.socket]) -> frozenset[str]:
    """Return the Host headers to answer: names and listening addresses, with and without a port.

    A loopback listener adds `localhost`; one on `ANY_ADDRESS` accepts any address. IPv6 addresses
    are in the form of `_ipv6_host`.
    """
    hosts = [METADATA, *METADATA_NAMES, *names]
    ports = {80}
    for listener in listeners:
        address = listener.getsockname()
        if isinstance(address, tuple):
            hosts.append(host_of(address[0]))
            if address[0] == ANY_ADDRESS or address[0].startswith("127."):
                hosts.append("localhost")
            ports.add(address[1])
    return frozenset(
        form.lower() for host in hosts for form in (host, *(f"{host}:{port}" for port in ports))
    )
