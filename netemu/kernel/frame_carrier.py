"""Carries frames between a machine's emulator and its wire, where there is no tap.

Runs in a process of the guest's own beside the emulator, as confined as it is, and ends with it. It
reads nothing of a frame: the port's guard does.
"""

import socket
import struct
import time
from contextlib import suppress
from threading import Thread
from typing import Final, NoReturn

# asm-generic/socket.h: SO_SNDTIMEO
_SEND_TIMEOUT: Final = 21
_LONGEST: Final = 1 << 17
# Microseconds: an emulator that takes no frame for so long misses one.
_PATIENCE: Final = 50_000
# Seconds until a link that is down is read again.
_PAUSE: Final = 0.1


def carry(wire: int, emulator: int) -> NoReturn:
    """Carry frames between these two sockets for as long as the process lives."""
    ends = socket.socket(fileno=wire), socket.socket(fileno=emulator)
    for end in ends:
        end.setblocking(True)
        end.setsockopt(socket.SOL_SOCKET, _SEND_TIMEOUT, struct.pack("=qq", 0, _PATIENCE))
    Thread(target=_carry, args=ends, daemon=True).start()
    _carry(*reversed(ends))


def _carry(source: socket.socket, target: socket.socket) -> NoReturn:
    while True:
        try:
            frame = source.recv(_LONGEST)
        except OSError:  # the link is down
            time.sleep(_PAUSE)
            continue
        with suppress(OSError):  # too long, or not taken in time: it is lost, as on a wire
            target.send(frame)
