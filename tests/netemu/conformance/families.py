"""Families of frames that no row has: what is close to the catalogue's, and mutations of it.

Each gives frames of the attacker's, told who is who.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import product

from scapy.layers.dhcp6 import DHCP6_Advertise
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import LLC, SNAP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Packet, Raw

from netemu.conformance.labstage import LabStage
from netemu.conformance.roles import BROADCAST, ELSEWHERE, NOBODY, SERVICE
from netemu.conformance.rows import CATALOGUE
from netemu.conformance.rows.arp import REPLY, REQUEST, arp
from netemu.conformance.rows.ethernet import asking, syn
from netemu.conformance.rows.ipv4 import to_node
from netemu.linklocal.ipv6 import of_mac
from tests.netemu.conformance.law import ALL, address, octets

MUTATIONS = 20_000
GROUPS = (
    *(f"01:80:c2:00:00:{last:02x}" for last in range(0x40)),
    *("01:1b:19:00:00:00", "01:00:0c:cc:cc:cc", "01:00:0c:cc:cc:cd", "01:0c:cd:01:00:00"),
    *("01:00:5e:00:00:01", "01:00:5e:7f:a9:fe", "01:00:5e:80:00:01", "01:00:5f:00:00:01"),
    *("33:33:00:00:00:01", "33:33:ff:00:00:01", "09:00:2b:00:00:00", "03:00:00:00:00:01"),
    *("ab:00:00:02:00:00", "cf:00:00:00:00:00", "ff:ff:ff:ff:ff:fe", "fe:ff:ff:ff:ff:ff"),
)
TYPES = (
    *(0x0004, 0x0060, 0x0200, 0x05FF, 0x0600, 0x0801, 0x0805, 0x0842, 0x22F0, 0x22F3, 0x3580),
    *(0x4305, 0x6003, 0x6558, 0x8035, 0x8100, 0x8137, 0x86DD, 0x8808, 0x8809, 0x8847, 0x8848),
    *(0x8863, 0x8864, 0x888E, 0x88A2, 0x88A8, 0x88B5, 0x88BE, 0x88CC, 0x88E5, 0x88E7, 0x88F5),
    *(0x88F7, 0x88FB, 0x8902, 0x8906, 0x8915, 0x894F, 0x9000, 0x9100, 0x9200, 0xAEFE, 0xFFFF),
)


def built(frame: Packet | bytes) -> bytes:
    """The frame's bytes. No family uses lists or ranges, which scapy looks for in a copy first."""
    layer = frame if isinstance(frame, Packet) else None
    while layer:
        layer.explicit = 1
        layer = layer.payload
    return bytes(frame)


def honest(s: LabStage) -> Iterator[tuple[str, Packet]]:
    """What a guest may well say: to be wrapped, tagged and told to others."""
    yield s.bridge, syn(s)
    yield s.bridge, asking(s)
    yield BROADCAST, asking(s)
    yield s.m2, IP(src=s.i1, dst=s.i2) / UDP(sport=s.port, dport=9)
    yield BROADCAST, arp(s, op=REPLY, psrc=s.md, hwdst=s.m2, pdst=s.i2).payload


def tags(s: LabStage) -> Iterator[Packet]:
    for (dst, inner), outer, depth, vlan in product(
        honest(s), (0x8100, 0x88A8, 0x9100, 0x9200), range(1, 6), (0, 1, 4095)
    ):
        frame = Ether(dst=dst, src=s.m1, type=outer)
        for level in range(depth):
            frame /= (Dot1AD if level % 2 else Dot1Q)(vlan=vlan, prio=depth)
        yield frame / inner


def lengths(s: LabStage) -> Iterator[Packet | bytes]:
    for dst, inner in honest(s):
        code = 0x0800 if IP in inner else 0x0806
        for oui, control in product((0, 0xF8, 0xC, 0x80C2), (3, 0x13, 0xF3, 0)):
            snap = LLC(dsap=0xAA, ssap=0xAA, ctrl=control) / SNAP(OUI=oui, code=code)
            yield Dot3(dst=dst, src=s.m1) / snap / inner
            yield Dot3(dst=dst, src=s.m1, len=0x600 - 1) / snap / inner
            yield Ether(dst=dst, src=s.m1) / Dot1Q(vlan=0, type=len(inner) + 8) / snap / inner
        head = octets(dst) + octets(s.m1)
        for length in (*range(0, 0x600, 97), 46, len(inner)):
            yield head + length.to_bytes(2) + bytes(inner)
        for sap in (0x00, 0x06, 0x42, 0x98, 0xE0, 0xF0, 0xFE, 0xFF):
            yield Dot3(dst=dst, src=s.m1) / LLC(dsap=sap, ssap=sap, ctrl=3) / inner


def types(s: LabStage) -> Iterator[bytes]:
    for ethertype, (dst, inner) in product(TYPES, honest(s)):
        head = octets(dst) + octets(s.m1) + ethertype.to_bytes(2)
        yield head + bytes(inner)
        # MPLS, PPPoE, MACsec and HSR have headers of four to ten octets before what they carry.
        for shim in (b"\0\0\1\xff", b"\x11\0\0\1\0\x40\0\x21", bytes(10)):
            yield head + shim + bytes(inner)
    for opcode in (1, 0x101):  # PAUSE, and by priority (IEEE 802.3 annex 31)
        pause = b"\x88\x08" + opcode.to_bytes(2) + b"\xff" * 18 + bytes(26)
        for dst in ("01:80:c2:00:00:01", s.bridge, s.m2, BROADCAST):
            yield octets(dst) + octets(s.m1) + pause


def groups(s: LabStage) -> Iterator[Packet]:
    for dst in GROUPS:
        for inner in (
            asking(s),
            arp(s, psrc="0.0.0.0", pdst="169.254.99.9").payload,
            syn(s),
            IP(src=s.i1, dst=s.md) / ICMP(),
            IP(src=s.i1, dst=s.i2) / UDP(dport=9),
            IP(src=s.i1, dst="224.0.0.251") / UDP(sport=5353, dport=5353),
        ):
            yield Ether(dst=dst, src=s.m1) / inner


def sources(s: LabStage) -> Iterator[Packet]:
    near = [s.m2, s.m3, s.bridge, s.mf, *s.port_macs]
    odd = [BROADCAST, NOBODY, "01:00:5e:00:00:01", "33:33:00:00:00:01", "01:80:c2:00:00:0e"]
    flipped = [f"{int(s.m1[:2], 16) ^ bit:02x}{s.m1[2:]}" for bit in (1, 2, 3)]
    for src, (dst, inner) in product([*near, *odd, *flipped, "02:00:5e:10:00:00"], honest(s)):
        yield Ether(dst=dst, src=src) / inner
        yield Ether(dst=src, src=src) / inner


def arp_fields(s: LabStage) -> Iterator[Packet | bytes]:
    well = bytes(asking(s))
    for dst in (BROADCAST, s.bridge, s.m2):
        head = octets(dst) + octets(s.m1) + b"\x08\x06"
        for at, values in ((0, (0, 1, 6, 15, 24, 27, 256)), (2, (0, 0x0800, 0x0806, 0x86DD)),
                           (6, range(27))):  # fmt: skip
            for value in values:
                yield head + well[:at] + value.to_bytes(2) + well[at + 2 :]
        for hlen, plen in product((0, 1, 6, 8, 16, 20, 255), (0, 4, 5, 16, 255)):
            yield head + well[:4] + bytes((hlen, plen)) + well[6:]
        for length in range(len(well)):
            yield head + well[:length]
        yield head + well + bytes(1400)


def arp_senders(s: LabStage) -> Iterator[Packet]:
    known = (s.i1, s.i2, s.i3, s.if_, s.md, ELSEWHERE, "169.254.0.1", "169.254.255.1",
             "169.254.255.255", "255.255.255.255", "127.0.0.1", "224.0.0.1")  # fmt: skip
    for psrc, pdst, dst, op in product(
        known, (*known, "0.0.0.0"), (BROADCAST, s.bridge, s.m2), (REQUEST, REPLY)
    ):
        yield arp(s, dst=dst, op=op, psrc=psrc, pdst=pdst, hwdst=s.m2)
    for pdst, dst, op in product(
        ("0.0.0.0", "169.254.0.9", "169.254.255.9", ELSEWHERE), (BROADCAST, s.bridge, s.m2),
        (REQUEST, REPLY),
    ):  # fmt: skip
        yield arp(s, dst=dst, op=op, psrc="0.0.0.0", pdst=pdst)
    for hwsrc, psrc, op in product((s.m2, s.bridge, BROADCAST), (s.i1, s.i2), (REQUEST, REPLY)):
        yield arp(s, psrc=psrc, hwsrc=hwsrc, op=op, pdst=s.i1)


def ip_headers(s: LabStage) -> Iterator[bytes]:
    """To the responder, whose answer would tell, and to the peer."""
    for dst, to in ((s.bridge, s.md), (s.m2, s.i2)):
        whole = bytes(Ether(dst=dst, src=s.m1) / syn(s, dst=to))
        for first in range(256):
            if first != 0x45:
                yield whole[:14] + bytes((first,)) + whole[15:] + bytes(40)
        for length in (0, 1, 19, 21, 24, 39, 41, 100, 0x4000, 0xFFFF):
            yield whole[:16] + length.to_bytes(2) + whole[18:]
        for fragmented in (*(1 << bit for bit in range(16)), 0x3FFF, 0x2001, 0x6000, 0x1FFF):
            yield whole[:20] + fragmented.to_bytes(2) + whole[22:]
        for protocol in range(256):
            if protocol != 6:
                yield whole[:23] + bytes((protocol,)) + whole[24:]
        for length in range(14, len(whole)):
            yield whole[:length]


def ip_options(s: LabStage) -> Iterator[Packet]:
    for kind in (0, 1, 7, 0x82, 0x83, 0x44, 0x85, 0x86, 0x88, 0x89, 0x94, 0x97, 0x9E, 0xFF):
        for length in (2, 3, 4, 7, 11, 39, 40, 0, 1, 255):
            body = (bytes((kind, length, 4)) + address(s.i2) * 10)[:40]
            ip = IP(src=s.i1, dst=s.md, ihl=15, options=[])
            for inner in (TCP(sport=s.port, dport=80, flags="S"), ICMP()):
                packet = bytes(ip / inner)
                head = packet[:20] + body.ljust(40, b"\0")
                yield to_node(s) / IP(head + packet[20:])


def ip_addresses(s: LabStage) -> Iterator[Packet]:
    from_ = (s.i2, s.i3, s.if_, s.md, "0.0.0.0", "255.255.255.255", "169.254.255.255", ELSEWHERE,
             "127.0.0.1", "127.169.254.1", "224.0.0.1", "240.0.0.1", "169.254.0.1")  # fmt: skip
    to = (s.md, s.i1, s.i2, s.if_, ELSEWHERE, "127.0.0.1", "0.0.0.0", "255.255.255.255",
          "169.254.255.255", "169.254.0.0", "169.254.169.253", "10.0.0.1")  # fmt: skip
    bodies = (
        TCP(sport=s.port, dport=80, flags="S"),
        TCP(sport=s.port, dport=80, flags="A", ack=9),
        TCP(sport=80, dport=s.port, flags="SA", ack=9),
        UDP(sport=s.port, dport=SERVICE) / Raw(s.token),
        ICMP() / Raw(s.token),
    )
    for src, dst, body in product((s.i1, *from_), to, bodies):
        if (src, dst) != (s.i1, s.md) or TCP not in body or body[TCP].dport != 80:
            yield to_node(s) / IP(src=src, dst=dst) / body
    for src, dst, body in product(from_, (s.i2, s.i3), bodies):
        yield Ether(dst=s.m2, src=s.m1) / IP(src=src, dst=dst) / body
        yield Ether(dst=BROADCAST, src=s.m1) / IP(src=src, dst=dst) / body


def fragments(s: LabStage) -> Iterator[Packet]:
    def piece(at: int, body: bytes, *, more: bool, number: int, dst: str) -> Packet:
        head = IP(src=s.i1, dst=dst, id=number, proto=6, frag=at, flags="MF" if more else 0)
        mac = s.bridge if dst == s.md else s.m2
        return Ether(dst=mac, src=s.m1) / head / Raw(body)

    segment = bytes(TCP(sport=s.port, dport=80, flags="S")) + bytes(60)
    for number, (dst, size) in enumerate(product((s.md, s.i2), (8, 16, 24, 40))):
        starts = range(0, len(segment), size)
        for order in (starts, reversed(starts)):
            for at in order:
                more = at + size < len(segment)
                yield piece(at // 8, segment[at : at + size], more=more, number=number, dst=dst)
        for overlap in (1, 2):  # what RFC 5722 forbids IPv6, and teardrop did
            yield piece(0, segment[:48], more=True, number=100 + number, dst=dst)
            yield piece(overlap, segment[:24], more=False, number=100 + number, dst=dst)
    for at in (1, 8189, 8191):
        yield piece(at, segment, more=False, number=at, dst=s.md)
    for one in fragment(IP(src=s.i1, dst=s.md) / ICMP() / Raw(bytes(4000)), 1400):
        yield to_node(s) / one


def tcp_segments(s: LabStage) -> Iterator[Packet]:
    """To ports that nobody offers, and as others; what is to port 80 the law lets in."""
    for flags, port in product(range(512), (81, 0, 79, 8080)):
        yield to_node(s) / IP(src=s.i1, dst=s.md) / TCP(sport=s.port, dport=port, flags=flags)
    for flags, src in product(range(256), (s.i2, s.md)):
        segment = TCP(sport=s.port, dport=80, flags=flags, urgptr=flags, reserved=flags % 8)
        yield to_node(s) / IP(src=src, dst=s.md) / segment / b"GET /by-attacker HTTP/1.0\r\n\r\n"


def tcp_to_responder(s: LabStage) -> Iterator[Packet]:
    """What comes in, and must harm nobody: every flag, odd headers, options, data on a SYN."""
    ip = IP(src=s.i1, dst=s.md)
    request = Raw(b"GET /by-attacker HTTP/1.0\r\n\r\n")
    for flags in range(512):
        yield to_node(s) / ip / TCP(sport=s.port, dport=80, flags=flags, seq=flags, ack=flags)
        yield to_node(s) / ip / TCP(sport=s.port + 1, dport=80, flags=flags, urgptr=9) / request
    for offset, sum_ in product(range(16), (None, 0, 0xFFFF)):
        yield to_node(s) / ip / TCP(sport=s.port, dport=80, flags="S", dataofs=offset, chksum=sum_)
    for options in ([("MSS", 1)], [("MSS", 0)], [("WScale", 255)], [("SAckOK", b"")],
                    [(34, b"")], [(34, b"12345678")], [(19, bytes(16))], [(30, bytes(10))],
                    [("Timestamp", (0, 0))], [(253, b"\xf9\x89")], [(1, b"")] * 9):  # fmt: skip
        yield to_node(s) / ip / TCP(sport=s.port, dport=80, flags="S", options=options) / request
    for port in (0, 80, 65535):
        yield to_node(s) / ip / TCP(sport=port, dport=80, flags="S")


def other_transports(s: LabStage) -> Iterator[Packet]:
    for kind in range(256):
        body = ICMP(type=kind, code=kind % 16) / Raw(bytes(IP(src=s.i2, dst=s.md) / TCP())[:28])
        yield to_node(s) / IP(src=s.i1, dst=s.md) / body
        yield to_node(s) / IP(src=s.i2, dst=s.md) / body
    ports = (0, 7, 9, 19, 53, 67, 68, 69, 80, 111, 123, 137, 161, 443, 1900, 4789, 5353, 11211)
    for port, src in product(ports, (s.i1, s.i2, "0.0.0.0")):
        yield to_node(s) / IP(src=src, dst=s.md) / UDP(sport=port, dport=port) / Raw(s.token)
        yield to_node(s) / IP(src=src, dst=s.md) / UDP(sport=s.port, dport=port, len=port) / b"x"
    for protocol, src in product((33, 132, 136, 47, 50, 51, 4, 41, 108), (s.i1, s.i2)):
        init = s.port.to_bytes(2) + b"\0\x50" + bytes(8) + b"\1\0\0\x14" + bytes(16)
        yield to_node(s) / IP(src=src, dst=s.md, proto=protocol) / Raw(init + s.token)


def steering(s: LabStage) -> Iterator[Packet]:
    """To a peer and to all: routers, queriers, servers, and errors of what is not theirs."""
    quotes = [
        bytes(IP(src=s.i2, dst=s.md, ihl=5) / TCP(sport=40000, dport=80))[:28],
        bytes(IP(src=s.i2, dst=s.md) / TCP(sport=40000, dport=80)) + bytes(500),
        bytes(IP(src=s.md, dst=s.i2) / TCP(sport=80, dport=40000)),
    ]
    for dst, mac in (
        (s.i2, s.m2),
        ("255.255.255.255", BROADCAST),
        ("224.0.0.1", "01:00:5e:00:00:01"),
    ):
        ether = Ether(dst=mac, src=s.m1)
        for kind, code, quote in product((3, 4, 5, 9, 10, 11, 12), range(16), quotes):
            yield ether / IP(src=s.i1, dst=dst) / ICMP(type=kind, code=code, gw=s.i1) / Raw(quote)
        for sport, dport in ((67, 68), (68, 67), (67, 67), (s.port, 68), (67, s.port), (68, 68)):
            yield ether / IP(src=s.i1, dst=dst) / UDP(sport=sport, dport=dport) / Raw(bytes(300))
        for kind in range(0x10, 0x40):
            yield ether / IP(src=s.i1, dst=dst, proto=2, ttl=1) / Raw(bytes((kind, 1)) + bytes(10))


def errors(s: LabStage) -> Iterator[Packet]:
    """To a peer, about what it has with others (RFC 792): whole, cut short, and in fragments."""
    between = [(s.i2, s.i3), (s.i2, s.md), (s.i3, s.i2), (s.md, s.i2), (s.i2, s.i1), (s.i1, s.i3)]
    for (src, dst), kind, code in product(between, (3, 4, 11, 12), (0, 1, 2, 3, 4, 13)):
        for inner in (UDP(sport=5001, dport=5002), ICMP(), TCP(sport=40000, dport=80)):
            quote = bytes(IP(src=src, dst=dst) / inner)
            error = ICMP(type=kind, code=code, nexthopmtu=600)
            yield Ether(dst=s.m2, src=s.m1) / IP(src=s.i1, dst=s.i2) / error / Raw(quote)
            yield Ether(dst=s.m2, src=s.m1) / IP(src=s.i1, dst=s.i2) / error / Raw(quote[:18])
        quote = bytes(IP(src=src, dst=dst) / UDP(sport=5001, dport=5002))
        whole = IP(src=s.i1, dst=s.i2, id=code) / ICMP(type=kind, code=code) / Raw(quote)
        for size in (8, 16, 24, 32):
            for piece in fragment(whole, size):
                yield Ether(dst=s.m2, src=s.m1) / piece


def ipv6(s: LabStage) -> Iterator[Packet]:
    own = of_mac(s.m1)
    macs = (
        "33:33:00:00:00:01",
        "33:33:00:00:00:02",
        "33:33:00:00:00:16",
        s.bridge,
        s.m2,
        BROADCAST,
    )
    bodies = (
        ICMPv6ND_RA(), ICMPv6ND_RS(), ICMPv6ND_NS(tgt=of_mac(s.bridge)),
        ICMPv6ND_NA(tgt=of_mac(s.m2), R=1, S=1, O=1), ICMPv6ND_Redirect(), ICMPv6EchoRequest(),
        ICMPv6MLReport(), ICMPv6MLReport2(), UDP(sport=547, dport=546) / DHCP6_Advertise(),
        TCP(sport=s.port, dport=80, flags="S"), UDP(dport=SERVICE),
    )  # fmt: skip
    extensions: tuple[Callable[[], Packet] | None, ...] = (
        None, IPv6ExtHdrHopByHop, IPv6ExtHdrDestOpt, IPv6ExtHdrRouting, IPv6ExtHdrFragment,
    )  # fmt: skip
    targets = ("ff02::1", of_mac(s.bridge), of_mac(s.m2), f"::ffff:{s.md}", "::1")
    for mac, body, extension, dst, src in product(
        macs, bodies, extensions, targets, (own, "::", of_mac(s.m2))
    ):
        head = Ether(dst=mac, src=s.m1) / IPv6(src=src, dst=dst, hlim=255)
        yield head / body if extension is None else head / extension() / body


def sizes(s: LabStage) -> Iterator[bytes]:
    """Runts, and frames as long as the wire takes and longer."""
    for dst in (s.bridge, s.m2, BROADCAST):
        head = octets(dst) + octets(s.m1)
        for length in (0, 1, 13, 28, 45, 46, 1486, 1490, 1500, 1504, 1600, 8986, 65000):
            yield head + b"\x88\xb5" + bytes(length)
            yield head + length.to_bytes(2) + bytes(min(length, 1500))
    for length in (1480, 1481, 8000):
        yield bytes(to_node(s) / IP(src=s.i2, dst=s.md) / Raw(bytes(length)))


def many_sources(s: LabStage) -> Iterator[bytes]:
    choose = random.Random(28)
    for dst, inner in honest(s):
        body = (b"\x08\0" if IP in inner else b"\x08\x06") + bytes(inner)
        for _ in range(300):
            yield octets(dst) + b"\x02" + choose.randbytes(5) + body


def many_senders(s: LabStage) -> Iterator[bytes]:
    choose = random.Random(16)
    asked, segment = bytes(asking(s)), bytes(IP(src=s.i1, dst=s.md) / UDP(dport=9))
    for _ in range(700):
        sender = b"\xa9\xfe" + bytes((choose.randrange(1, 255), choose.randrange(256)))
        head = octets(s.bridge) + octets(s.m1)
        if sender != address(s.i1):
            yield head + b"\x08\x06" + asked[:14] + sender + asked[18:]
            yield head + b"\x08\x00" + segment[:12] + sender + segment[16:]


FAMILIES: dict[str, Callable[[LabStage], Iterable[Packet | bytes]]] = {
    one.__name__: one
    for one in (
        *(tags, lengths, types, groups, sources, arp_fields, arp_senders, ip_headers, ip_options),
        *(ip_addresses, fragments, tcp_segments, tcp_to_responder, other_transports, steering),
        *(errors, ipv6, sizes, many_sources, many_senders),
    )
}


def mutations(s: LabStage) -> Iterator[bytes]:
    """The catalogue's recipes and honest frames, by chance made into something else."""
    choose = random.Random(20)
    recipes = [row.recipe for _, row in CATALOGUE if row.recipe and row.id not in ("22", "46")]
    base = [bytes(packet) for recipe in recipes for packet in recipe(s)]
    base += [bytes(Ether(dst=dst, src=s.m1) / inner) for dst, inner in honest(s)] * 60
    macs = [octets(one) for one in (s.m1, s.m2, s.m3, s.bridge)]
    texts = (s.i1, s.i2, s.i3, s.md, "169.254.255.255")
    known = [*macs, ALL, *map(address, texts)]
    for _ in range(MUTATIONS):
        yield mutated(choose.choice(base), choose, known)


def mutated(frame: bytes, choose: random.Random, known: list[bytes]) -> bytes:
    made = bytearray(frame)
    for _ in range(choose.choice((1, 1, 1, 2, 3, 6))):
        match choose.randrange(6):
            case 0:
                made[choose.randrange(min(len(made), 60))] = choose.randrange(256)
            case 1:
                made[choose.randrange(min(len(made), 54))] ^= 1 << choose.randrange(8)
            case 2:
                del made[choose.randrange(14, len(made) + 1) :]
            case 3:
                made += choose.randbytes(choose.randrange(1, 60))
            case 4:
                word, at = choose.choice(known), choose.choice((0, 6, 22, 26, 28, 30, 32, 38))
                made[at : at + len(word)] = word
            case _:
                made[12:14] = choose.choice(TYPES).to_bytes(2)
    return bytes(made)
