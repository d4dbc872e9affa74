"""The relay's process, with datagram sockets in the place of wires: no lab, no privilege."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from netemu.impairment import relay_messages as messages
from netemu.impairment import trace
from netemu.impairment.fate import Fate
from netemu.impairment.relay import LINK
from netemu.impairment.terms import CLEAN, Terms
from netemu.kernel.descriptor_link import receive, send

pytestmark = pytest.mark.processes

HEADER = bytes(10)


class Wire:
    """A relay, and the two far ends of one wire that is laid through it."""

    def __init__(self) -> None:
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, str(theirs.fileno())], pass_fds=[theirs.fileno()]
        )
        theirs.close()
        self.link.settimeout(20)
        assert receive(self.link)[0] == ["Hello"]
        self.guest, self._of_guest = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.node, self._of_node = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for one in (self.guest, self.node):
            one.settimeout(20)

    def lay(
        self, to: Terms = CLEAN, from_: Terms = CLEAN, *, seed: int = 1, packed: bytes = b""
    ) -> None:
        names = ["t"] if packed else []
        files = [_file(packed)] if packed else []
        self.tell(messages.Lay("w"), [self._of_guest.fileno(), self._of_node.fileno()])
        self.tell(messages.Begin("w", seed, (to, from_), names), files)
        for one in files:
            os.close(one)
        assert receive(self.link)[0] == ["Laid", "w"]
        self.counts()  # all of it has come to it

    def change(self, to: Terms, from_: Terms) -> None:
        self.tell(messages.Change("w", (to, from_), ()))

    def counts(self) -> list[dict[str, int]]:
        self.tell(messages.Count(7))
        told = messages.read(receive(self.link)[0], messages.Counted)
        assert (told.question, told.more) == (7, False)
        counts: list[dict[str, int]] = told.counts["w"]
        return counts

    def tell(self, order: messages.Order, descriptors: Sequence[int] = ()) -> None:
        send(self.link, messages.written(order), list(descriptors))

    def close(self) -> int:
        self.link.close()
        for one in (self.guest, self.node, self._of_guest, self._of_node):
            one.close()
        return self.process.wait(20)


_START = f"""
import os, sys
os.dup2(int(sys.argv[1]), {LINK})
sys.argv[1:] = []
from netemu.impairment.relay import main
main()
"""


def _file(content: bytes) -> int:
    made = os.memfd_create("trace")
    os.write(made, content)
    return made


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    if made.process.returncode is None:
        assert made.close() == 0


def frames(count: int) -> list[bytes]:
    return [HEADER + n.to_bytes(4, "big") + bytes(60) for n in range(count)]


def arrived(end: socket.socket, seconds: float = 0.3) -> list[bytes]:
    """All that comes until nothing has come for a while."""
    found = []
    while select.select([end], [], [], seconds)[0]:
        found.append(end.recv(4096))
    return found


def test_a_clean_wire_passes_frames_as_they_are_both_ways(wire: Wire) -> None:
    wire.lay()
    for source, sink in ((wire.guest, wire.node), (wire.node, wire.guest)):
        for one in frames(50):
            source.send(one)
            assert sink.recv(4096) == one


def test_the_frames_that_are_lost_are_those_that_the_seed_says(wire: Wire) -> None:
    terms = Terms(loss=0.3)
    wire.lay(from_=terms, seed=5)
    fate, expected = Fate(5, "w/from", terms), []
    got = []
    for one in frames(400):
        wire.guest.send(one)
        if fate.offer(len(one) - 10, 0.0):
            fate.left()
            expected.append(one)
            got.append(wire.node.recv(4096))
    assert got == expected
    assert wire.counts()[1]["lost"] == 400 - len(expected)


def test_a_delay_is_per_direction_and_no_frame_is_early(wire: Wire) -> None:
    wire.lay(from_=Terms(delay=0.05), to=Terms(delay=0.02))
    taken = {}
    for name, source, sink in (("from", wire.guest, wire.node), ("to", wire.node, wire.guest)):
        times = []
        for one in frames(20):
            begun = time.monotonic()
            source.send(one)
            sink.recv(4096)
            times.append(time.monotonic() - begun)
        assert min(times) >= 0.0199 if name == "to" else min(times) >= 0.0499
        taken[name] = sorted(times)[10]
    # How exact it is on a quiet machine, 'netemu bench link' says.
    assert taken["to"] < taken["from"]


def test_terms_change_under_way_and_what_waits_is_flushed_when_it_is_to_be(wire: Wire) -> None:
    wire.lay(from_=Terms(delay=5.0))
    for one in frames(3):
        wire.guest.send(one)
    while wire.counts()[1]["heard"] < 3:
        time.sleep(0.01)
    wire.change(CLEAN, Terms(blackhole=True))
    wire.counts()  # it has come to it
    wire.guest.send(frames(1)[0])
    while wire.counts()[1]["blackholed"] < 1:
        time.sleep(0.01)
    wire.tell(messages.Flush("w"))
    wire.change(CLEAN, CLEAN)
    wire.counts()
    wire.guest.send(HEADER + b"last")
    assert wire.node.recv(4096) == HEADER + b"last"
    assert arrived(wire.node) == []


def test_a_trace_says_when_frames_leave(wire: Wire) -> None:
    wire.lay(from_=Terms(trace="t"), packed=trace.pack(trace.read("40\n80\n")))
    begun = time.monotonic()
    for _ in range(3):
        wire.guest.send(HEADER + bytes(1500))
    for _ in range(3):
        wire.node.recv(4096)
    assert time.monotonic() - begun >= 0.079  # the first opportunity may be at once, no two are


def test_a_wire_that_is_taken_away_is_carried_no_longer_and_may_be_laid_again(wire: Wire) -> None:
    wire.lay(from_=Terms(delay=0.1))
    wire.guest.send(frames(1)[0])
    wire.tell(messages.Take("w"))
    assert arrived(wire.node) == []
    wire.lay()
    wire.guest.send(frames(1)[0])
    assert wire.node.recv(4096) == frames(1)[0]


def test_what_nobody_takes_is_counted_and_blocks_nothing(wire: Wire) -> None:
    wire.lay()
    sent = 0
    while wire.counts()[1]["unsent"] == 0:
        for one in frames(20):
            wire.guest.send(one)
            sent += 1
        assert sent < 100_000
    wire.node.send(frames(1)[0])
    assert wire.guest.recv(4096) == frames(1)[0]


@pytest.mark.parametrize("how", ["its link ends", "SIGTERM"])
def test_it_ends_when_it_is_no_longer_needed(wire: Wire, how: str) -> None:
    wire.lay(to=Terms(delay=60.0))
    wire.node.send(frames(1)[0])
    if how == "SIGTERM":
        wire.process.send_signal(signal.SIGTERM)
        assert wire.process.wait(20) == 0
    assert wire.close() == 0


@pytest.mark.parametrize(
    "order", [["Lay"], ["Lay", "w"], ["Change", "x", [{}, {}], []], ["Take", "x"], [5], ["?"]]
)
def test_an_order_that_it_does_not_know_changes_nothing(wire: Wire, order: list[Any]) -> None:
    wire.lay()
    send(wire.link, order, [])
    wire.guest.send(frames(1)[0])
    assert wire.node.recv(4096) == frames(1)[0]
