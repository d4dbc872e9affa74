"""HTTP: requests to the responder by a guest that is rightly connected."""

import time
from collections.abc import Iterable
from typing import Final

from hostagent.responder.server import Limits
from netemu.conformance.inside import Inside
from netemu.conformance.labstage import LabStage
from netemu.conformance.roles import HTTP, METADATA
from netemu.conformance.row import ALLOWED, REFUSED, Later, Observed, Row
from netemu.conformance.stage import is_answered_as, status_of

_PATH: Final = "/metadata/v1/InstanceInfo"
# Seconds after its time limit for which a slow request is waited for.
_SLACK: Final = 3.0


def request(
    line: str = f"GET {_PATH} HTTP/1.1", *fields: str, body: bytes = b"", host: str = METADATA
) -> bytes:
    """A request as it goes over the wire."""
    head = [line, f"Host: {host}", *fields]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def _statuses(stage: LabStage, requests: Iterable[bytes]) -> list[tuple[bytes, int, str, bytes]]:
    """(request, status, how the connection ended, whole answer) of each."""
    told = []
    for one in requests:
        stage.said.append(one)
        answer, end = stage.ask(one)
        told.append((one, status_of(answer), end, answer))
    return told


def _all(
    stage: LabStage,
    requests: Iterable[bytes],
    right: range | tuple[int, ...],
    verdict: str,
    *,
    closed: bool = False,
) -> Observed:
    """`verdict` if every answer has a right status; else the status of the first that has not."""
    told = _statuses(stage, requests)
    evidence = [f"{said[:60]!r}: {status}, {end}" for said, status, end, _ in told]
    for _, status, end, _ in told:
        if status not in right:
            return Observed(str(status or end), evidence)
        if closed and end != "closed":
            return Observed(f"{status}, {end}", evidence)
    return Observed(verdict, evidence)


def _control(stage: LabStage) -> Observed:
    """The honest request, with the responder's access log if the lab keeps one."""
    stage.record()
    answer, _ = stage.ask()
    if not is_answered_as(answer, stage.one.name):
        return Observed(str(status_of(answer) or "no answer"), [repr(answer[:200])])
    if not stage.known_by_port():
        return Observed("not by its port", ["the responder's record has not the port's mark"])
    return Observed(ALLOWED, [f"answered as {stage.one.name}"])


def _slow(stage: LabStage) -> Later:
    """Requests that are never completed; their answers are checked when all other rows are done."""
    beginnings = (
        b"GET /meta",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        request("POST / HTTP/1.1", "Content-Length: 1000", body=b"x"),
    )
    begun = time.monotonic()
    # Another row may reboot the attacker and the victim meanwhile, but not the third guest.
    place = stage.three.place if stage.cast.bystander else stage.attacker
    for number, said in enumerate(beginnings):
        place.call(Inside.dial, f"slow{number}", METADATA, HTTP)
        place.call(Inside.say, f"slow{number}", said)
    stage.said += beginnings

    def look() -> Observed:
        end = begun + Limits().request_timeout + _SLACK
        told = []
        for number in range(len(beginnings)):
            patience = max(0.1, end - time.monotonic())
            answer, _ = place.call(Inside.hear, f"slow{number}", patience)
            told.append(status_of(answer))
            place.call(Inside.hang_up, f"slow{number}")
        evidence = [f"answered {told} within {time.monotonic() - begun:.1f} s"]
        if set(told) == {408}:
            return Observed("408", evidence)
        return Observed("waited for", evidence)

    return look


_IDENTITY_HEADERS: Final = (
    "Forwarded: for={address}",
    "X-Forwarded-For: {address}",
    "X-Forwarded-For: 127.0.0.1",
    "x-forwarded-for: {address}",
    "X-Real-IP: {address}",
    "X-Client-IP: {address}",
    "True-Client-IP: {address}",
    "X-Instance-ID: {name}",
    "X-Instance-ID: _{name}\r\nX-Tenant-ID: a\r\nX-Instance-ID-Signature: 0",
    "X-LB-Instance-ID: {name}",
    "X-Remote-User: {name}",
)


def _forged(stage: LabStage) -> Observed:
    """Headers that name another caller: X-Forwarded-For is refused, and none is believed."""
    fields = [one.format(address=stage.i2, name=stage.two.name) for one in _IDENTITY_HEADERS]
    told = _statuses(stage, [request(f"GET {_PATH} HTTP/1.1", one) for one in fields])
    evidence = [f"{field}: {status}" for field, (_, status, _, _) in zip(fields, told, strict=True)]
    for field, (_, status, _, answer) in zip(fields, told, strict=True):
        if f'"_{stage.two.name}"'.encode() in answer or (
            status == 200 and not is_answered_as(answer, stage.one.name)
        ):
            return Observed("believed", [f"{field}: {answer[-200:]!r}", *evidence])
        if field.lower().startswith("x-forwarded-for") and status != 400:
            return Observed(str(status), evidence)
    return Observed(REFUSED, evidence)


_4XX: Final = range(400, 500)


def _rebinding(stage: LabStage) -> Observed:
    hosts = (
        "evil.example",
        f"{METADATA}.evil.example",
        "localhost",
        stage.i2,
        "127.0.0.1",
        f"{METADATA}@evil",
        "evil:80",
        "[::1]",
    )
    return _all(stage, [request(host=host) for host in hosts], _4XX, "4xx")


def _proxy(stage: LabStage) -> Observed:
    lines = (
        f"GET http://{METADATA}{_PATH} HTTP/1.1",
        f"GET http://{stage.if_}/ HTTP/1.1",
        f"GET http://127.0.0.1:8080{_PATH} HTTP/1.1",
        f"GET https://{METADATA}{_PATH} HTTP/1.1",
        f"CONNECT {METADATA}:80 HTTP/1.1",
        f"CONNECT {stage.if_}:80 HTTP/1.1",
        f"TRACE {_PATH} HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        f"TRACK {_PATH} HTTP/1.1",
    )
    seen = _all(stage, [request(line) for line in lines], _4XX, "4xx")
    beyond = stage.sightings()
    if beyond:
        return Observed("forwarded", seen.evidence, beyond)
    return seen


def _smuggling(stage: LabStage) -> Observed:
    hidden = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    chunked = b"0\r\n\r\n" + hidden
    post = f"POST {_PATH} HTTP/1.1"
    both = [
        request(post, "Content-Length: 4", "Transfer-Encoding: chunked", body=chunked),
        request(post, "Transfer-Encoding: chunked", "Content-Length: 4", body=chunked),
        request(post, "Content-Length: 4", "Content-Length: 40", body=hidden),
        request(post, "Content-Length: 4, 4", body=hidden),
        request(post, "Content-Length: +4", body=hidden),
        request(post, "Content-Length: 0x4", body=hidden),
        request(post, "Content-Length: -1", body=hidden),
        request(post, "Content-Length : 4", body=hidden),
        request(post, "Transfer-Encoding : chunked", "Content-Length: 4", body=chunked),
        request(post, "Transfer-Encoding: xchunked", "Content-Length: 4", body=chunked),
        request(post, "Transfer-Encoding: chunked, identity", "Content-Length: 4", body=chunked),
        request(post, "Transfer-Encoding:\x0bchunked", "Content-Length: 4", body=chunked),
        request(post, "Transfer_Encoding: chunked\nContent-Length: 4", body=chunked),
    ]
    ends = b"\r\n" + hidden
    both += [
        request(post, "Transfer-Encoding: chunked", body=sizes + ends)
        for sizes in (
            b"0x0\r\n",
            b"+0\r\n",
            b"-1\r\n",
            b"0\n",
            b"0;\n",
            b"1\r\nab\r\n0\r\n",
            b"\r\n",
        )
    ]
    alone = [
        request(post, "Transfer-Encoding: xchunked", body=chunked),
        request(post, "Transfer-Encoding: gzip, chunked", body=chunked),
    ]
    seen = _all(stage, both, (400,), "400, close", closed=True)
    if seen.verdict != "400, close":
        return seen
    # Nothing contradicts it, so it is not wrong, but nobody here can read it (RFC 9112 6.1).
    unread = _all(stage, alone, (400, 501), "400, close", closed=True)
    return Observed(unread.verdict, seen.evidence + unread.evidence)


def _injection(stage: LabStage) -> Observed:
    requests = [
        request(f"GET {_PATH}%0d%0aX-Forwarded-For:%20{stage.i2} HTTP/1.1"),
        request(f"GET {_PATH}?a=%0d%0aSet-Cookie:%20x HTTP/1.1"),
        request(f"GET {_PATH}%00 HTTP/1.1"),
        request(f"GET {_PATH} HTTP/1.1", "X-A: b\r\n folded: yes"),
        request(f"GET {_PATH} HTTP/1.1", "X-A: b\r\n\tfolded"),
        request(f"GET {_PATH} HTTP/1.1", "X-A: b\nX-B: c"),
        request(f"GET {_PATH} HTTP/1.1", "X-A: b\rX-B: c"),
        request(f"GET {_PATH} HTTP/1.1", "X-A: b\x00c"),
        request(f"GET {_PATH} HTTP/1.1", "X A: b"),
        request(f"GET {_PATH} HTTP/1.1", ": b"),
        request(f"GET  {_PATH} HTTP/1.1"),
        request(f"GET {_PATH}\tHTTP/1.1"),
    ]
    return _all(stage, requests, (400,), "400")


# Azure's dialect asks for it before it looks at the path.
_READABLE: Final = "Metadata: true"
_TRICKS: Final = (
    "/metadata/v1/../v1/InstanceInfo",
    "/metadata/./v1/InstanceInfo",
    "/./metadata/v1/InstanceInfo",
    "/metadata/v1/InstanceInfo/..",
    "/metadata%2fv1%2fInstanceInfo",
    "/metadata/v1/InstanceInfo%2f..",
    "/metadata/v1/%2e%2e/v1/InstanceInfo",
    "/metadata/v1/InstanceInfo;a=b",
    "/metadata/v1/%252e%252e/v1/InstanceInfo",
    "/../../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/latest/../metadata/v1/InstanceInfo",
    "//metadata/v1/InstanceInfo",
    "/metadata//v1/InstanceInfo",
    "/metadata/v1/InstanceInfo/",
    "/%6detadata/v1/InstanceInfo",
    "/metadata/v1/InstanceInf%6f",
)


def _paths(stage: LabStage) -> Observed:
    """Paths that lead elsewhere when they are joined or decoded: none of them exists."""
    asked = [request(f"GET {one} HTTP/1.1", _READABLE) for one in _TRICKS]
    return _all(stage, asked, (404,), "404")


_READ: Final = (
    _PATH,
    "/metadata/v1/maintenance",
    "/metadata/scheduledevents?api-version=2020-07-01",
    "/metadata/instance?api-version=2021-02-01",
    "/latest/meta-data/",
    "/latest/user-data",
    "/computeMetadata/v1/",
    "/written/by/another",
)


def _covert(stage: LabStage) -> Observed:
    """Write to every path, and see whether another guest reads anything different."""

    def read() -> list[bytes]:
        answers = []
        for path in _READ:
            said = request(f"GET {path} HTTP/1.1", "Metadata: true", "Metadata-Flavor: Google")
            answer, _ = stage.ask(said, stage.victim)
            answers.append(_undated(answer))
        return answers

    before = read()
    written = []
    for path in _READ:
        for method in ("PUT", "POST", "DELETE", "PATCH"):
            secret = b'{"StartRequests":[{"EventId":"' + stage.token.hex().encode() + b'"}]}'
            length = f"Content-Length: {len(secret)}"
            said = request(f"{method} {path} HTTP/1.1", "Metadata: true", length, body=secret)
            stage.said.append(said)
            answer, _ = stage.ask(said)
            written.append(status_of(answer))
    after = read()
    for path, one, other in zip(_READ, before, after, strict=True):
        if one != other:
            return Observed("read by another", [f"{path}: {one[-100:]!r} became {other[-100:]!r}"])
    return Observed("no shared state", [f"writing was answered with {sorted(set(written))}"])


def _undated(answer: bytes) -> bytes:
    return b"\r\n".join(one for one in answer.split(b"\r\n") if not one.startswith(b"Date:"))


def _admin(stage: LabStage) -> Observed:
    paths = (
        "/admin",
        "/stats",
        "/metrics",
        "/status",
        "/debug/vars",
        "/server-status",
        "/healthz",
        "/haproxy?stats",
        "/admin?stats",
        "/_cat",
        "/api/v1/pods",
        "/.well-known/",
        "/favicon.ico",
    )
    return _all(stage, [request(f"GET {one} HTTP/1.1") for one in paths], (404,), "404")


ROWS: Final = (
    Row("01", "Control: ask the responder", "the honest guest", ALLOWED, in_lab=_control),
    Row(
        "64", "Slowloris: requests that never become whole", "RFC 9110 15.5.9", "408", in_lab=_slow
    ),
    Row("67", "Forged identity headers", "OSSN-0074, Launchpad 1865036", REFUSED, in_lab=_forged),
    Row("68", "DNS rebinding: another Host", "aws-vault issue 578", "4xx", in_lab=_rebinding),
    Row("69", "Open proxy: absolute URI, CONNECT, TRACE", "RFC 9112 3.2", "4xx", in_lab=_proxy),
    Row("70", "Request smuggling", "CVE-2024-6827", "400, close", in_lab=_smuggling),
    Row("71", "CRLF and header injection", "RFC 9112 5.2, CWE-93", "400", in_lab=_injection),
    Row("72", "Path tricks", "RFC 3986 6.2.2", "404", in_lab=_paths),
    Row("73", "Covert path through the responder", "CWE-514", "no shared state", in_lab=_covert),
    Row("74", "Statistics and administration", "Neutron's haproxy", "404", in_lab=_admin),
)
