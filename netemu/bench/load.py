"""Puts load on a node's server from guests' namespaces: by wrk, by a generator of our own where wrk
is too slow or lacks the mode (`peers/load.c`), or by all guests at once.
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
from netemu.kernel.sockets import HTTP
from netemu.supervisor.nodes.wiring import METADATA

PEERS: Final = Path(netemu.__file__).resolve().parent.parent / ".peers" / "bin"
"""The directory into which netns-scripts/bench-peers installs and compiles."""

CONNECTIONS: Final = 24
"""Connections of one guest: the responder's limit is 30."""

WAITING: Final = 512
"""Connections that have sent their request before a stopped server continues. Kernels allow twice
as many by default; each server's own backlog is larger."""

REQUESTS_KEPT: Final = 960
"""Requests on one connection: nginx and the responder both end it after 1,000."""

_PIPELINE: Final = Path(__file__).parent / "peers" / "pipeline.lua"
OWN: Final = PEERS / "load"
_SUMMARY: Final = re.compile(r"(\d+) requests in ([\d.]+)(ms|s|m),")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0}
_ERRORS: Final = re.compile(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)")


def request(path: str, *, close: bool = False, headers: tuple[str, ...] = ()) -> bytes:
    """Return the bytes of a GET."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {METADATA}", *headers]
    lines += ["Connection: close"] if close else []
    return "\r\n".join([*lines, "", ""]).encode()


class Load(Struct, frozen=True):
    """The requests answered, and the seconds it took."""

    requests: int
    seconds: float


def wrk(net: int, path: str, mode: str, seconds: float) -> Load:
    """Measure the rate of one wrk thread with CONNECTIONS connections.

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
    """Parse wrk's summary; raises NotSo if it reports errors or is missing."""
    summary = _SUMMARY.search(said)
    wrong = _ERRORS.search(said)
    if summary is None or wrong is not None:
        raise NotSo(f"wrk: {wrong[0] if wrong else said.strip() or 'no word'}")
    return Load(int(summary[1]), float(summary[2]) * _SECONDS[summary[3]])


def missing() -> str | None:
    """Return what is missing to make load, and how to install it; None if nothing is."""
    if shutil.which("wrk") is None:
        return "the load generator wrk is not installed; run netns-scripts/bench-peers"
    if not OWN.exists():
        return "the load generator is not compiled; run netns-scripts/bench-peers"
    return None


class Delays(Struct, frozen=True):
    """The delays of answers, in seconds from when their requests were due."""

    median: float
    p90: float
    p99: float
    worst: float


def as_answered(nets: Sequence[int], path: str, seconds: float) -> Load:
    """Measure the rate with CONNECTIONS kept alive, by our generator: twice wrk's limit."""
    count, took = _own(nets, path, "as-answered", seconds=seconds)
    return Load(round(count), took)


def bursts(nets: Sequence[int], path: str, seconds: float, pids: Sequence[int]) -> Load:
    """Measure WAITING connections of one request each, all made before the server (`pids`)
    continues.

    The seconds count only the answering. Making a connection takes a guest and the kernel more than
    twice a server's time.
    """
    server = [str(pid) for pid in pids]
    count, took = _own(nets, path, "bursts", *server, seconds=seconds, close=True)
    return Load(round(count), took)


def paced(net: int, path: str, *, rate: float, seconds: float) -> Delays:
    """Ask `rate` times a second, independently of the answers, on connections that are kept alive,
    and for no longer than they last: making one must not count as a delay.

    A delay is measured from when the request was due, so that a stalled server does not hide its
    delays by slowing the requests.
    """
    seconds = min(seconds, 0.9 * CONNECTIONS * REQUESTS_KEPT / rate)  # some are asked more often
    _, _, *delays = _own([net], path, "paced", str(rate), seconds=seconds)
    return Delays(*(delay / 1e6 for delay in delays))


def _own(
    nets: Sequence[int], path: str, *how: str, seconds: float, close: bool = False
) -> list[float]:
    """Run our generator; raises NotSo unless all answers are the same 200."""
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
    """Return the smallest value that this share of all values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def all_at_once(nets: list[int], asked: bytes, times: int) -> list[float]:
    """Every guest asks `times` times, one connection each, as fast as it is answered.

    Returns when each guest had its last answer, in seconds from the common start.
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
