"""What is fuzzed: a function for each parser that hears strangers. An exception is a finding.

`netns-scripts/fuzz` runs them under coverage guidance for as long as asked; the tests run a corpus
and mutations of it for a moment.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from hostagent.channel.frames import Decoder, FrameError
from hostagent.channel.messages import MessageError, decode, encode
from hostagent.http import BadRequest, RequestReader
from netemu.errors import BadInput
from netemu.linklocal import arp
from netemu.wire import lab_file

Target = Callable[[bytes], None]


def http(data: bytes) -> None:
    """The same requests come out whether the bytes arrive at once or one by one."""
    whole, pieces = _requests([data]), _requests([data[at : at + 1] for at in range(len(data))])
    assert whole == pieces, (data, whole, pieces)


def _requests(parts: Sequence[bytes]) -> list[object]:
    reader = RequestReader()
    found: list[object] = []
    try:
        for part in parts:
            reader.feed(part)
            while (request := reader.next()) is not None:
                found.append((request.method, request.path, request.query, request.body))
    except BadRequest as error:
        found.append(error.status)
    return found


def frames(data: bytes) -> None:
    """A frame is refused or is a message, and a message survives being sent again."""
    decoder = Decoder()
    try:
        for obj in decoder.feed(data):
            message = decode(obj)
            (again,) = Decoder().feed(encode(message))
            assert decode(again) == message
    except (FrameError, MessageError):
        pass


def lab(data: bytes) -> None:
    """A lab file is a lab or bad input."""
    try:
        lab_file.parse(data.decode(), source="fuzz")
    except (BadInput, UnicodeDecodeError):
        pass


def arp_frame(data: bytes) -> None:
    """A frame is no ARP, or says what it says; its octets are as long as they have to be."""
    heard = arp.parse(data)
    if heard is not None:
        assert len(heard.sender_mac) == 6


TARGETS: Final[Mapping[str, Target]] = {
    "http": http,
    "frames": frames,
    "lab": lab,
    "arp": arp_frame,
}

_HEAD = b"Host: 169.254.169.254\r\nMetadata: true\r\n"
CORPUS: Final[Mapping[str, Sequence[bytes]]] = {
    "http": (
        b"GET /metadata/instance?api-version=2021-02-01 HTTP/1.1\r\n" + _HEAD + b"\r\n",
        b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.0\r\n\r\n",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"GET http://169.254.169.254/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
    ),
    "frames": (
        b"\x00\x00\x00\x05\x81\xa1t\xa3now",
        b"\x00\x00\x00\x01\xc0",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x08\x81\xa4more\x81\xa1t",
    ),
    "lab": (
        b"nodes: {n1: {guests: [a, {name: b, last_address: 169.254.7.7}]}}\n",
        b"name: x\npolicy: same-node\nproperties: {zone: 010}\nnodes: {n: {guests: 3}}\n",
        b"a: &a [1, 1]\nnodes: {n: {guests: [*a, *a]}}\n",
        b'x: !!int ""\n',
        b"nodes: {n: {guests: [{name: a, run: [x, y]}], tenant: true}}\n",
    ),
    "arp": (
        bytes.fromhex("ffffffffffff020000000001080600010800060400010200000000010000000000000000"),
        bytes.fromhex("ffffffffffff0200000000018100000108060001"),
    ),
}


def mutated(data: bytes, draw: random.Random) -> bytes:
    """The data with some bytes changed, doubled, taken out, or put in from elsewhere in it."""
    octets = bytearray(data)
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(octets) + 1)
        match draw.randrange(5):
            case 0 if at < len(octets):
                octets[at] = draw.randrange(256)
            case 1 if at < len(octets):
                octets[at] ^= 1 << draw.randrange(8)
            case 2:
                del octets[at : at + draw.randint(1, 8)]
            case 3:
                start = draw.randrange(len(octets) + 1)
                octets[at:at] = octets[start : start + draw.randint(1, 16)]
            case _:
                octets.insert(at, draw.choice((0, 9, 10, 13, 32, 58, 127, 255)))
    return bytes(octets)
