"""What a fault does to a reply, and how often each has done so. Pure; used in the responder.

`answers` asks which fault a request meets, and `waiting` holds the replies that are late.
"""

import re
from collections.abc import Callable, Sequence
from math import inf
from typing import Final

from msgspec.structs import replace

from hostagent.channel.messages import Used, encode
from hostagent.faults import Fault, is_over, matches
from hostagent.http import Request, Response
from hostagent.model import Event, EventStatus, View
from hostagent.rates import Rate

MOST: Final = 4096
"""Counts kept, of requests and of rates: four for each guest of a full node. When there would be
more, all are dropped; the agent has the counts of requests."""

_CREDENTIALS: Final = re.compile(
    r"/security-credentials/.|/identity/oauth2/token|/service-accounts/[^/]+/(token|identity)", re.I
)
EXPIRED_BY: Final = 25 * 3600.0
"""Seconds by which credentials are older than the oldest that a cloud gives."""

_LEFT: Final = re.compile(rb'("(?:ext_)?expires_in"\s*:\s*"?)[0-9]+')


class Faults:
    """Counts what the faults of this node's guests have met; tells the agent where it matters."""

    def __init__(self) -> None:
        self._used: dict[tuple[str, str], int] = {}  # by guest and fault, where `times` bounds it
        self._rates: dict[tuple[str, str], Rate] = {}
        self._send: Callable[[bytes], None] | None = None

    def connected(self, send: Callable[[bytes], None]) -> None:
        """The agent is connected: tell it all counts."""
        self._send = send
        for (guest, fault_id), used in self._used.items():
            send(encode(Used(guest=guest, fault_id=fault_id, used=used)))

    def disconnected(self) -> None:
        """The agent is gone; it is told the counts when it returns."""
        self._send = None

    def met(
        self, guest: str, faults: Sequence[Fault], request: Request, now: float
    ) -> Fault | None:
        """Return the fault that a request meets, and count it; None if the answer is as usual."""
        for fault in faults:
            key = guest, fault.id
            used = max(fault.used, self._used.get(key, 0))
            current = fault if used == fault.used else replace(fault, used=used)
            if now < fault.at or is_over(current, now):
                continue
            if not matches(fault, request.method, request.path):
                continue
            if fault.throttle is not None and self._within(key, fault.throttle, now):
                return None
            if fault.times is not None:
                self._count(key, used + 1)
            return fault
        return None

    def _within(self, key: tuple[str, str], rate: float, now: float) -> bool:
        if len(self._rates) >= MOST:
            self._rates.clear()
        if key not in self._rates:
            self._rates[key] = Rate(rate, max(rate, 1.0), 1)
        return self._rates[key].allows(key, now)

    def _count(self, key: tuple[str, str], used: int) -> None:
        if len(self._used) >= MOST:
            self._used.clear()
        self._used[key] = used
        if self._send is not None:
            guest, fault_id = key
            self._send(encode(Used(guest=guest, fault_id=fault_id, used=used)))


def failure(fault: Fault) -> int | None:
    """Return the status that the fault answers with instead; None if it lets the cloud answer."""
    return 429 if fault.throttle is not None else fault.status


def asked_as(fault: Fault, view: View, now: float, request: Request) -> tuple[View, Request, float]:
    """Return what a dialect makes the answer of."""
    if fault.stale:
        view, now = as_of(view, fault.at), fault.at
    if fault.expired and _CREDENTIALS.search(request.path) is not None:
        now -= EXPIRED_BY
    return view, request, now + (fault.clock or 0.0)


def as_of(view: View, then: float) -> View:
    """Return the view as it was, as far as its events tell: of the guest itself it is today's."""
    known = [*view.events, *view.history]
    changes = sum(
        moment is not None and moment > then
        for event in known
        for moment in (event.created, event.started, event.ended)
    )
    past = [_event_as_of(event, then) for event in known if event.created <= then]
    active = [event for event in past if event.ended is None]
    return replace(
        view,
        incarnation=max(view.incarnation - changes, 0),
        events=tuple(sorted(active, key=lambda event: event.not_before)),
        history=tuple(event for event in past if event.ended is not None),
    )


def _event_as_of(event: Event, then: float) -> Event:
    if event.ended is not None and event.ended > then:
        event = replace(event, ended=None, status=EventStatus.STARTED)
    if event.ended is None and (event.started is None or event.started > then):
        event = replace(
            event, status=EventStatus.SCHEDULED, started=None, approved=None, approved_by=None
        )
    return event


def spoiled(fault: Fault, response: Response) -> Response:
    """Return the response with the body that the fault gives it."""
    body = response.body
    if fault.expired:
        body = _LEFT.sub(rb"\g<1>0", body)
    if fault.garble:
        body = bytes(byte ^ 0xA5 for byte in body) or b"\xa5"
    return replace(response, body=body, valid_until=-inf)


def late(fault: Fault, now: float) -> float | None:
    """Return when the reply is sent, or the connection closed; None: now, and nothing is wrong."""
    if fault.hang and fault.delay is None:
        return inf if fault.until is None else fault.until
    if fault.delay is not None or fault.hang or fault.reset:
        return now + (fault.delay or 0.0)
    return None


def is_silent(fault: Fault) -> bool:
    """Whether nothing of the answer is sent."""
    return fault.hang or (fault.reset and fault.truncate is None)


def cut(fault: Fault, frame: bytes) -> bytes:
    """Return what is sent of an answer."""
    head, end, body = frame.partition(b"\r\n\r\n")
    if is_silent(fault):
        return b""
    if fault.truncate is None:
        return frame
    # At least one byte is missing, or nobody would notice.
    return head + end + body[: min(fault.truncate, max(len(body) - 1, 0))]
