"""Load on a node's server, from guests' namespaces: by wrk, at a given rate, or by all at once."""

import re
import selectors
import shutil
import socket
import subprocess
import time
from collections import deque
from pathlib import Path
from typing import Final

from msgspec import Struct

from netemu.errors import NotSo
from netemu.kernel.namespaces import inside
from netemu.lab.wiring import HTTP, METADATA

CONNECTIONS: Final = 24
"""Held by one guest at a time: the responder grants 30."""

PIPELINED: Final = 16
_PIPELINE: Final = Path(__file__).parent / "peers" / "pipeline.lua"
_SUMMARY: Final = re.compile(r"(\d+) requests in ([\d.]+)(ms|s|m),")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0}
_ERRORS: Final = re.compile(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)")


def request(path: str, *, close: bool = False, headers: tuple[str, ...] = ()) -> bytes:
    """The bytes of a GET."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {METADATA}", *headers]
    lines += ["Connection: close"] if close else []
    return "\r\n".join([*lines, "", ""]).encode()


class Load(Struct, frozen=True):
    """So many requests were answered in so many seconds."""

    requests: int
    seconds: float


def wrk(net: int, path: str, mode: str, seconds: float) -> Load:
    """As many requests as one wrk thread on CONNECTIONS gets answered.

    `mode`: "keep-alive", "close" (one connection for each request) or "pipelined" (by 16).
    """
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s"]
    if mode == "close":
        command += ["-H", "Connection: close"]
    if mode == "pipelined":
        command += ["-s", str(_PIPELINE)]
    with inside(net):
        child = subprocess.Popen(
            [*command, f"http://{METADATA}{path}"], stdout=subprocess.PIPE, text=True
        )
    said, _ = child.communicate()
    return wrk_said(said)


def wrk_said(said: str) -> Load:
    """What wrk's own summary means; raises NotSo if there were errors, or no summary."""
    summary = _SUMMARY.search(said)
    wrong = _ERRORS.search(said)
    if summary is None or wrong is not None:
        raise NotSo(f"wrk: {wrong[0] if wrong else said.strip() or 'no word'}")
    return Load(int(summary[1]), float(summary[2]) * _SECONDS[summary[3]])


def why_no_wrk() -> str | None:
    """Why there is no load generator; None if there is."""
    if shutil.which("wrk") is None:
        return "the load generator wrk is not installed; run netns-scripts/bench-peers"
    return None


def paced(net: int, asked: bytes, *, rate: float, seconds: float) -> list[float]:
    """Ask `rate` times a second, whatever the answers do; gives each answer's delay, in seconds.

    A delay counts from when the request was due, so that a server that stalls does not slow the
    questions that would show it.
    """
    links = [_connect(net) for _ in range(CONNECTIONS)]
    poll = selectors.EpollSelector()
    try:
        lengths = {len(_ask(link, asked)) for link in links}
        if len(lengths) != 1:
            raise NotSo(f"answers of {lengths} bytes: one length is expected")
        (length,) = lengths
        for link in links:
            link.setblocking(False)
            poll.register(link, selectors.EVENT_READ)
        idle = deque(links)  # in turn: servers bound the requests of one connection
        due: dict[socket.socket, float] = {}
        got: dict[socket.socket, int] = {}
        delays: list[float] = []
        start = time.perf_counter()
        count, asked_for = round(rate * seconds), 0
        while len(delays) < count:
            now = time.perf_counter()
            while idle and asked_for < count and now >= start + asked_for / rate:
                link = idle.popleft()
                link.send(asked)
                due[link], got[link] = start + asked_for / rate, 0
                asked_for += 1
            for key, _ in poll.select(0):
                link = key.fileobj  # type: ignore[assignment]
                data = link.recv(65536)
                if not data:  # the server's bound on requests for one connection
                    raise NotSo("the server has closed a connection that was to be kept alive")
                got[link] += len(data)
                if got[link] >= length:
                    delays.append(time.perf_counter() - due[link])
                    idle.append(link)
            if now > start + seconds + _LATE:
                raise NotSo(f"{len(delays)} of {count} answers after {seconds + _LATE:g} s")
        return delays
    finally:
        poll.close()
        for link in links:
            link.close()


_LATE: Final = 10.0


def percentile(values: list[float], share: float) -> float:
    """The least value that so large a share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def all_at_once(nets: list[int], asked: bytes, times: int) -> list[float]:
    """Every guest asks so many times, one connection each, as fast as it is answered.

    Gives for each guest when it had its last answer, in seconds since all began.
    """
    poll = selectors.EpollSelector()
    left = [times] * len(nets)
    ends = [0.0] * len(nets)

    def begin(number: int) -> None:
        with inside(nets[number]):
            link = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        link.connect_ex((METADATA, HTTP))
        poll.register(link, selectors.EVENT_WRITE, number)

    start = time.perf_counter()
    for number in range(len(nets)):
        begin(number)
    waiting = len(nets)
    while waiting:
        ready = poll.select(_LATE)
        if not ready:
            raise NotSo(f"{waiting} of {len(nets)} guests get no answer")
        for key, events in ready:
            link, number = key.fileobj, key.data
            assert isinstance(link, socket.socket)
            if events & selectors.EVENT_WRITE:
                link.send(asked)
                poll.modify(link, selectors.EVENT_READ, number)
                continue
            if link.recv(65536):
                continue
            poll.unregister(link)
            link.close()
            left[number] -= 1
            if left[number]:
                begin(number)
            else:
                ends[number] = time.perf_counter() - start
                waiting -= 1
    return ends


def _connect(net: int) -> socket.socket:
    with inside(net):
        link = socket.socket()
    link.settimeout(_LATE)
    link.connect((METADATA, HTTP))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def _ask(link: socket.socket, asked: bytes) -> bytes:
    """One answer, whole: as far as it says that it goes."""
    link.sendall(asked)
    heard = b""
    while True:
        heard += link.recv(65536)
        head, end, body = heard.partition(b"\r\n\r\n")
        said = re.search(rb"(?i)content-length: (\d+)", head)
        if end and said and len(body) >= int(said[1]):
            return heard
