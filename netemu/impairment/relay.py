"""The relay: carries the frames of impaired wires between their two ends, as their terms say.

A process of its own in the sandbox, started by the supervisor while any wire is impaired; it
imports, then gives up every privilege. It makes no socket and opens no file: what it needs comes by
its link (descriptor LINK), a message (`relay_messages`) and descriptors at a time. It decides
nothing: `fate` says what happens to a frame, and the supervisor when terms change. When a relay has
ended, the next one says hello, and is told everything again.
"""

import argparse
import ctypes
import gc
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import lru_cache
from heapq import heapify, heappop, heappush
from typing import Final, NoReturn

from hostagent import confinement, privileges
from hostagent.notify import Notifier
from hostagent.scheduling import be_prompt
from netemu.impairment import frame as frames_of
from netemu.impairment import relay_messages as messages
from netemu.impairment import trace
from netemu.impairment.fate import Fate
from netemu.impairment.plan import DIRECTIONS
from netemu.kernel.descriptor_link import close_all, receive, send

LINK: Final = 3
# Frames read from a socket, and sent in all, before the loop turns to others.
_READ, _SENT = 64, 256
# Seconds: a frame that is due so soon is sent now, for no timer is more exact.
_SLACK: Final = 20e-6
# The longest that the kernel hands over in one piece is 64 KiB and headers.
_LONGEST: Final = 1 << 17
# Wires whose counts go into one message.
_COUNTED: Final = 50
# Closing a packet socket waits for the kernel's readers, some 13 ms: side by side it is one wait,
# and no frame of another wire waits with it.
_CLOSERS: Final = 32
_SOL_PACKET, _PACKET_AUXDATA, _PACKET_STATISTICS = 263, 8, 6
# struct tpacket_auxdata: status, lengths and offsets, the tag and its protocol.
_AUXDATA: Final = struct.Struct("=IIIHHHH")
_VLAN_VALID, _VLAN_PROTOCOL_VALID, _8021Q = 0x10, 0x40, 0x8100
# When a frame came, in seconds and nanoseconds since 1970: see `_waited`.
_SO_TIMESTAMPNS: Final = 35
_TIMESPEC: Final = struct.Struct("=qq")
_ANCILLARY: Final = socket.CMSG_SPACE(_AUXDATA.size) + socket.CMSG_SPACE(_TIMESPEC.size)
# A frame cannot have waited for longer: somebody has set the clock.
_LATE_AT_MOST: Final = 1.0
_CLOCK_MONOTONIC, _TFD_ABSTIME, _TFD_FLAGS = 1, 1, 0o2000000 | 0o4000
_PR_SET_TIMERSLACK: Final = 29
_libc = ctypes.CDLL(None, use_errno=True)
_HEADER: Final = frames_of.HEADER.size
_Waiting = tuple[float, int, "Side", Fate, int, bytes]


class Side:
    """One direction of a wire: where frames come from, what happens to them, where they go."""

    __slots__ = ("came", "fate", "missed", "out", "socket", "unsent")

    def __init__(self, source: socket.socket, out: socket.socket) -> None:
        self.socket = source
        self.out = out
        self.fate = Fate(0, "")
        self.came = 0.0  # when the last frame did
        self.unsent = 0  # the link was down, or had no room
        self.missed = 0  # the kernel had no room for them

    def counts(self) -> dict[str, int]:
        """The counts so far. The kernel resets its own when it is asked."""
        try:
            told = self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
            self.missed += struct.unpack("=II", told)[1]
        except OSError:  # its link is gone
            pass
        return {**asdict(self.fate.counts), "missed": self.missed, "unsent": self.unsent}


class Timer:
    """A timer of the kernel's, exact to microseconds where epoll's own timeout has milliseconds."""

    def __init__(self, descriptor: int) -> None:
        self.fd = descriptor
        self._at = 0.0

    @classmethod
    def open(cls) -> "Timer":
        """Make one. Raises OSError."""
        made = _libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_FLAGS)
        if made < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        return cls(made)

    def set(self, at: float) -> None:
        """Have it go off at this time, in seconds; 0: never."""
        if at != self._at:
            self._at = at
            seconds = int(at)
            when = struct.pack("=qqqq", 0, 0, seconds, int((at - seconds) * 1e9))
            _libc.timerfd_settime(self.fd, _TFD_ABSTIME, when, None)

    def clear(self) -> None:
        """It has gone off."""
        self._at = 0.0
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            pass


class Relay:
    """All impaired wires of a lab."""

    def __init__(self, link: socket.socket, timer: Timer, epoll: select.epoll) -> None:
        self._link = link
        self._wires: dict[str, tuple[Side, Side]] = {}
        self._sides: dict[int, Side] = {}
        self._waiting: list[_Waiting] = []
        self._number = 0
        self._buffer = bytearray(_LONGEST)
        self._view = memoryview(self._buffer)
        self._timer = timer
        self._epoll = epoll
        self._closers = ThreadPoolExecutor(_CLOSERS)
        self._ended = False

    def close(self) -> None:
        self._close(list(self._wires))
        self._closers.shutdown()

    def run(self, notifier: Notifier) -> None:
        """Carry frames until the link ends."""
        self._epoll.register(self._link, select.EPOLLIN)
        self._epoll.register(self._timer.fd, select.EPOLLIN)
        self._say(messages.Hello())
        notifier.ready("relay")
        alive, interval = time.monotonic(), notifier.interval
        while not self._ended:
            for descriptor, _ in self._epoll.poll(interval):
                if descriptor == self._timer.fd:
                    self._timer.clear()
                elif descriptor == self._link.fileno():
                    self._take_orders()
                elif descriptor in self._sides:
                    self._read(self._sides[descriptor])
            self._send_what_is_due()
            if interval is not None and time.monotonic() > alive + interval / 2:
                alive = time.monotonic()
                notifier.alive()

    # Frames.

    def _read(self, side: Side) -> None:
        source, view, fate = side.socket, self._view, side.fate
        for _ in range(_READ):
            try:
                length, told, _, _ = source.recvmsg_into((self._buffer,), _ANCILLARY)
            except OSError:  # none is left; or the link has just gone down
                return
            frame = bytes(view[:length])
            now = came = time.monotonic()
            for level, _, beside in told:
                if level == socket.SOL_SOCKET:
                    came = now - _waited(beside)
                    continue
                status, _, _, _, _, tag, protocol = _AUXDATA.unpack_from(beside)
                if status & _VLAN_VALID:
                    known = protocol if status & _VLAN_PROTOCOL_VALID else _8021Q
                    frame = frames_of.with_tag(frame, known, tag)
            side.came = max(side.came, came)
            for one in frames_of.segments(frame) if frame[1] else (frame,):
                for due, flip, room in fate.offer(len(one) - _HEADER, side.came):
                    whole = one if flip < 0 else frames_of.flipped(one, flip)
                    self._number += 1
                    heappush(self._waiting, (due, self._number, side, fate, room, whole))

    def _send_what_is_due(self) -> None:
        waiting = self._waiting
        for _ in range(_SENT):
            if not waiting or waiting[0][0] > time.monotonic() + _SLACK:
                break
            _, _, side, fate, room, frame = heappop(waiting)
            fate.left(room)
            try:
                side.out.send(frame)
            except OSError:
                side.unsent += 1
        self._timer.set(waiting[0][0] if waiting else 0.0)

    # Orders.

    def _take_orders(self) -> None:
        try:
            order, descriptors, lost = receive(self._link)
        except ConnectionError:
            order, descriptors, lost = [], [], False
        try:
            if not order:
                self._ended = True
            elif not lost:
                self._obey(messages.read(order, messages.Order), descriptors)
        finally:
            close_all(descriptors)

    def _obey(self, order: messages.Order | None, descriptors: list[int]) -> None:
        match order:
            case messages.Lay(wire) if len(descriptors) == len(DIRECTIONS):
                self._close([wire])
                self._lay(wire, [os.dup(one) for one in descriptors])
                self._say(messages.Laid(wire))
            case messages.Begin(wire, seed, terms, names) if wire in self._wires:
                for side, direction in zip(self._wires[wire], DIRECTIONS, strict=True):
                    side.fate = Fate(seed, f"{wire}/{direction}")
                self._change(wire, terms, _traces(names, descriptors))
            case messages.Change(wire, terms, names) if wire in self._wires:
                self._change(wire, terms, _traces(names, descriptors))
            case messages.Flush(wire) if wire in self._wires:
                self._flush(wire)
            case messages.Take(wire):
                self._close([wire])
            case messages.Heard(question):
                self._say(messages.Counted(question, {}, more=False))
            case messages.Count(question):
                self._tell_counts(question)

    def _say(self, message: messages.Said) -> None:
        send(self._link, messages.written(message), [])

    def _lay(self, wire: str, descriptors: Sequence[int]) -> None:
        guest, node = (socket.socket(fileno=one) for one in descriptors)
        self._wires[wire] = Side(node, guest), Side(guest, node)
        for side in self._wires[wire]:
            side.socket.setblocking(False)
            side.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._sides[side.socket.fileno()] = side
            self._epoll.register(side.socket, select.EPOLLIN)

    def _change(self, wire: str, terms: messages.Both, traces: dict[str, Sequence[int]]) -> None:
        for side, given in zip(self._wires[wire], terms, strict=True):
            side.fate.change(given, traces, time.monotonic())

    def _flush(self, wire: str) -> None:
        sides = self._wires[wire]
        self._waiting = [one for one in self._waiting if one[2] not in sides]
        heapify(self._waiting)
        for side in sides:
            side.fate.flush()

    def _close(self, wires: Sequence[str]) -> None:
        closing = []
        for wire in wires:
            if wire not in self._wires:
                continue
            self._flush(wire)
            for side in self._wires.pop(wire):
                del self._sides[side.socket.fileno()]
                self._epoll.unregister(side.socket)
                closing.append(side.socket)
        for one in closing:
            self._closers.submit(one.close)

    def _tell_counts(self, question: int) -> None:
        wires = list(self._wires)
        for start in range(0, len(wires), _COUNTED) or (0,):
            some = {
                wire: [side.counts() for side in self._wires[wire]]
                for wire in wires[start : start + _COUNTED]
            }
            more = start + _COUNTED < len(wires)
            try:
                self._say(messages.Counted(question, some, more))
            except BlockingIOError:  # it is asked again
                return


def _waited(stamp: bytes) -> float:
    """How long ago the kernel had a frame, in seconds.

    Its delay counts from then: how late the relay comes to read it is not added.
    """
    seconds, rest = _TIMESPEC.unpack(stamp)
    waited = time.time() - seconds - rest / 1e9
    return waited if 0 < waited < _LATE_AT_MOST else 0.0


def _traces(names: Sequence[str], files: Sequence[int]) -> dict[str, Sequence[int]]:
    packed = (os.pread(file, os.fstat(file).st_size, 0) for file in files)
    return {name: _unpacked(one) for name, one in zip(names, packed, strict=True)}


# Many wires of a lab may play one trace: it is kept once.
_unpacked = lru_cache(maxsize=32)(trace.unpack)


class _EndError(Exception):
    """SIGTERM has come."""


def _end(*_: object) -> NoReturn:
    raise _EndError


def main() -> None:
    """Run until the supervisor's end of the link is closed, or SIGTERM comes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--user", type=int)
    arguments = parser.parse_args()
    notifier = Notifier.connect(os.environ)
    link = socket.socket(fileno=LINK)
    relay = Relay(link, Timer.open(), select.epoll())
    be_prompt()
    privileges.give_up(arguments.user)
    confinement.confine(None)
    _libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    gc.freeze()
    gc.disable()  # nothing here has circles; a collection delays every frame
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        relay.run(notifier)
    except _EndError:
        pass
    finally:
        relay.close()


if __name__ == "__main__":
    main()
