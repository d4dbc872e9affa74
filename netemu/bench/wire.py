"""Measures impaired wires: how exact delays are, what is lost, frames a second and CPU a frame.

Frames go from a guest's interface to its port, where they are heard before the guard; each carries
the time at which it was sent, and the kernel notes when it came. `stage.measure` runs it as
`python -m netemu.bench.wire`.
"""

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles
from typing import Final

from msgspec import Struct

from netemu.bench import stage
from netemu.bench.report import Goal, Report
from netemu.bench.rounds import Sample, Spread, in_turn
from netemu.errors import NotSo
from netemu.impairment import relay_messages as messages
from netemu.impairment.terms import CLEAN, Terms
from netemu.interfaces import GUEST_WIRE
from netemu.kernel.descriptor_link import receive, send
from netemu.kernel.namespaces import inside
from netemu.supervisor.nodes import splice
from netemu.supervisor.nodes.splice import Place, Splice
from netemu.supervisor.nodes.wiring import BRIDGE_INDEX, WiredNode

_TYPE: Final = 0x88B5  # IEEE 802's for experiments
_HEAD: Final = b"\x02" * 12 + _TYPE.to_bytes(2, "big")
_STAMP: Final = struct.Struct("=QQ")  # nanoseconds since 1970, and the frame's number
_LENGTH: Final = 100
_EVERY: Final = 3  # ETH_P_ALL
_RATE: Final = 2_000
_SO_TIMESTAMPNS: Final = 35
_TIMESPEC: Final = struct.Struct("@qq")
_QUIET: Final = 1.0
"""Seconds without a frame after which no more come."""

P50, P99 = "p50 µs", "p99 µs"
RATE, CPU = "frames/s", "CPU µs/frame"
LOST: Final = "lost %"


class Job(Struct):
    """How often, how many frames are timed, and how long a wire is filled."""

    rounds: int
    frames: int
    seconds: float
    warm_up: int


def run(job: Job) -> Report:
    """Measure one guest's wire: as it is, and with a relay in it."""
    stage.say("building the lab")
    (node,) = stage.set_up({"node": 1})
    report = Report("link", {})
    plain = Bed(node, job)
    report.samples = in_turn(
        {"the wire as it is": lambda: {**plain.timed(0.0), **plain.filled()}},
        rounds=job.rounds, warm_up=job.warm_up, on_turn=stage.say,
    )  # fmt: skip
    relayed = Relayed.lay(node, job)
    try:
        contestants: dict[str, Callable[[], Sample]] = {
            "a relay that changes nothing": lambda: {
                **relayed.with_terms(CLEAN).timed(0.0),
                **relayed.filled(),
            },
            "delay 5ms, what is more": lambda: relayed.with_terms(Terms(delay=0.005)).timed(0.005),
            "delay 50ms, what is more": lambda: relayed.with_terms(Terms(delay=0.05)).timed(0.05),
            "loss 5%, seed 1": lambda: relayed.with_terms(Terms(loss=0.05)).timed(0.0),
        }
        report.samples |= in_turn(
            contestants, rounds=job.rounds, warm_up=job.warm_up, on_turn=stage.say
        )
    finally:
        relayed.close()
        stage.say("")
    before = Spread.of([one[P50] for one in report.samples["the wire as it is"]]).median
    for what in ("delay 5ms, what is more", "delay 50ms, what is more"):
        for metric, limit in ((P50, 200.0), (P99, 1000.0)):
            more = Spread.of([one[metric] - before for one in report.samples[what]])
            report.goals.append(Goal(f"{what}, {metric}", more, "at most", limit))
    report.notes.append(
        f"{job.frames:,} frames of {_LENGTH} bytes at {_RATE:,}/s are timed; frames/s is what "
        "comes through of all that a guest can send. Where no wire is impaired there is no relay."
    )
    return report


class Bed:
    """A guest's interface and its port, frames in between."""

    def __init__(self, node: WiredNode, job: Job) -> None:
        self.node, self.guest = node, node.guests[0]
        self.job = job

    def timed(self, nominal: float) -> Sample:
        """How much later than that frames come, in the middle and for one in a hundred."""
        late, _ = self._sent(self.job.frames, 1 / _RATE)
        points = quantiles([(one - nominal) * 1e6 for one in late], n=100, method="inclusive")
        lost = 100 * (1 - len(late) / self.job.frames)
        return {P50: points[49], P99: points[98], LOST: lost}

    def filled(self) -> Sample:
        """How many frames a second come through of all that can be sent, and the relay's CPU."""
        before = self._cpu()
        late, took = self._sent(int(self.job.seconds * 1e6), 0.0, within=self.job.seconds)
        used = self._cpu() - before
        sample = {RATE: len(late) / took}
        return {**sample, CPU: used / len(late) * 1e6} if used else sample

    def _cpu(self) -> float:
        return 0.0

    def _sent(
        self, count: int, pause: float, within: float | None = None
    ) -> tuple[list[float], float]:
        """Send frames from a process of its own. Returns how long each took, and all together."""
        with inside(self.node.net):
            hears = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        hears.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        hears.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 26)
        with inside(self.node.net):
            hears.bind((self.guest.guest.port, _EVERY))
        hears.settimeout(_QUIET)
        with inside(stage.net_of(self.guest)):
            sends = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            sends.bind((GUEST_WIRE, 0))
        child = os.fork()
        if child == 0:
            try:
                _send(sends, count, pause, within)
            finally:
                os._exit(0)
        sends.close()
        try:
            return _heard(hears)
        finally:
            hears.close()
            os.waitpid(child, 0)


class Relayed(Bed):
    """The same with a relay in the wire."""

    def __init__(
        self, node: WiredNode, job: Job, link: socket.socket, relay: "subprocess.Popen[bytes]"
    ) -> None:
        super().__init__(node, job)
        self._link, self._relay = link, relay

    @classmethod
    def lay(cls, node: WiredNode, job: Job) -> "Relayed":
        """Start a relay, and put it into the wire of the node's guest."""
        link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        start = f"import os; os.dup2({theirs.fileno()}, 3)"
        relay = subprocess.Popen(
            [sys.executable, "-c", f"{start}; from netemu.impairment.relay import main; main()"],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        made = cls(node, job, link, relay)
        made._expect(messages.Hello())
        wired = made.guest
        place = Place(
            node.net, wired.guest.port, wired.port_index, BRIDGE_INDEX, lambda _: (), "", ""
        )
        cut = Splice(place)
        splice.make([cut])
        ends = cut.open()
        made._tell(messages.Lay("wire"), *(one.fileno() for one in ends))
        made._expect(messages.Laid("wire"))
        for one in ends:
            one.close()
        splice.enter([cut])
        return made

    def with_terms(self, terms: Terms) -> "Relayed":
        """Have these terms from the guest from now on."""
        self._tell(messages.Begin("wire", 1, (CLEAN, terms), ()))
        self._tell(messages.Heard(1))
        receive(self._link)  # it has come to it
        return self

    def close(self) -> None:
        self._link.close()
        self._relay.wait(10)

    def _cpu(self) -> float:
        """What the relay has used, in seconds."""
        used = Path(f"/proc/{self._relay.pid}/schedstat").read_text().split()[0]
        return int(used) / 1e9

    def _tell(self, order: messages.Order, *descriptors: int) -> None:
        send(self._link, messages.written(order), list(descriptors))

    def _expect(self, message: messages.Said) -> None:
        self._link.settimeout(20)
        if receive(self._link)[0] != messages.written(message):
            raise NotSo("the relay does not begin")


def _send(sends: socket.socket, count: int, pause: float, within: float | None) -> None:
    filler = bytes(_LENGTH - len(_HEAD) - _STAMP.size)
    begun = due = time.monotonic()
    for number in range(count):
        if pause:
            due += pause
            while (left := due - time.monotonic()) > 0:
                time.sleep(max(0.0, left - 50e-6))
        elif number % 64 == 0 and within is not None and time.monotonic() - begun > within:
            return
        try:
            sends.send(_HEAD + _STAMP.pack(time.time_ns(), number) + filler)
        except OSError:  # its queue is full
            continue


def _heard(hears: socket.socket) -> tuple[list[float], float]:
    late: list[float] = []
    first = last = 0.0
    while True:
        try:
            data, told, _, _ = hears.recvmsg(256, 64)
        except TimeoutError:
            break
        if data[:14] != _HEAD:
            continue
        seconds, rest = _TIMESPEC.unpack(told[0][2])
        sent, _ = _STAMP.unpack_from(data, len(_HEAD))
        last = seconds + rest / 1e9
        first = first or last
        late.append((seconds * 10**9 + rest - sent) / 1e9)
    if not late:
        raise NotSo("no frame came through")
    return late, max(last - first, 1e-9)


if __name__ == "__main__":
    sys.exit(stage.main(Job, run))
