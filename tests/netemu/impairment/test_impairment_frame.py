"""Frames with their virtio header: tags, bursts, and one wrong bit."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from netemu.impairment import frame

MACS = bytes(range(12))
PLAIN = bytes(10)


def header(flags: int = 0, burst: int = 0, head: int = 0, segment: int = 0, start: int = 0,
           offset: int = 0) -> bytes:  # fmt: skip
    return struct.pack("=BBHHHH", flags, burst, head, segment, start, offset)


def checksum_is_right(data: bytes, pseudo: int) -> bool:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data)) + pseudo
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


def test_a_tag_goes_back_to_its_place_and_the_checksum_moves_on() -> None:
    whole = header(1, 0, 0, 0, 34, 16) + MACS + b"\x08\x00" + b"rest"
    tagged = frame.with_tag(whole, 0x8100, 5)
    assert tagged == header(1, 0, 0, 0, 38, 16) + MACS + b"\x81\x00\x00\x05\x08\x00" + b"rest"
    assert frame.with_tag(PLAIN + MACS + b"\x08\x06", 0x88A8, 0)[:10] == PLAIN


def test_a_burst_counts_as_its_segments_each_with_a_head() -> None:
    assert frame.size(PLAIN + bytes(100)) == (100, 1)
    burst = header(1, 1, 54, 1000) + bytes(54 + 2500)
    assert frame.size(burst) == (54 + 2500 + 2 * 54, 3)


@given(st.binary(min_size=60, max_size=200), st.data())
def test_one_bit_is_wrong_and_no_other(body: bytes, data: st.DataObject) -> None:
    bit = data.draw(st.integers(0, len(body) * 8 - 1))
    changed = frame.flipped(PLAIN + body, bit)
    assert changed is not None
    assert changed[:10] == PLAIN
    difference = int.from_bytes(changed[10:], "big") ^ int.from_bytes(body, "big")
    assert difference.bit_count() == 1


@given(payload=st.binary(max_size=99), pseudo=st.integers(0, 0xFFFF), data=st.data())
def test_a_checksum_that_was_not_filled_in_is_and_then_a_bit_is_wrong(
    payload: bytes, pseudo: int, data: st.DataObject
) -> None:
    """Else the receiver's kernel would take what is corrupt for whole: it trusts the sender's."""
    segment = bytes(16) + pseudo.to_bytes(2, "big") + bytes(2) + payload
    whole = header(1, 0, 0, 0, 34, 16) + bytes(34) + segment
    bit = data.draw(st.integers(34 * 8, (34 + len(segment)) * 8 - 1))
    changed = frame.flipped(whole, bit)
    assert changed is not None
    back = bytearray(changed[10:])
    back[bit // 8] ^= 1 << bit % 8
    padded = bytes(back[34:]) + b"\0" * (len(segment) % 2)
    assert checksum_is_right(padded, pseudo)
    assert changed[0] == 0  # it is said to be filled in


def test_a_corrupt_burst_is_dropped() -> None:
    assert frame.flipped(header(1, 1, 54, 1000) + bytes(3000), 800) is None
