"""A delay counts from when the kernel had the frame, however late the relay comes to read it."""

import socket
import struct
import time
from typing import Any, cast

import pytest

from netemu.impairment.relay import Relay, Side, Timer
from netemu.impairment.terms import Terms

READ_LATE, DELAY = 0.03, 0.05
FRAME = bytes(70)


class Wire:
    """Gives one frame, with the time at which it came."""

    def __init__(self, came: float) -> None:
        self._stamp = struct.pack("=qq", int(came), int(came % 1 * 1e9))
        self._given = False

    def recvmsg_into(self, buffers: tuple[bytearray], _: int) -> Any:
        if self._given:
            raise BlockingIOError
        self._given = True
        buffers[0][: len(FRAME)] = FRAME
        return len(FRAME), [(socket.SOL_SOCKET, 35, self._stamp)], 0, None


def due(came: float) -> float:
    nothing = cast(Any, None)
    relay, side = Relay(nothing, Timer(-1), nothing), Side(cast(Any, Wire(came)), nothing)
    side.fate.change(Terms(delay=DELAY), {}, 0.0)
    relay._read(side)
    return relay._waiting[0][0]


def test_a_frame_that_is_read_late_is_not_sent_late() -> None:
    begun = time.monotonic()
    when = due(time.time() - READ_LATE)
    assert begun - 1e-3 < when - DELAY + READ_LATE < time.monotonic() + 1e-3


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_a_clock_that_was_set_delays_nothing(ahead: float) -> None:
    begun = time.monotonic()
    when = due(time.time() + ahead)
    assert begun <= when - DELAY <= time.monotonic()
