"""Makes the answers to guests, and keeps them. Runs in the responder's loop; sends nothing.

Guests repeat the same bytes. An answer is kept under its caller and the bytes that it sent, until
time alone would change it or the knowledge changes. A kept answer only gets a new date.
"""

import re
import socket
from collections.abc import Callable, Sequence
from email.utils import formatdate
from itertools import pairwise
from math import inf
from typing import Final, NamedTuple, TypeAlias

from msgspec import Struct

from hostagent.dialects import Dialects
from hostagent.dialects.outcomes import Approval, Outcome, Park
from hostagent.http import BadRequest, Request, Response, render, render_around_date
from hostagent.model import View
from hostagent.responder.knowledge import Knowledge

METADATA_ADDRESS: Final = "169.254.169.254"

METADATA_NAMES: Final = (
    *("metadata.google.internal", "metadata.google.internal.", "metadata"),
    *("instance-data", "instance-data.ec2.internal"),
)
"""Names that clients use for that address. None of them can be registered by anyone."""

ANY_ADDRESS: Final = "0.0.0.0"
_address_literal = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?::[0-9]{1,5})?")

REMEMBERED: Final = 2048
REMEMBERED_ASKED: Final = 2048
REMEMBERED_BYTES: Final = 8192
"""Answers kept, and the most bytes of a question and of an answer: two for each guest of a node, or
a pipeline of sixteen; 20 MB at worst. When there would be more, all are dropped."""

Caller: TypeAlias = int | str
"""The caller: the mark of the connection, or in plain mode its source address."""


class Access(NamedTuple):
    """One answered request, for an access record. `guest` is None for an unknown caller."""

    caller: Caller
    guest: str | None
    status: int
    method: str
    target: str


class Made(NamedTuple):
    """An answer that holds for a while: the bytes around its date, its period, and its record."""

    before: bytes
    after: bytes
    since: float
    until: float
    access: Access


class Reply(NamedTuple):
    """An answer's bytes, whether the connection stays, and the IP TTL to send it with, if any."""

    frame: bytes
    keep: bool
    hop_limit: int | None = None
    made: Made | None = None


class Pending(Struct):
    """A request that waits, and whether its connection stays open afterwards."""

    guest: str
    request: Request
    keep: bool
    outcome: Park | Approval


Again: TypeAlias = tuple[bytes, int, bool, float]
"""Answers as they are sent, their number, whether the connection stays open, and until when
(monotonic) they may be repeated if nothing changes. A time in the past: ask again each time.
"""


class _Kept(NamedTuple):
    """Answers to a repeated question: the bytes around their dates, and their period."""

    around: tuple[bytes, ...]
    accesses: tuple[Access, ...]
    keep: bool
    since: float
    until: float


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
        record: Callable[[Access], None] | None,
        wall: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        """See `Responder`; `look_up` is the second member of an Identity."""
        self.knowledge = knowledge
        self.dialects = dialects
        self._look_up = look_up
        self._hosts = allowed_hosts
        self._record = record
        self._wall = wall
        self.clock = clock
        self._kept: dict[tuple[Caller, bytes], _Kept] = {}
        self._dated: dict[tuple[Caller, bytes], Again] = {}  # of these, with this second's date
        self._dated_since = self._dated_until = 0.0  # on the wall's clock
        self._second = -1
        self._date = b""
        self.changes = 0
        """A counter: results of `again` from before its last increment are no longer valid."""

    def now(self) -> float:
        """Return the metadata plane's time, epoch seconds."""
        return self._wall() + self.knowledge.clock_offset

    def look_up(self, caller: Caller) -> View | None:
        """Return the caller's view; None if it is not a guest of this node."""
        return self._look_up(self.knowledge, caller)

    # Kept answers

    def again(self, caller: Caller, asked: bytes) -> Again | None:
        """Return the kept answers to exactly these bytes; None if they must be made.

        Valid only if no part of another request was received before these bytes.
        """
        key = caller, asked
        wall = self._wall()
        if self._dated_since <= wall < self._dated_until:
            known = self._dated.get(key)
            if known is not None:
                return known
        kept = self._kept.get(key)
        if kept is None:
            return None
        since, until = kept.since, kept.until
        if not since <= wall + self.knowledge.clock_offset < until:
            return None
        if not self.knowledge.fresh(self.clock()):
            return None
        if self._record is not None:
            for access in kept.accesses:
                self._record(access)
        frame = self._http_date(wall).join(kept.around)
        if self._record is not None:
            return frame, len(kept.accesses), kept.keep, -inf
        left = self._date_now(wall, until - self.knowledge.clock_offset)
        now = self.clock()
        if not self.knowledge.fresh(now + 1.0):  # may get stale before the second ends
            return frame, len(kept.accesses), kept.keep, -inf
        again = self._dated[key] = frame, len(kept.accesses), kept.keep, now + left
        return again

    def _date_now(self, wall: float, until: float) -> float:
        """Return for how many seconds dated answers hold: until the second or one of them ends."""
        if not self._dated_since <= wall < self._dated_until:
            self._dated.clear()
            self._dated_since, self._dated_until = wall, self._second + 1.0
        if until < self._dated_until:
            self._dated_until = until
        return self._dated_until - wall

    def remember(self, caller: Caller, asked: bytes, replies: Sequence[Reply]) -> None:
        """Keep the replies to these bytes for as long as each of them holds."""
        made = [reply.made for reply in replies if reply.made is not None]
        if not made or len(made) < len(replies) or len(asked) > REMEMBERED_ASKED:
            return
        if sum(len(reply.frame) for reply in replies) > REMEMBERED_BYTES:
            return
        between = (one.after + other.before for one, other in pairwise(made))
        if len(self._kept) >= REMEMBERED:
            self.forget()
        self._kept[caller, asked] = _Kept(
            around=(made[0].before, *between, made[-1].after),
            accesses=tuple(one.access for one in made),
            keep=replies[-1].keep,
            since=max(one.since for one in made),
            until=min(one.until for one in made),
        )

    def forget(self) -> None:
        """Drop all kept answers: the knowledge has changed."""
        self._kept.clear()
        self._dated.clear()
        self.changes += 1

    # New answers

    def reply(self, caller: Caller, request: Request, *, last: bool = False) -> Reply | Pending:
        """Return the answer, or what it waits for; `last`: the connection must be closed."""
        now = self.now()
        keep = request.keep_alive and not last
        view = self.look_up(caller)
        if not self.knowledge.fresh(self.clock()):
            return self.rendered(caller, view, request, self.dialects.unavailable(request), keep)
        outcome = self._ask(view, request, now)
        if not isinstance(outcome, Response):
            assert view is not None
            return Pending(view.guest.name, request, keep, outcome)
        if view is None or outcome.valid_until <= now or outcome.hop_limit is not None:
            return self.rendered(caller, view, request, outcome, keep)
        keep = keep and not outcome.close
        before, after = render_around_date(
            outcome,
            keep_alive=keep,
            version=request.version,
            head_only=request.method == "HEAD",
        )
        access = self._access(caller, view, request, outcome.status)
        if self._record is not None:
            self._record(access)
        made = Made(before, after, now, outcome.valid_until, access)
        return Reply(before + self._http_date(self._wall()) + after, keep, made=made)

    def rendered(
        self, caller: Caller, view: View | None, request: Request, response: Response, keep: bool
    ) -> Reply:
        """Return the response as it is sent, and record it."""
        keep = keep and not response.close
        self.note(caller, view, request, response.status)
        frame = render(
            response,
            date=self._http_date(self._wall()),
            keep_alive=keep,
            version=request.version,
            head_only=request.method == "HEAD",
        )
        return Reply(frame, keep, response.hop_limit)

    def refusal(self, caller: Caller, error: BadRequest) -> bytes:
        """Return the answer to a bad request; close the connection after it."""
        if self._record is not None:
            view = self.look_up(caller)
            guest = None if view is None else view.guest.name
            self._record(Access(caller, guest, error.status, "-", "-"))
        response = self.dialects.refusal(error.path, error.status, error.reason)
        return render(response, date=self._http_date(self._wall()), keep_alive=False)

    def note(self, caller: Caller, view: View | None, request: Request, status: int) -> None:
        """Record an answered request, if records are kept."""
        if self._record is not None:
            self._record(self._access(caller, view, request, status))

    def _access(self, caller: Caller, view: View | None, request: Request, status: int) -> Access:
        target = request.path if request.query is None else f"{request.path}?{request.query}"
        guest = None if view is None else view.guest.name
        return Access(caller, guest, status, request.method, target)

    def _ask(self, view: View | None, request: Request, now: float) -> Outcome:
        if view is None:
            return Response(403, b"no guest of this node asks by this way")
        host = request.headers.get("host")
        if host is not None and not self._ours(host.lower()):
            # RFC 9110 §15.5.20. With DNS rebinding, a page in a guest's browser sends its own host
            # name.
            why = "this server does not answer for that Host"
            return self.dialects.refusal(request.path, 421, why)
        return self.dialects.answer(view, request, now)

    def _ours(self, host: str) -> bool:
        if host in self._hosts:
            return True
        # On all addresses any literal is accepted: DNS cannot rebind a literal.
        return ANY_ADDRESS in self._hosts and _address_literal.fullmatch(host) is not None

    def _http_date(self, wall: float) -> bytes:
        second = int(wall)
        if second != self._second:
            self._second = second
            self._date = formatdate(second, usegmt=True).encode()
        return self._date


def host_headers(names: list[str], listeners: list[socket.socket]) -> frozenset[str]:
    """Return the Host headers to answer: names and listening addresses, with and without a port.

    A loopback listener adds `localhost`; one on `ANY_ADDRESS` accepts any address.
    """
    hosts = [METADATA_ADDRESS, *METADATA_NAMES, *names]
    ports = {80}
    for listener in listeners:
        address = listener.getsockname()
        if isinstance(address, tuple):
            hosts.append(address[0])
            if address[0] == ANY_ADDRESS or address[0].startswith("127."):
                hosts.append("localhost")
            ports.add(address[1])
    return frozenset(
        form.lower() for host in hosts for form in (host, *(f"{host}:{port}" for port in ports))
    )
