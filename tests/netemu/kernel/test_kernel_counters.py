"""Reading links' counters and recording frames: parsed as the kernel and the format have them."""

import io
import socket
import struct
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import PcapNgReader

from netemu.kernel.counters import Counters, LinkCounters
from netemu.kernel.errors import KernelError
from netemu.kernel.recorder import Pcapng


def netlink(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body + bytes(-len(body) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def link(name: str, *numbers: int) -> bytes:
    stats = struct.pack(f"={len(numbers)}Q", *numbers) + bytes(8 * (24 - len(numbers)))
    attributes = attribute(3, name.encode() + b"\0") + attribute(4, b"\0" * 3)
    return netlink(16, bytes(16) + attributes + attribute(23, stats))


def read(*answers: bytes) -> dict[str, Counters]:
    """What is read from a kernel that gives these answers."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    counters = LinkCounters(ours)
    with theirs:

        def answer() -> None:
            asked = theirs.recv(64)
            assert struct.unpack_from("=IHH", asked) == (32, 18, 0x301)
            for one in answers:
                theirs.send(one)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            return counters.read()
        finally:
            thread.join()
            counters.close()


def test_counters_are_read_by_name_over_several_answers() -> None:
    done = netlink(3, bytes(4))
    found = read(link("p1", 1, 2, 3, 4, 5, 6, 7, 8) + link("p2", 9), link("br0", 10) + done)
    assert found["p1"] == Counters(1, 2, 3, 4, 5, 6, 7, 8)
    assert found["p1"].received_frames == 1
    assert found["p1"].sent_bytes == 4
    assert {name: one.received_frames for name, one in found.items()} == {
        "p1": 1,
        "p2": 9,
        "br0": 10,
    }


def test_a_refusal_is_an_error() -> None:
    with pytest.raises(KernelError, match="links"):
        read(netlink(2, struct.pack("=i", -1) + bytes(16)))


def test_this_machines_own_links_are_read_as_it_tells_them() -> None:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    counters = LinkCounters(made)
    try:
        before = counters.read()["lo"]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as speaker:
            speaker.sendto(bytes(500), ("127.0.0.1", 9))
        after = counters.read()
    finally:
        counters.close()
    assert set(after) == {path.name for path in Path("/sys/class/net").iterdir() if path.is_dir()}
    assert after["lo"].sent_bytes - before.sent_bytes >= 500
    assert after["lo"].received_frames > before.received_frames


FRAMES = st.lists(
    st.tuples(
        st.sampled_from(("p1", "p22", "br0")),
        st.binary(min_size=14, max_size=200),
        st.integers(0, 2**62),
        st.booleans(),
    ),
    max_size=20,
)


@given(FRAMES)
def test_a_recording_is_read_as_it_was_seen(frames: list[tuple[str, bytes, int, bool]]) -> None:
    file = io.BytesIO()
    recording = Pcapng(file)
    for name, data, moment, outgoing in frames:
        recording.frame(name, data, moment, outgoing=outgoing)
    file.seek(0)
    told = list(PcapNgReader(file))
    assert [one.sniffed_on for one in told] == [name for name, *_ in frames]
    assert [bytes(one) for one in told] == [data for _, data, *_ in frames]
    assert [one.direction for one in told] == [2 if out else 1 for *_, out in frames]
    for one, (_, _, moment, _) in zip(told, frames, strict=True):
        assert abs(float(one.time) - moment / 1e9) < 1e-6
