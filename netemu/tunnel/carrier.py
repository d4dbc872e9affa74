"""Carries frames between the tenant network here and those of the lab's other machines.

A process of its own in the sandbox, started by the supervisor where a lab on several machines has
tenants; it imports, then gives up every privilege. Its sockets are made for it: LINK to the
supervisor; OUTER, UDP in the machine's own network namespace; INNER, on its end of a pair whose
other end is a port of the tenant network. It decides nothing about frames: the port's guard says
what may leave for other machines, and what may come from them.
"""

import argparse
import gc
import os
import select
import socket
import struct
import time
from typing import Final, NamedTuple

import msgspec

from hostagent import confinement, privileges
from hostagent.notify import Notifier
from netemu.impairment import frame as frames_of
from netemu.kernel.descriptor_link import receive, send
from netemu.tunnel import messages
from netemu.tunnel.sealed import Opener, Sealer
from netemu.tunnel.switch import Switch

LINK: Final = 3
OUTER: Final = 4
INNER: Final = 5
# Frames read from a socket before the loop turns to the other.
_READ: Final = 64
_LONGEST: Final = 1 << 17
_NO_OFFLOAD: Final = bytes(frames_of.HEADER.size)
# struct tpacket_auxdata: a frame with a VLAN's tag is not a tenant's.
_AUXDATA: Final = struct.Struct("=IIIHHHH")
_ANCILLARY: Final = socket.CMSG_SPACE(_AUXDATA.size)
_VLAN_VALID: Final = 0x10


class _Machine(NamedTuple):
    peer: messages.Peer
    opener: Opener


class Carrier:
    """Both ends, and the machines to carry frames to."""

    def __init__(self, link: socket.socket, outer: socket.socket, inner: socket.socket) -> None:
        self._link, self._outer, self._inner = link, outer, inner
        self._sealer: Sealer | None = None
        self._machines: dict[tuple[str, int], _Machine] = {}
        self._switch: Switch[messages.Peer] = Switch()
        self._buffer = bytearray(_LONGEST)
        self._known: messages.Peers | None = None

    def run(self, notifier: Notifier) -> None:
        """Carry frames until the link ends."""
        send(self._link, msgspec.to_builtins(messages.Hello()), [])
        ready, interval = select.epoll(), notifier.interval
        with ready:
            for one in (self._link, self._outer, self._inner):
                one.setblocking(False)
                ready.register(one, select.EPOLLIN)
            notifier.ready("carrier")
            alive = time.monotonic()
            while True:
                for descriptor, _ in ready.poll(interval):
                    if descriptor == self._outer.fileno():
                        self._from_machines()
                    elif descriptor == self._inner.fileno():
                        self._from_guests()
                    elif not self._take_orders():
                        return
                if interval is not None and time.monotonic() > alive + interval / 2:
                    alive = time.monotonic()
                    notifier.alive()

    def _from_guests(self) -> None:
        for _ in range(_READ):
            try:
                length, told, _, _ = self._inner.recvmsg_into((self._buffer,), _ANCILLARY)
            except OSError:  # none is left; or the link has just gone down
                return
            tagged = any(_AUXDATA.unpack_from(one)[0] & _VLAN_VALID for *_, one in told)
            if tagged or self._sealer is None:
                continue
            for one in frames_of.segments(bytes(self._buffer[:length])):
                self._send(frames_of.complete(one))

    def _send(self, frame: bytes) -> None:
        assert self._sealer is not None
        packet = self._sealer.seal(frame)
        for peer in self._switch.machines(frame):
            try:
                self._outer.sendto(packet, (peer.host, peer.port))
            except OSError:  # no way there now, or no room: a network loses frames
                continue

    def _from_machines(self) -> None:
        for _ in range(_READ):
            try:
                packet, address = self._outer.recvfrom(_LONGEST)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error about what was sent before
                continue
            machine = self._machines.get(address[:2])
            frame = None if machine is None else machine.opener.open(packet)
            if machine is None or frame is None:
                continue
            self._switch.heard(frame, machine.peer)
            try:
                self._inner.send(_NO_OFFLOAD + frame)
            except OSError:  # its link is down, or has no room
                continue

    def _take_orders(self) -> bool:
        """Take what the supervisor says. Returns False once it says nothing any more."""
        try:
            told, _, _ = receive(self._link)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        if told:
            self._become(msgspec.convert(told, messages.Peers))
        return bool(told)

    def _become(self, order: messages.Peers) -> None:
        known = self._known
        if known is None or (known.secret, known.term) != (order.secret, order.term):
            self._sealer = Sealer(order.secret, order.term, time.time_ns())
        kept = {one.peer: one for one in self._machines.values()}
        if known is None or known.secret != order.secret:
            kept.clear()
        self._machines = {
            (one.host, one.port): kept.get(one) or _Machine(one, Opener(order.secret, one.term))
            for one in order.peers
        }
        self._switch.become(order.peers)
        self._known = order


def main() -> None:
    """Run until the supervisor's end of the link is closed. SIGTERM ends it at once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--user", type=int)
    arguments = parser.parse_args()
    notifier = Notifier.connect(os.environ)
    carrier = Carrier(*(socket.socket(fileno=one) for one in (LINK, OUTER, INNER)))
    privileges.give_up(arguments.user)
    confinement.confine(None)
    gc.freeze()
    carrier.run(notifier)


if __name__ == "__main__":
    main()
