"""The carrier, with packets by UDP on the loopback, and a stranger who sends there, too."""

import os
import socket
import threading
from collections.abc import Iterator

import msgspec
import pytest

from hostagent.notify import Notifier
from netemu.impairment.frame import HEADER
from netemu.kernel.descriptor_link import receive, send
from netemu.tunnel.carrier import Carrier
from netemu.tunnel.messages import Peer, Peers
from netemu.tunnel.sealed import Opener, Sealer

SECRET = bytes(32)
HERE, THERE = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
TO_THERE = THERE + HERE + b"\x08\0" + b"to the other machine"
TO_HERE = HERE + THERE + b"\x08\0" + b"from the other machine"
PATIENCE = 20.0


class Stage:
    """`guests` is the tenant network's side, `other` another machine, `stranger` none."""

    def __init__(self) -> None:
        self.link, link = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.guests, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        outer, self.other, self.stranger = (self._udp() for _ in range(3))
        self.address = outer.getsockname()
        self.open = (self.link, link, self.guests, inner, outer, self.other, self.stranger)
        carrier = Carrier(link, outer, inner)
        self.running = threading.Thread(target=carrier.run, args=(Notifier.connect({}),))
        self.running.start()
        assert receive(self.link)[0] == ["Hello"]

    @staticmethod
    def _udp() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("127.0.0.1", 0))
        made.settimeout(PATIENCE)
        return made

    def connect(self, term: str = "b1") -> None:
        peer = Peer(term, *self.other.getsockname())
        send(self.link, msgspec.to_builtins(Peers(SECRET, "a1", [peer])), [])

    def send(self, frame: bytes, header: bytes = bytes(HEADER.size)) -> bytes | None:
        """Have guests send a frame. What the other machine makes of it."""
        self.guests.send(header + frame)
        return Opener(SECRET, "a1").open(self.other.recv(65536))

    def close(self) -> None:
        self.link.close()
        self.running.join(PATIENCE)
        for one in self.open:
            one.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    made.guests.settimeout(PATIENCE)
    yield made
    made.close()
    assert not made.running.is_alive()


def test_frames_are_carried_both_ways(stage: Stage) -> None:
    stage.connect()
    stage.other.sendto(Sealer(SECRET, "b1", 0).seal(TO_HERE), stage.address)
    assert stage.guests.recv(65536) == bytes(HEADER.size) + TO_HERE
    assert stage.send(TO_THERE) == TO_THERE


def test_a_checksum_that_hardware_would_fill_in_is_filled_in(stage: Stage) -> None:
    stage.connect()
    stage.other.sendto(Sealer(SECRET, "b1", 0).seal(TO_HERE), stage.address)
    stage.guests.recv(65536)  # it knows the machine
    told = stage.send(TO_THERE, HEADER.pack(1, 0, 0, 0, 14, 2))
    assert told is not None
    assert told != TO_THERE
    assert told[:16] + told[18:] == TO_THERE[:16] + TO_THERE[18:]


def test_nothing_of_a_stranger_arrives(stage: Stage) -> None:
    """Nor what comes twice, is of an earlier term, or came by another address."""
    stage.connect()
    sealer = Sealer(SECRET, "b1", 0)
    first, last = sealer.seal(TO_HERE), sealer.seal(TO_HERE + b" at last")
    stage.stranger.sendto(first, stage.address)
    for forged in (
        os.urandom(100),
        b"",
        b"\x08\0\0\0\0\0\0\0" + TO_HERE,
        Sealer(os.urandom(32), "b1", 0).seal(TO_HERE),
        Sealer(SECRET, "b0", 0).seal(TO_HERE),
        Sealer(SECRET, "a1", 0).seal(TO_HERE),
        first,
        first,
        last,
    ):
        stage.other.sendto(forged, stage.address)
    heard = [stage.guests.recv(65536)[HEADER.size :] for _ in range(2)]
    assert heard == [TO_HERE, TO_HERE + b" at last"]


def test_a_machine_that_has_come_again_is_another(stage: Stage) -> None:
    stage.connect("b1")
    old, new = Sealer(SECRET, "b1", 1 << 40), Sealer(SECRET, "b2", 0)
    stage.other.sendto(old.seal(TO_HERE), stage.address)
    stage.guests.recv(65536)
    stage.connect("b2")
    stage.link.settimeout(PATIENCE)
    while True:  # orders and packets come by different ways
        stage.other.sendto(new.seal(TO_HERE + b"!"), stage.address)
        stage.guests.settimeout(0.05)
        try:
            assert stage.guests.recv(65536)[HEADER.size :] == TO_HERE + b"!"
            break
        except TimeoutError:
            continue
    stage.guests.settimeout(PATIENCE)
    for packet in (old.seal(TO_HERE), new.seal(TO_HERE + b" at last")):
        stage.other.sendto(packet, stage.address)
    while (heard := stage.guests.recv(65536)[HEADER.size :]) == TO_HERE + b"!":
        pass
    assert heard == TO_HERE + b" at last"
