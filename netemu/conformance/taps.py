"""Packet sockets on a place's interfaces: send frames, and collect everything that is heard.

This is the part of `netemu.conformance.inside` that handles whole frames.
"""

import os
import select
import socket
import struct
import subprocess
import time
from typing import Final

_ETH_P_ALL: Final = 0x0003
_SOL_PACKET, _ADD_MEMBERSHIP, _PROMISCUOUS = 263, 1, 1
_OUTGOING: Final = 4
_SO_RCVBUFFORCE: Final = 33
_SO_TIMESTAMPNS: Final = 64  # SO_TIMESTAMPNS_NEW: 64 bits on every machine
# A tap has room for what one batch of frames causes at all ports.
_TAP_BYTES: Final = 8 << 20

Heard = list[tuple[str, bool, bytes]]
"""(interface, whether it was going out, frame), in the order of the interfaces' own."""


class Taps:
    """The taps of one place, by their interfaces."""

    def __init__(self) -> None:
        self._taps: dict[str, socket.socket] = {}
        self._ports: dict[str, socket.socket] = {}

    def listen(self, interface: str, protocol: int, promiscuous: bool) -> str:
        """Open a tap on an interface. Returns its MAC.

        With protocol 3 (all) it hears what arrives by the wire, before any guard. With another it
        hears what the interface hands to the stack, behind guard and bridge.
        """
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _TAP_BYTES)
        except PermissionError:  # an ordinary user gets what the machine allows
            tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _TAP_BYTES)
        tap.bind((interface, protocol))
        if promiscuous:
            index = socket.if_nametoindex(interface)
            member = struct.pack("IHH8s", index, _PROMISCUOUS, 0, b"")
            tap.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, member)
        tap.setblocking(False)
        name = interface if protocol == _ETH_P_ALL else f"{interface}/{protocol:04x}"
        self._taps[name] = tap
        return str(tap.getsockname()[4].hex(":"))

    def send(self, interface: str, frames: list[bytes]) -> int:
        """Send frames unchanged. Returns how many the interface took."""
        tap = self._taps[interface]
        sent = 0
        for frame in frames:
            while True:
                try:
                    tap.send(frame)
                    sent += 1
                except BlockingIOError:
                    select.select([], [tap], [], 1.0)
                    continue
                except OSError:  # too short or too long for a frame, or the link is down
                    pass
                break
        return sent

    def flood(self, interface: str, frames: list[bytes], seconds: float) -> int:
        """Send frames in a loop. Returns how many the interface took."""
        end = time.monotonic() + seconds
        sent = 0
        while time.monotonic() < end:
            sent += self.send(interface, frames)
        return sent

    def race(self, interface: str, frames: list[bytes], seconds: float) -> int:
        """Send in a loop while the interface is set up. Returns how many frames it took."""
        with subprocess.Popen(["ip", "link", "set", interface, "up"], env=environment()):
            return self.flood(interface, frames, seconds)

    def take(self, until: bytes, patience: float) -> tuple[bool, Heard]:
        """What every tap has heard, until each that hears everything has heard a frame with `until`
        in it.

        Returns whether each did within `patience` seconds, and the other frames.
        """
        waiting = {name: tap for name, tap in self._taps.items() if "/" not in name}
        narrow = [name for name in self._taps if "/" in name]
        heard: Heard = []
        end = time.monotonic() + patience
        while waiting:
            left = end - time.monotonic()
            if left <= 0:
                break
            ready, _, _ = select.select(list(waiting.values()), [], [], left)
            for interface in [name for name, tap in waiting.items() if tap in ready]:
                if self._drain(interface, until, heard):
                    del waiting[interface]
        for interface in narrow:
            self._drain(interface, b"", heard)
        return not waiting, heard

    def _drain(self, interface: str, until: bytes, heard: Heard) -> bool:
        while True:
            try:
                frame, (_, _, kind, _, _) = self._taps[interface].recvfrom(65536)
            except (BlockingIOError, OSError):
                return False
            if until and until in frame:
                return True
            heard.append((interface, kind == _OUTGOING, frame))

    def heard(self) -> Heard:
        """What every tap has heard up to now."""
        heard: Heard = []
        for interface in self._taps:
            self._drain(interface, b"", heard)
        return heard

    def watch_port(self, interface: str) -> None:
        """Listen on a port's wire, with the time of each frame; `inject` can then be called.

        A guest that boots has a new port of the same name. To hear it from the first frame on, the
        tap listens on all interfaces.
        """
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        tap.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        tap.setblocking(False)
        self._ports[interface] = tap

    def at_port(self, interface: str) -> list[tuple[float, bytes]]:
        """What came by the port's wire since the last call: seconds since the epoch, and frame."""
        heard: list[tuple[float, bytes]] = []
        while True:
            try:
                frame, ancillary, _, sender = self._ports[interface].recvmsg(2048, 64)
            except (BlockingIOError, OSError):
                return heard
            if sender[0] == interface and sender[2] != _OUTGOING:
                seconds, nanoseconds = struct.unpack("=qq", ancillary[0][2])
                heard.append((seconds + nanoseconds / 1e9, frame))

    def inject(self, interface: str, frames: list[bytes]) -> None:
        """Put frames on the port's wire, towards the guest. The port's egress rules apply."""
        for frame in frames:
            self._ports[interface].sendto(frame, (interface, 0))

    def drop(self) -> None:
        """Discard what the taps have heard so far."""
        for interface in self._taps:
            self._drain(interface, b"", [])


def environment() -> dict[str, str]:
    """The environment for programs that are started here."""
    # Where ip and nft are is not in an ordinary user's PATH.
    return {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
