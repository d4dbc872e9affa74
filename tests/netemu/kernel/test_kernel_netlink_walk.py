"""Walks over netlink's bytes end where the data ends, whatever its lengths say."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from netemu.kernel.netlink_walk import Received, attributes, messages, text


def message(kind: int, number: int, body: bytes) -> bytes:
    head = struct.pack("=IHHII", 16 + len(body), kind, 0, number, 0)
    return head + body + bytes(-len(body) % 4)


def test_messages_and_attributes_come_in_their_order() -> None:
    data = message(16, 1, b"abcd") + message(3, 2, b"xyz")
    assert list(messages(data)) == [Received(16, 0, 1, b"abcd"), Received(3, 0, 2, b"xyz")]
    nested = struct.pack("=HH", 8, 3) + b"p1\0\0" + struct.pack("=HH", 5, 0x8000 | 7) + b"v\0\0\0"
    assert list(attributes(b"head" + nested, 4)) == [(3, b"p1\0\0"), (7, b"v")]
    assert text(b"p1\0\0") == "p1"


@given(st.binary(max_size=200))
def test_any_bytes_come_to_an_end(data: bytes) -> None:
    assert len(list(messages(data))) <= len(data) // 16 + 1
    assert len(list(attributes(data))) <= len(data) // 4 + 1
