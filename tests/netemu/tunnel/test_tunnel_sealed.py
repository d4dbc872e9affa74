"""Packets between machines: what a lab's own machines have sealed is opened, once; nothing else."""

import random

from hypothesis import given
from hypothesis import strategies as st

from netemu.tunnel.sealed import OVERHEAD, Opener, Sealer

SECRET = bytes(range(32))
FRAME = bytes.fromhex("0200000000020200000000010800") + b"from a guest"


def test_a_packet_is_vxlan_with_a_trailer() -> None:
    packet = Sealer(SECRET, "a1", 7).seal(FRAME)
    assert packet[:4] == b"\x08\0\0\0"
    assert packet[7] == 0
    assert packet[8:].startswith(FRAME)
    assert len(packet) == len(FRAME) + OVERHEAD
    assert Opener(SECRET, "a1").open(packet) == FRAME


@given(st.integers(0, len(FRAME) + OVERHEAD - 1), st.integers(0, 7))
def test_a_changed_packet_is_not_opened(at: int, bit: int) -> None:
    packet = bytearray(Sealer(SECRET, "a1", 7).seal(FRAME))
    packet[at] ^= 1 << bit
    assert Opener(SECRET, "a1").open(bytes(packet)) is None


@given(st.binary(max_size=200))
def test_what_a_stranger_makes_up_is_not_opened(packet: bytes) -> None:
    opener = Opener(SECRET, "a1")
    assert opener.open(packet) is None
    assert opener.open(Sealer(bytes(32), "a1", 7).seal(FRAME)) is None


def test_no_machine_and_no_earlier_term_speaks_as_another() -> None:
    packet = Sealer(SECRET, "a1", 7).seal(FRAME)
    assert Opener(SECRET, "b1").open(packet) is None
    assert Opener(SECRET, "a2").open(packet) is None


@given(st.integers(0, 1 << 32), st.permutations(range(64)))
def test_each_is_opened_once_in_any_order(first: int, order: list[int]) -> None:
    sealer, opener = Sealer(SECRET, "a1", first), Opener(SECRET, "a1")
    packets = [sealer.seal(FRAME + bytes([n])) for n in range(64)]
    assert all(opener.open(packets[n]) == FRAME + bytes([n]) for n in order)
    assert not any(opener.open(packet) for packet in packets)


def test_what_is_far_behind_is_refused() -> None:
    sealer, opener = Sealer(SECRET, "a1", 0), Opener(SECRET, "a1")
    packets = [sealer.seal(FRAME) for _ in range(3000)]
    assert opener.open(packets[1500])
    assert opener.open(packets[-1])
    behind = range(len(packets) - 1024, len(packets) - 1)
    assert opener.open(packets[random.Random(1).choice(behind)])
    assert opener.open(packets[len(packets) - 1025]) is None
