"""What is fuzzed: a function for each parser that hears strangers. An exception is a finding.

`netns-scripts/fuzz` runs them under coverage guidance for as long as asked; the tests run a corpus
and mutations of it for a moment.
"""

import asyncio
import random
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from hostagent.channel.frames import Decoder, FrameError
from hostagent.channel.messages import MessageError, Snapshot, decode, encode
from hostagent.channel.requests import Placed
from hostagent.dialects import Dialects, Options
from hostagent.faults import Fault
from hostagent.http import BadRequest, RequestReader
from hostagent.model import Event, EventSource, EventType, Guest
from hostagent.responder.answers import BY_MARK, Answers, Pending, Reply
from hostagent.responder.knowledge import Knowledge
from netemu.conformance.agent import spec
from netemu.errors import BadInput
from netemu.etcd.http import Connection
from netemu.impairment import trace
from netemu.impairment.frame import HEADER, segments
from netemu.linklocal import addresses, arp, dhcp, dns
from netemu.topology import parse
from netemu.wire import lab_file, store_address
from netemu.wire.framing import Reader, framed
from netemu.wire.order import Order

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


def lease(data: bytes) -> None:
    """A frame is no client's message, or has an answer for its sender that no server would take for
    a client's. A port without a lease has none.
    """
    heard = dhcp.parse(data)
    if heard is None:
        return
    own = addresses.METADATA
    assert dhcp.answer(heard, None, own) is None
    said = dhcp.answer(heard, _LEASED, own)
    if said is not None:
        assert said.address in (0, _LEASED)
        frame = dhcp.frame(heard, said, own, bytes(6), "web1")
        assert frame.startswith(heard.mac)
        assert dhcp.parse(frame) is None


def name(data: bytes) -> None:
    """A datagram is no query, or has an answer that no server would take for a query."""
    query = dns.parse(data)
    if query is not None:
        told = dns.answer(query, {"a.b": bytes(4)})
        assert told.startswith(data[:2])
        assert dns.parse(told) is None


def agent_file(data: bytes) -> None:
    """A file of an agent under test is one, or bad input."""
    try:
        spec.read(data.decode(), "fuzz", Path("/"))
    except (BadInput, UnicodeDecodeError):
        pass


def answers(data: bytes) -> None:
    """Every request of a guest has an answer, whatever is asked in which cloud's words."""
    reader, minds = RequestReader(), _minds()
    try:
        reader.feed(data)
        while (request := reader.next()) is not None:
            for mind in minds:
                reply = mind.reply(1, request)
                assert isinstance(reply, (Reply, Pending)), reply
    except BadRequest:
        pass


@cache
def _minds() -> Sequence[Answers]:
    """A responder for a guest that has all there is, and one whose requests meet a fault."""
    return [_mind(()), _mind((Fault(id="0000000a", at=0.0, garble=True, expired=True),))]


def _mind(faults: tuple[Fault, ...]) -> Answers:
    properties = {
        "attributes.enable-guest-attributes": "true",
        "user_data": "#!/bin/sh",
        "tags.a": "b",
        "zone": "eu-1",
    }
    guest = Guest(name="web1", port=1, availability_set="s", properties=properties)
    placed = Placed(guest=guest, incarnation=1, faults=faults)
    event = Event(
        id="6f0a13a3-dc0d-4bbe-ab24-df710a3917e6",
        type=EventType.FREEZE,
        source=EventSource.PLATFORM,
        description="x",
        guests=("web1",),
        created=1.0,
        not_before=2e9,
    )
    knowledge = Knowledge()
    told = Snapshot(sequence=1, node="n1", clock_offset=0.0, guests=(placed,), events=(event,))
    knowledge.apply(told, 0.0)
    return Answers(
        knowledge,
        Dialects(Options(ec2_secret=bytes(32), azure_rate=0)),
        look_up=BY_MARK[1],
        allowed_hosts=frozenset({"169.254.169.254", "metadata.google.internal"}),
        wall=lambda: 1e9,
        clock=lambda: 0.0,
    )


def burst(data: bytes) -> None:
    """A burst that a guest made up is cut into frames that are no longer than it, or into none."""
    if len(data) >= HEADER.size:
        for one in segments(data):
            assert len(one) <= len(data)


def etcd(data: bytes) -> None:
    """What a server sends is an answer, or the connection has failed."""

    async def ask(connection: Connection) -> None:
        await connection.ask("/v3/kv/range", {})

    async def listen(connection: Connection) -> None:
        async for _ in connection.listen("/v3/watch", {}):
            pass

    for act in (ask, listen):
        _loop().run_until_complete(_hearing(data, act))


async def _hearing(data: bytes, act: Callable[[Connection], Awaitable[None]]) -> None:
    reader = asyncio.StreamReader(limit=1 << 16)
    reader.feed_data(data)
    reader.feed_eof()
    try:
        await act(Connection(reader, _Nowhere()))
    except OSError:
        pass


class _Nowhere(asyncio.StreamWriter):
    """Takes what is sent."""

    def __init__(self) -> None:
        pass

    def __del__(self) -> None:
        pass

    def write(self, data: object) -> None:
        pass

    async def drain(self) -> None:
        pass


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def packed_trace(data: bytes) -> None:
    """What is told to be a packed trace is one, or is refused; so is a file."""
    for read in (trace.unpack, lambda octets: trace.read(octets.decode())):
        try:
            times = read(data)
            assert list(trace.unpack(trace.pack(times))) == list(times)
        except ValueError:  # UnicodeDecodeError is one
            pass


def order(data: bytes) -> None:
    """What comes from another process of ours is a message or is refused."""
    try:
        for message in Reader[Order](Order).feed(data):
            assert list(Reader[Order](Order).feed(framed(message))) == [message]
    except FrameError:
        pass


def store(data: bytes) -> None:
    """The address of a store is one, or bad input."""
    try:
        store_address.parse(data.decode(), machine="m1")
    except (BadInput, UnicodeDecodeError):
        pass


TARGETS: Final[Mapping[str, Target]] = {
    "http": http,
    "frames": frames,
    "lab": lab,
    "arp": arp_frame,
    "dhcp": lease,
    "dns": name,
    "agent": agent_file,
    "answers": answers,
    "burst": burst,
    "etcd": etcd,
    "trace": packed_trace,
    "order": order,
    "store": store,
}

_LEASED: Final = addresses.from_text("169.254.7.7")
_METADATA = b"%s HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\n\r\n"


def _of_client(options: bytes, held: bytes = bytes(4)) -> bytes:
    """A DHCP client's frame: Ethernet, IP, UDP and BOOTP's fixed part before its options."""
    mac = b"\2\0\0\0\0\1"
    bootp = b"\1\1\6\0\0\0\0\7\0\0\0\0" + held + bytes(12) + mac + bytes(10 + 64 + 128)
    body = bootp + b"\x63\x82\x53\x63" + options
    udp = struct.pack("!4H", 68, 67, 8 + len(body), 0)
    header = b"\x45\0" + struct.pack("!H", 28 + len(body)) + b"\0\0\0\0\1\x11\0\0" + held
    return b"\xff" * 6 + mac + b"\x08\0" + header + b"\xff" * 4 + udp + body


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
    "dhcp": (
        _of_client(b"\x35\x01\x01\xff"),
        _of_client(b"\x35\x01\x03\x32\x04\xa9\xfe\x07\x07\x36\x04\xa9\xfe\xa9\xfe\xff"),
        _of_client(b"\0\x0c\x04web1\x35\x01\x03", held=b"\xa9\xfe\x07\x07"),
        _of_client(b"\x35\x01\x08\xff", held=b"\xa9\xfe\x07\x07"),
    ),
    "dns": (
        bytes.fromhex("000701000001000000000000") + b"\1a\1b\0\0\1\0\1",
        bytes.fromhex("000701000001000000000001") + b"\3www\6debian\3org\0\0\x1c\0\1",
        bytes.fromhex("000701000001000000000000") + b"\xc0\x0c\0\1\0\1",
    ),
    "agent": (
        b"agent: {run: [a], cloud: azure}\ndrained: exit\nreturned: none\npoll: 1s\n",
        b'agent: {run: ["a"], cloud: !!bool foo}\ndrained: {file: x}\n',
        b"a: &a [1, 1]\nagent: {run: [*a, *a], cloud: gce}\nneeds: {clouds: [gce]}\n",
    ),
    "answers": (
        _METADATA % b"GET /metadata/scheduledevents?api-version=2020-07-01",
        _METADATA % b"GET /metadata/instance?api-version=2021-02-01&format=text",
        _METADATA % b"GET /metadata/v1/InstanceInfo",
        b"POST /metadata/scheduledevents?api-version=2020-07-01 HTTP/1.1\r\nMetadata: true\r\n"
        b"Host: 169.254.169.254\r\nContent-Length: 26\r\n\r\n"
        b'{"StartRequests":[{"a":1}]}',
        b"PUT /latest/api/token HTTP/1.1\r\nHost: 169.254.169.254\r\n"
        b"X-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n",
        b"PUT /computeMetadata/v1/instance/guest-attributes/a/b HTTP/1.1\r\n"
        b"Host: 169.254.169.254\r\nMetadata-Flavor: Google\r\nContent-Length: 3\r\n\r\nabc",
        b"GET /computeMetadata/v1/?recursive=true&wait_for_change=true&timeout_sec=1 HTTP/1.1\r\n"
        b"Host: 169.254.169.254\r\nMetadata-Flavor: Google\r\n\r\n",
        _METADATA % b"GET /openstack/latest/meta_data.json",
        b"POST /openstack/latest/password HTTP/1.1\r\nHost: 169.254.169.254\r\n"
        b"Content-Length: 3\r\n\r\nabc",
        _METADATA % b"GET /latest/meta-data/iam/security-credentials/",
        _METADATA % b"GET /metadata/attested/document?api-version=2020-09-01&nonce=1",
        _METADATA % b"GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=a",
    ),
    "burst": (
        HEADER.pack(1, 1, 54, 100, 34, 16)
        + bytes(12)
        + b"\x08\x00\x45"
        + bytes(15)
        + bytes(12)
        + b"\x50"
        + bytes(200),
        HEADER.pack(1, 5, 42, 100, 34, 6) + bytes(12) + b"\x08\x00\x45" + bytes(300),
        HEADER.pack(1, 1, 58, 100, 38, 16)
        + bytes(12)
        + b"\x81\x00\x00\x01\x08\x00\x45"
        + bytes(99),
    ),
    "etcd": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{}\n\n\r\n0\r\n\r\n",
        b"HTTP/1.1 503 x\r\nContent-Length: 4\r\n\r\n[[[[",
    ),
    "trace": (b"1\n2\n2\n\n9\n", trace.pack([1, 2, 3]), b"x\n"),
    "order": (
        framed(Order(parse("nodes: {n: {guests: [a]}}", source="x"), 1.0, "/x")),
        b"\x00\x00\x00\x01\xc0",
    ),
    "store": (b"etcd://a:1,[::1]:2", b"etcd://a", b"http://a"),
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
