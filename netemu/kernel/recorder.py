"""Writes every frame that passes at any link of a namespace into one pcapng file.

A process of its own: `main` runs in the namespace until SIGINT, and writes to standard output. Each
frame has its link's name, its direction and the kernel's time; a frame that crosses a bridge is
there once for each link that it passes. Imports nothing but the standard library.
"""

import signal
import socket
import struct
import sys
from typing import IO, Final

# linux/if_ether.h, linux/if_packet.h, asm-generic/socket.h
_ETH_P_ALL: Final = 3
_PACKET_OUTGOING: Final = 4
_SO_TIMESTAMPNS: Final = 35
_TIMESPEC: Final = struct.Struct("@qq")
# The kernel hands over at most 64 KiB and headers at once.
_LONGEST: Final = 1 << 17
# Seconds after which it notices that it is to end.
_NOTICE: Final = 0.05
LISTENS: Final = b"listening\n"

# draft-ietf-opsawg-pcapng: the blocks, and the options that they have here.
_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_IF_NAME, _IF_TSRESOL, _EPB_FLAGS = 2, 9, 2
_INBOUND, _OUTBOUND = 1, 2
_ETHERNET: Final = 1
_NANOSECONDS: Final = bytes([9])


class Pcapng:
    """A pcapng file, written frame by frame; interfaces are described when they are first seen."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._interfaces: dict[str, int] = {}
        self._write(_SECTION, struct.pack("=IHHq", 0x1A2B3C4D, 1, 0, -1))

    def frame(self, link: str, data: bytes, nanoseconds: int, *, outgoing: bool) -> None:
        """Add a frame seen at `link`, at so many nanoseconds since the epoch."""
        if link not in self._interfaces:
            self._interfaces[link] = len(self._interfaces)
            options = _option(_IF_NAME, link.encode()) + _option(_IF_TSRESOL, _NANOSECONDS)
            self._write(_INTERFACE, struct.pack("=HHI", _ETHERNET, 0, 0) + options + bytes(4))
        head = struct.pack(
            "=IIIII",
            self._interfaces[link],
            nanoseconds >> 32,
            nanoseconds & 0xFFFFFFFF,
            len(data),
            len(data),
        )
        way = struct.pack("=I", _OUTBOUND if outgoing else _INBOUND)
        self._write(_PACKET, head + _padded(data) + _option(_EPB_FLAGS, way) + bytes(4))

    def _write(self, kind: int, body: bytes) -> None:
        length = struct.pack("=I", 12 + len(body))
        self._file.write(struct.pack("=I", kind) + length + body + length)
        self._file.flush()


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("=HH", code, len(value)) + _padded(value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def main() -> None:
    """Record what passes in this namespace, on standard output, until SIGINT."""
    ending = False

    def end(*_: object) -> None:
        nonlocal ending
        ending = True

    signal.signal(signal.SIGINT, end)
    file = Pcapng(sys.stdout.buffer)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as tap:
        tap.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        tap.settimeout(_NOTICE)
        sys.stderr.buffer.write(LISTENS)
        sys.stderr.buffer.flush()
        while True:
            try:
                data, told, _, (link, _, way, *_) = tap.recvmsg(_LONGEST, 64)
            except TimeoutError:
                if ending:
                    return
                continue
            seconds, rest = _TIMESPEC.unpack(told[0][2])
            outgoing = way == _PACKET_OUTGOING
            file.frame(link, data, seconds * 10**9 + rest, outgoing=outgoing)
