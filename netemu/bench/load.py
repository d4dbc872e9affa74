"""Load on a node's server, from guests' namespaces: by wrk, by a generator of our own where wrk is
too slow or cannot do it (`peers/load.c`), or by all guests at once.
"""

import re
import selectors
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

import netemu
from netemu.errors import NotSo
from netemu.kernel.namespaces import inside
from netemu.supervisor.nodes.wiring import HTTP, METADATA

PEERS: Final = Path(netemu.__file__).resolve().parent.parent / ".peers" / "bin"
"""Where netns-scripts/bench-peers puts what it installs or compiles."""

CONNECTIONS: Final = 24
"""Held by one guest at a time: the responder grants 30."""

WAITING: Final = 512
"""Connections that are made and have asked before a server that was stopped goes on. Debian's and
every other kernel lets twice as many wait; each server's own backlog is larger."""

REQUESTS_KEPT: Final = 960
"""Requests on one connection: nginx and the responder both end it after 1,000."""

PIPELINED: Final = 16
_PIPELINE: Final = Path(__file__).parent / "peers" / "pipeline.lua"
OWN: Final = PEERS / "load"
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


def missing() -> str | None:
    """What there is no load without, and how to have it; None if all is there."""
    if shutil.which("wrk") is None:
        return "the load generator wrk is not installed; run netns-scripts/bench-peers"
    if not OWN.exists():
        return "the load generator is not compiled; run netns-scripts/bench-peers"
    return None


class Delays(Struct, frozen=True):
    """What answers took, in seconds from when their requests were due."""

    median: float
    p90: float
    p99: float
    worst: float


def as_answered(nets: Sequence[int], path: str, seconds: float) -> Load:
    """As many requests as CONNECTIONS that are kept alive get answered: twice what wrk can ask."""
    count, took = _own(nets, path, "as-answered", seconds=seconds)
    return Load(round(count), took)


def bursts(nets: Sequence[int], path: str, seconds: float, pids: Sequence[int]) -> Load:
    """WAITING connections for one request each, all there before the server (`pids`) goes on.

    The seconds are those in which it answers, with nobody making connections meanwhile: for each,
    a guest and the kernel take more than twice a server's time.
    """
    server = [str(pid) for pid in pids]
    count, took = _own(nets, path, "bursts", *server, seconds=seconds, close=True)
    return Load(round(count), took)


def paced(net: int, path: str, *, rate: float, seconds: float) -> Delays:
    """Ask `rate` times a second, whatever the answers do, on connections that are kept alive: for
    no longer than they are, since to make one is nobody's delay.

    A delay counts from when the request was due, so that a server that stalls does not slow the
    questions that would show it.
    """
    seconds = min(seconds, 0.9 * CONNECTIONS * REQUESTS_KEPT / rate)  # some are asked more often
    _, _, *delays = _own([net], path, "paced", str(rate), seconds=seconds)
    return Delays(*(delay / 1e6 for delay in delays))


def _own(
    nets: Sequence[int], path: str, *how: str, seconds: float, close: bool = False
) -> list[float]:
    """What our own generator says; raises NotSo where anything but the same 200s came back."""
    connections, kept = (WAITING, 1) if close else (CONNECTIONS, REQUESTS_KEPT)
    numbers = [connections, seconds, 1, kept]
    command = [str(OWN), METADATA, str(HTTP), ",".join(map(str, nets)), *map(str, numbers), *how]
    done = subprocess.run(
        command,
        input=request(path, close=close),
        capture_output=True,
        pass_fds=nets,
        check=False,
    )
    if done.returncode:
        raise NotSo(done.stderr.decode(errors="replace").strip() or f"load: {done.returncode}")
    return [float(word) for word in done.stdout.split()]


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
