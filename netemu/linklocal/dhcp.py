"""DHCP (RFC 2131) on Ethernet: a strict parser of clients' messages, and a server's answers. Pure.

A port's lease is the address that the node has bound to it: who asks is known by the port, and by
nothing that a message says of itself.
"""

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from netemu.linklocal import addresses

SERVER_PORT: Final = 67
CLIENT_PORT: Final = 68
ETHERTYPE: Final = 0x0800
UDP: Final = 17

# Seconds that a lease is said to last, as EC2's does. The binding lasts as long as the wire does.
LEASE: Final = 3600

_COOKIE: Final = b"\x63\x82\x53\x63"
_BOOT_REQUEST, _BOOT_REPLY = 1, 2
_ETHERNET, _MAC = 1, 6
# Ethernet; IP without options; UDP.
_ETHER: Final = struct.Struct("!6s6sH")
_IP: Final = struct.Struct("!BBHHHBBHII")
_UDP: Final = struct.Struct("!HHHH")
# op, htype, hlen, hops | xid | secs, flags | ciaddr, yiaddr, siaddr, giaddr | chaddr, sname, file
_BOOTP: Final = struct.Struct("!4B4s2H4I16s64s128s")
_HEADERS: Final = _ETHER.size + _IP.size + _UDP.size
SHORTEST: Final = _HEADERS + _BOOTP.size + len(_COOKIE)
# RFC 1542 section 2.1: some clients drop what is shorter than BOOTP's 300 bytes.
_SHORTEST_BODY: Final = 300
_TTL: Final = 1
_ANYBODY: Final = 0xFFFFFFFF


class Kind(IntEnum):
    """The kind of a message: option 53."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class Option(IntEnum):
    """The options that are read or sent."""

    PAD = 0
    MASK = 1
    ROUTER = 3
    HOST_NAME = 12
    NAME_SERVER = 6
    BROADCAST = 28
    REQUESTED = 50
    LEASE_TIME = 51
    KIND = 53
    SERVER = 54
    RENEWAL = 58
    REBINDING = 59
    ROUTES = 121
    WIRE_SERVER = 245
    END = 255


class Message(NamedTuple):
    """What a client says. Addresses are 0 where it gives none; `mac` is the one it says it has."""

    kind: Kind
    transaction: bytes
    mac: bytes
    address: int = 0
    requested: int = 0
    server: int = 0


class Answer(NamedTuple):
    """What a server says: OFFER, ACK or NAK, and the address, which is 0 in a NAK."""

    kind: Kind
    address: int


def parse(frame: bytes) -> Message | None:
    """A client's message in an Ethernet frame; None if it is not a whole one."""
    if len(frame) < SHORTEST:
        return None
    _, _, ethertype = _ETHER.unpack_from(frame)
    version, _, _, _, fragment, _, protocol, _, _, _ = _IP.unpack_from(frame, _ETHER.size)
    source, destination, length, _ = _UDP.unpack_from(frame, _ETHER.size + _IP.size)
    if (ethertype, version, fragment & 0xBFFF, protocol) != (ETHERTYPE, 0x45, 0, UDP):
        return None
    if (source, destination) != (CLIENT_PORT, SERVER_PORT):
        return None
    body = frame[_HEADERS : _HEADERS - _UDP.size + length]
    if len(body) < _BOOTP.size + len(_COOKIE):
        return None
    op, htype, hlen, _, transaction, _, _, held, _, _, relay, mac, _, _ = _BOOTP.unpack_from(body)
    # A message by way of a relay (giaddr) comes from another link.
    if (op, htype, hlen, relay) != (_BOOT_REQUEST, _ETHERNET, _MAC, 0):
        return None
    rest = body[_BOOTP.size :]
    if not rest.startswith(_COOKIE):
        return None
    options = _options(rest[len(_COOKIE) :])
    if options is None or len(told := options.get(Option.KIND, b"")) != 1:
        return None
    try:
        kind = Kind(told[0])
    except ValueError:
        return None
    requested, server = (_address(options, key) for key in (Option.REQUESTED, Option.SERVER))
    return Message(kind, transaction, mac[:_MAC], held, requested, server)


def _options(data: bytes) -> dict[int, bytes] | None:
    """The options, the first of each; None if one is cut off."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != Option.END:
        if data[at] == Option.PAD:
            at += 1
            continue
        if at + 1 >= len(data) or at + 2 + data[at + 1] > len(data):
            return None
        value = data[at + 2 : at + 2 + data[at + 1]]
        found.setdefault(data[at], value)
        at += 2 + len(value)
    return found


def _address(options: dict[int, bytes], key: Option) -> int:
    value = options.get(key, b"")
    return int.from_bytes(value, "big") if len(value) == 4 else 0


def answer(message: Message, leased: int | None, own: int) -> Answer | None:
    """What the server `own` answers, if the port's lease is `leased`; None: nothing.

    RFC 2131 section 4.3.2. A request for another address than the port's is refused: it is another
    guest's, or nobody's.
    """
    if leased is None:
        return None
    match message.kind:
        case Kind.DISCOVER:
            return Answer(Kind.OFFER, leased)
        case Kind.REQUEST if message.server in (0, own):
            wanted = message.requested or message.address
            return Answer(Kind.ACK, leased) if wanted == leased else Answer(Kind.NAK, 0)
        case Kind.INFORM if message.address == leased:
            return Answer(Kind.ACK, 0)
    return None


def frame(
    message: Message,
    said: Answer,
    own: int,
    own_mac: bytes,
    host_name: str,
    *,
    wire_server: int = 0,
) -> bytes:
    """The frame of an answer, from the node to the guest that asked, by its MAC.

    `wire_server` is Azure's, if the node has one.
    """
    options = [(Option.KIND, bytes([said.kind])), (Option.SERVER, own.to_bytes(4, "big"))]
    if said.kind is not Kind.NAK:
        options += [
            (Option.MASK, _long(_ANYBODY << (32 - addresses.PREFIX_LENGTH) & _ANYBODY)),
            (Option.ROUTER, _long(own)),
            (Option.NAME_SERVER, _long(own)),
            (Option.BROADCAST, _long(addresses.BROADCAST)),
            (Option.HOST_NAME, host_name.encode("ascii", "replace")),
        ]
        if wire_server:
            options += [
                # RFC 3442: the router of option 3 does not count beside these.
                (Option.ROUTES, b"\0" + _long(own) + b"\x20" + _long(wire_server) + _long(own)),
                (Option.WIRE_SERVER, _long(wire_server)),
            ]
    if said.address:
        options += [
            (Option.LEASE_TIME, _long(LEASE)),
            (Option.RENEWAL, _long(LEASE // 2)),
            (Option.REBINDING, _long(LEASE * 7 // 8)),
        ]
    body = _BOOTP.pack(
        *(_BOOT_REPLY, _ETHERNET, _MAC, 0, message.transaction, 0, 0),
        *(0, said.address, own, 0, message.mac, b"", b""),
    )
    body += _COOKIE + b"".join(bytes([key, len(value)]) + value for key, value in options)
    body = (body + bytes([Option.END])).ljust(_SHORTEST_BODY, b"\0")
    # UDP's checksum may be left out, over IPv4; Ethernet has its own.
    udp = _UDP.pack(SERVER_PORT, CLIENT_PORT, _UDP.size + len(body), 0)
    length = _IP.size + len(udp) + len(body)
    header = _IP.pack(0x45, 0, length, 0, 0, _TTL, UDP, 0, own, _ANYBODY)
    header = _IP.pack(0x45, 0, length, 0, 0, _TTL, UDP, _checksum(header), own, _ANYBODY)
    return _ETHER.pack(message.mac, own_mac, ETHERTYPE) + header + udp + body


def _long(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _checksum(header: bytes) -> int:
    """The checksum of RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
