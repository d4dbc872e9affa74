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


def ethernet(ip: bytes, tags: bytes = b"") -> bytes:
    return MACS + tags + b"\x08\x00" + ip


def burst_of(
    payload: bytes, *, tcp: bool = True, flags: int = 0, size: int = 100, tags: bytes = b""
) -> bytes:
    """As Linux makes it: lengths and the pseudo-header's sum are those of the whole."""
    head = (
        struct.pack("!HHIIBBHHH", 1, 2, 0xFFFF_FFF0, 7, 5 << 4, flags, 9, 0, 0)
        if tcp
        else struct.pack("!HHHH", 1, 2, 8 + len(payload), 0)
    )
    total = 20 + len(head) + len(payload)
    kind = 6 if tcp else 17
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, total, 0xFFFF, 0x4000, 64, kind, 1, b"aaaa", b"bbbb")
    start = 34 + len(tags)
    whole = header(1, 1 if tcp else 5, 0, size, start, 16 if tcp else 6)
    return whole + ethernet(ip + head + payload, tags)


@given(
    payload=st.binary(min_size=1, max_size=700), tcp=st.booleans(), size=st.integers(48, 300),
    tags=st.sampled_from([b"", b"\x81\x00\x00\x05", b"\x88\xa8\x00\x00\x81\x00\x00\x05"]),
)  # fmt: skip
def test_a_burst_is_cut_into_whole_frames(
    payload: bytes, tcp: bool, size: int, tags: bytes
) -> None:
    cut = frame.segments(burst_of(payload, tcp=tcp, flags=0x99, size=size, tags=tags))
    ip, said, number = 14 + len(tags), b"", 0xFFFF_FFF0
    for n, one in enumerate(cut):
        last = n == len(cut) - 1
        # Flipping a bit twice only fills in the checksum.
        whole = frame.flipped(one, 0)
        body = bytearray(whole[10:])
        body[0] ^= 1
        assert checksum_is_right(bytes(body[ip : ip + 20]), 0)
        assert int.from_bytes(body[ip + 2 : ip + 4], "big") == len(body) - ip
        assert int.from_bytes(body[ip + 4 : ip + 6], "big") == (0xFFFF + n) & 0xFFFF
        layer4 = bytes(body[ip + 20 :])
        pseudo = sum(struct.unpack("!4H", b"aaaabbbb")) + (6 if tcp else 17) + len(layer4)
        assert checksum_is_right(layer4 + b"\0" * (len(layer4) % 2), pseudo)
        if tcp:
            assert int.from_bytes(layer4[4:8], "big") == number
            # FIN and PSH on the last, CWR on the first, ACK on all.
            assert layer4[13] == (0x99 if last else 0x90) & (0xFF if n == 0 else 0x7F)
        mine = layer4[20 if tcp else 8 :]
        number = (number + len(mine)) & 0xFFFF_FFFF
        assert len(mine) == size or last
        said += mine
    assert said == payload


@given(
    whole=st.binary(min_size=24, max_size=120),
    said=st.tuples(
        st.integers(0, 1), st.sampled_from([0, 1, 5, 0x81, 3]), st.integers(0, 99),
        st.integers(0, 200), st.just(34) | st.integers(0, 0xFFFF), st.integers(0, 0xFFFF),
    ),
    ip=st.booleans(), data=st.data(),
)  # fmt: skip
def test_whatever_a_guests_root_makes_up_harms_nobody(
    whole: bytes, said: tuple[int, ...], ip: bool, data: st.DataObject
) -> None:
    """A relay that ended by an error would take the wires of all guests along."""
    body = MACS + b"\x08\x00\x45" + whole if ip else whole
    made = struct.pack("=BBHHHH", *said) + body
    for one in frame.segments(made):
        frame.with_tag(one, 0x8100, 7)
        frame.flipped(one, data.draw(st.integers(0, (len(one) - 10) * 8 - 1)))


@given(st.binary(min_size=60, max_size=3000), st.integers(1, 47))
def test_a_burst_of_tiny_segments_is_cut_into_nothing(payload: bytes, size: int) -> None:
    assert frame.segments(burst_of(payload, size=size)) == []


@given(st.binary(min_size=30, max_size=200), st.integers(0, 255), st.integers(0, 300))
def test_what_is_no_burst_that_it_knows_stays_as_it_is(body: bytes, kind: int, start: int) -> None:
    whole = header(1, kind, 0, 50, start, 16) + body
    assert frame.segments(whole) == [whole]


@given(st.binary(min_size=60, max_size=200), st.data())
def test_one_bit_is_wrong_and_no_other(body: bytes, data: st.DataObject) -> None:
    bit = data.draw(st.integers(0, len(body) * 8 - 1))
    changed = frame.flipped(PLAIN + body, bit)
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
    back = bytearray(changed[10:])
    back[bit // 8] ^= 1 << bit % 8
    padded = bytes(back[34:]) + b"\0" * (len(segment) % 2)
    assert checksum_is_right(padded, pseudo)
    assert changed[0] == 0  # it is said to be filled in
