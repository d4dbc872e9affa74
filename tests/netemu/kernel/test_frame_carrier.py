"""What carries frames between a machine's emulator and its wire, with two sockets as those."""

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from netemu.kernel.frame_carrier import carry

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """The wire's and the emulator's, with the carrier between them, in a process of its own."""
    (wire, one), (emulator, other) = (
        socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)
    )
    carrier = os.fork()
    if carrier == 0:
        carry(one.detach(), other.detach())
    one.close()
    other.close()
    for end in (wire, emulator):
        end.settimeout(30)
    yield wire, emulator
    os.kill(carrier, signal.SIGKILL)
    os.waitpid(carrier, 0)
    wire.close()
    emulator.close()


def test_frames_pass_both_ways_whole_and_in_order(ends: Ends) -> None:
    for source, target in (ends, ends[::-1]):
        frames = [bytes([number]) * (60 + 200 * number) for number in range(8)]
        for frame in frames:
            source.send(frame)
        assert [target.recv(1 << 17) for _ in frames] == frames


def test_who_takes_nothing_holds_up_its_own_direction_alone(ends: Ends) -> None:
    """A machine that is frozen is sent frames: what it says later is carried all the same."""
    wire, emulator = ends
    wire.setblocking(False)
    for _ in range(2000):
        try:
            wire.send(b"x" * 1000)
        except BlockingIOError:
            break
    wire.settimeout(30)
    emulator.send(b"still here")
    assert wire.recv(100) == b"still here"
