"""IPv4: other senders, other destinations, fragments, options and protocols."""

from collections.abc import Iterator
from typing import Final

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import (
    ICMP,
    IP,
    TCP,
    UDP,
    IPOption_LSRR,
    IPOption_NOP,
    IPOption_Router_Alert,
    IPOption_RR,
    IPOption_SSRR,
    IPOption_Timestamp,
    fragment,
)
from scapy.layers.l2 import GRE, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from netemu.conformance.labstage import LabStage
from netemu.conformance.roles import BROADCAST, ELSEWHERE, SERVICE
from netemu.conformance.row import ALLOWED, DROPPED, Observed, Row, dropped
from netemu.conformance.rows.ethernet import answered_syn, syn
from netemu.conformance.stage import Stage
from netemu.kernel.guard import BROADCAST_BURST, BROADCASTS_PER_SECOND
from netemu.linklocal.addresses import BROADCAST_TEXT, NETWORK_TEXT
from netemu.topology import Policy

_PROTOCOL_TCP: Final = 6
# Under same-node a guest may send these to a peer. Nobody may send IGMP.
_ORDINARY: Final = frozenset({1, 2, 6, 17})
# Long enough to tell the limit's rate from its burst.
_FLOOD_SECONDS: Final = 0.3


def to_node(s: Stage) -> Ether:
    """The Ethernet header from the attacker to its node."""
    return Ether(dst=s.bridge, src=s.m1)


def answered_from_node(stage: Stage, frame: Packet) -> bool:
    """Whether this is IP from the node to the attacker, other than HTTP."""
    if IP not in frame or frame.src != stage.bridge or frame[IP].dst != stage.i1:
        return False
    return not (TCP in frame and frame[TCP].sport == 80 and frame[TCP].dport != stage.port)


def _ask_as_the_victim(s: Stage) -> Iterator[Packet]:
    for source in (s.i2, s.i3, s.if_):
        yield to_node(s) / syn(s, src=source)
    request = b"GET /metadata/v1/InstanceInfo HTTP/1.0\r\n\r\n"
    head = IP(src=s.i2, dst=s.md)
    yield to_node(s) / head / TCP(sport=s.port, dport=80, flags="PA", seq=1001, ack=1) / request


def _reflect(s: Stage) -> Iterator[Packet]:
    head = IP(src=s.i2, dst=s.md)
    yield to_node(s) / head / ICMP() / Raw(s.token)
    yield to_node(s) / head / ICMP(type=13)
    yield to_node(s) / head / UDP(sport=s.port, dport=33434) / Raw(s.token)
    yield to_node(s) / head / TCP(sport=s.port, dport=81, flags="S")
    yield to_node(s) / head / TCP(sport=s.port, dport=80, flags="S")
    yield to_node(s) / head / TCP(sport=s.port, dport=80, flags="A", ack=7)
    yield to_node(s) / IP(src=s.i2, dst=s.md, proto=132) / Raw(s.token)


def _reflected(stage: Stage, frame: Packet) -> bool:
    return (
        IP in frame
        and frame[IP].src == stage.md
        and frame[IP].dst == stage.i2
        and (ICMP in frame or (TCP in frame and frame[TCP].dport == stage.port))
    )


def _other_node_by_address(s: Stage) -> Iterator[Packet]:
    for body in (ICMP() / Raw(s.token), UDP(sport=s.port, dport=9) / Raw(s.token)):
        yield to_node(s) / IP(src=s.i1, dst=s.if_) / body
    yield to_node(s) / syn(s, dst=s.if_)


def _hairpin(s: Stage) -> Iterator[Packet]:
    for body in (ICMP() / Raw(s.token), UDP(sport=s.port, dport=9) / Raw(s.token)):
        yield to_node(s) / IP(src=s.i1, dst=s.i2) / body
        yield to_node(s) / IP(src=s.i1, dst=s.i3) / body


def _services_of_the_node(s: Stage) -> Iterator[Packet]:
    for port in (SERVICE, 80, 22, 53):
        yield to_node(s) / IP(src=s.i1, dst=ELSEWHERE) / TCP(sport=s.port, dport=port, flags="S")
        yield to_node(s) / IP(src=s.i1, dst=ELSEWHERE) / UDP(sport=s.port, dport=port)
    yield to_node(s) / IP(src=s.i1, dst=ELSEWHERE) / ICMP()
    for address in (BROADCAST_TEXT, "255.255.255.255", NETWORK_TEXT):
        yield to_node(s) / IP(src=s.i1, dst=address) / UDP(sport=s.port, dport=SERVICE)


# Well-known ports, and those of services that nodes often run.
_SWEPT: Final = (*range(1, 80), *range(81, 1025), 2375, 3128, 5000, 6443, 8000, 8080, 8775, 9090)


def _other_ports(s: Stage) -> Iterator[Packet]:
    for port in _SWEPT:
        yield to_node(s) / IP(src=s.i1, dst=s.md) / TCP(sport=s.port, dport=port, flags="S")
        yield to_node(s) / IP(src=s.i1, dst=s.md) / UDP(sport=s.port, dport=port)
    yield to_node(s) / IP(src=s.i1, dst=s.md) / UDP(sport=s.port, dport=80)


def _silent(stage: Stage) -> Observed:
    seen = stage.watch()
    return Observed("silent" if seen.verdict == DROPPED else "heard", seen.evidence, seen.frames)


def _loopback_from_the_wire(s: Stage) -> Iterator[Packet]:
    for dst in ("127.0.0.1", "127.0.0.53", "127.169.254.1", "0.0.0.0"):
        for port in (SERVICE, 80):
            yield to_node(s) / IP(src=s.i1, dst=dst) / TCP(sport=s.port, dport=port, flags="S")
        yield to_node(s) / IP(src=s.i1, dst=dst) / UDP(sport=s.port, dport=SERVICE)
    yield to_node(s) / IP(src="127.0.0.1", dst="127.0.0.1") / TCP(dport=SERVICE, flags="S")


def _martians(s: Stage) -> Iterator[Packet]:
    for src in ("0.0.0.0", "127.0.0.1", "224.0.0.1", s.md, "255.255.255.255", "240.0.0.1"):
        yield to_node(s) / syn(s, src=src)
        yield to_node(s) / IP(src=src, dst=s.md) / ICMP() / Raw(s.token)
        yield Ether(dst=BROADCAST, src=s.m1) / IP(src=src, dst=s.md) / UDP(dport=9)


def _fragments(s: Stage) -> Iterator[Packet]:
    whole = IP(src=s.i1, dst=s.md, id=49) / TCP(sport=s.port, dport=80, flags="S") / Raw(b"x" * 100)
    for size in (24, 48):
        for piece in fragment(whole, size):
            yield to_node(s) / piece
    for dst, mac in ((s.i2, s.m2), (s.md, s.bridge)):
        large = IP(src=s.i1, dst=dst, id=50) / ICMP() / Raw(b"x" * 200)
        for piece in reversed(fragment(large, 64)):
            yield Ether(dst=mac, src=s.m1) / piece


def _odd_fragments(s: Stage) -> Iterator[Packet]:
    def piece(at: int, *, more: bool, body: bytes, flags: str = "") -> Packet:
        mf = ("MF+" if more else "") + flags
        head = IP(src=s.i1, dst=s.md, id=51, proto=6, frag=at, flags=mf.strip("+") or 0)
        return to_node(s) / head / Raw(body)

    tcp = bytes(syn(s))[20:]  # with the checksum of the whole packet
    yield piece(0, more=True, body=tcp[:8])
    yield piece(1, more=False, body=tcp[8:])
    yield piece(0, more=True, body=tcp)
    yield piece(1, more=False, body=tcp[8:])
    yield piece(1, more=True, body=tcp)
    yield piece(8191, more=False, body=tcp)
    yield piece(0, more=True, body=b"")
    yield piece(0, more=False, body=tcp, flags="evil+MF")
    yield piece(0, more=True, body=tcp, flags="DF")


def _options(s: Stage) -> Iterator[Packet]:
    for options in (
        [IPOption_RR(routers=["0.0.0.0"] * 4, length=19)],
        [IPOption_LSRR(routers=[s.i2])],
        [IPOption_SSRR(routers=[s.i2])],
        [IPOption_Timestamp()],
        [IPOption_Router_Alert()],
        [IPOption_NOP()] * 4,
        [IPOption_NOP()] * 40,
    ):
        head = {"src": s.i1, "dst": s.md, "options": options}
        yield to_node(s) / IP(**head) / ICMP() / Raw(s.token)
        yield to_node(s) / IP(**head) / TCP(sport=s.port, dport=80, flags="S")
    for ihl in (0, 4, 6, 15):
        yield to_node(s) / IP(src=s.i1, dst=s.md, ihl=ihl) / TCP(sport=s.port, dport=80)
    for version in (0, 5, 6, 15):
        yield to_node(s) / IP(src=s.i1, dst=s.md, version=version) / TCP(dport=80)


def _time_to_live(stage: LabStage) -> Observed:
    """Ask with TTL 1 and 255: both are answered, with an answer that does not outlive the link."""
    frames = [stage.signed(to_node(stage) / syn(stage, ttl=ttl)) for ttl in (1, 255)]
    stage.sent += frames
    seen: list[int] = []
    back = []
    for ttl, frame in zip((1, 255), frames, strict=True):
        stage.attacker.send([frame])
        answers = [
            one
            for one in stage.sightings(answered_syn)
            if one.place == stage.one.name and Ether(one.data)[IP].src == stage.md
        ]
        if not answers:
            return Observed(DROPPED, [f"no answer to TTL {ttl}"])
        back += answers
        seen += [Ether(one.data)[IP].ttl for one in answers]
    return Observed(f"answered, TTL {max(seen)}", [], back)


def _redirect(s: Stage) -> Iterator[Packet]:
    was = bytes(IP(src=s.i2, dst=s.md) / TCP(sport=s.port, dport=80))[:28]
    for src in (s.md, s.i1):
        for code in (0, 1):
            head = IP(src=src, dst=s.i2) / ICMP(type=5, code=code, gw=s.i1)
            yield Ether(dst=s.m2, src=s.m1) / head / Raw(was)
    for dst in (s.m2, BROADCAST):
        advertisement = IP(src=s.i1, dst=s.i2 if dst == s.m2 else "255.255.255.255", ttl=1)
        yield Ether(dst=dst, src=s.m1) / advertisement / ICMP(type=9) / Raw(bytes(8))
    yield to_node(s) / IP(src=s.i1, dst=s.md) / ICMP(type=5, code=1, gw=s.i1) / Raw(was)


def _icmp(s: Stage) -> Iterator[Packet]:
    for kind in (8, 13, 15, 17, 10, 0, 3, 11, 12, 30, 42):
        yield to_node(s) / IP(src=s.i1, dst=s.md) / ICMP(type=kind) / Raw(s.token)
    yield to_node(s) / IP(src=s.i1, dst=BROADCAST_TEXT) / ICMP() / Raw(s.token)
    yield Ether(dst=BROADCAST, src=s.m1) / IP(src=s.i1, dst=s.md) / ICMP() / Raw(s.token)


def _igmp(s: Stage) -> Iterator[Packet]:
    alert = [IPOption_Router_Alert()]
    for group, mac in (("224.0.0.1", "01:00:5e:00:00:01"), ("224.0.0.22", "01:00:5e:00:00:16")):
        for kind in (0x11, 0x12, 0x16, 0x17, 0x22):
            checksum = 0xFFFF ^ (kind << 8 | 10)
            body = Raw(bytes((kind, 10)) + checksum.to_bytes(2, "big") + bytes(4))
            for options in ([], alert):
                head = IP(src=s.i1, dst=group, ttl=1, proto=2, options=options)
                yield Ether(dst=mac, src=s.m1) / head / body
        yield to_node(s) / IP(src=s.i1, dst=s.md, proto=2) / body


def _dhcp_server(s: Stage) -> Iterator[Packet]:
    for dst, mac in (("255.255.255.255", BROADCAST), (s.i2, s.m2), ("255.255.255.255", s.m2)):
        offer = BOOTP(op=2, yiaddr="169.254.9.9", siaddr=s.i1, chaddr=bytes(16)) / DHCP(
            options=[("message-type", "offer"), ("router", s.i1), "end"]
        )
        yield Ether(dst=mac, src=s.m1) / IP(src=s.i1, dst=dst) / UDP(sport=67, dport=68) / offer


def _dhcp_client(s: Stage) -> Iterator[Packet]:
    for src in ("0.0.0.0", s.i1, s.i2):
        discover = BOOTP(op=1, chaddr=bytes(16)) / DHCP(
            options=[("message-type", "discover"), "end"]
        )
        head = IP(src=src, dst="255.255.255.255") / UDP(sport=68, dport=67)
        yield Ether(dst=BROADCAST, src=s.m1) / head / discover
        yield to_node(s) / IP(src=src, dst=s.md) / UDP(sport=68, dport=67) / discover


def _tunnels(s: Stage) -> Iterator[Packet]:
    inner = IP(src=s.i1, dst=s.if_) / UDP(sport=s.port, dport=9) / Raw(s.token)
    for dst in (s.md, s.if_, ELSEWHERE):
        head = IP(src=s.i1, dst=dst)
        yield to_node(s) / head / GRE() / inner
        yield to_node(s) / head / inner
        ether = Ether(dst=s.mf, src=s.m1) / inner
        yield to_node(s) / head / UDP(sport=s.port, dport=4789) / VXLAN(vni=1) / ether
        yield to_node(s) / head / UDP(sport=s.port, dport=6081) / Raw(bytes(8)) / ether
        yield to_node(s) / IP(src=s.i1, dst=dst, proto=41) / Raw(bytes(40) + s.token)
        yield to_node(s) / IP(src=s.i1, dst=dst, proto=97) / Raw(bytes(2)) / ether


def _every_protocol(stage: Stage) -> Observed:
    """Send the responder one packet of each IP protocol, and see which come in."""
    body = bytes(TCP(sport=stage.port, dport=80, flags="S"))
    frames = [
        bytes(to_node(stage) / IP(src=stage.i1, dst=stage.md, proto=protocol) / Raw(body))
        for protocol in range(256)
        if protocol != _PROTOCOL_TCP
    ]
    right = bytes(to_node(stage) / syn(stage))
    seen = stage.attack([*frames, right], enough=1000)
    passed = sorted({frame.data[23] for frame in seen.frames if frame.place == stage.node.name})
    if passed != [_PROTOCOL_TCP]:
        return Observed(ALLOWED if passed else DROPPED, [f"protocols {passed}"], seen.frames)
    if stage.policy is Policy.RESPONDER_ONLY:
        return Observed("only TCP", [], seen.frames)
    return _odd_protocols_to_peer(stage)


def _odd_protocols_to_peer(stage: Stage) -> Observed:
    """Flood a peer with protocols that guests do not normally use."""
    sender = Ether(dst=stage.m2, src=stage.m1)
    head = {"src": stage.i1, "dst": stage.i2}
    frames = [
        stage.signed(sender / IP(**head, proto=protocol) / Raw(bytes(40)))
        for protocol in range(256)
        if protocol not in _ORDINARY
    ]
    stage.sent += frames
    sent = stage.attacker.flood(frames, _FLOOD_SECONDS)
    seen = [one for one in stage.sightings() if one.place == stage.two.name]
    bound = BROADCAST_BURST + BROADCASTS_PER_SECOND * (_FLOOD_SECONDS + 0.5)
    evidence = [f"{len(seen)} of {sent} frames reached the peer; the bound is {bound:.0f}"]
    verdict = "only TCP, limited to peers" if len(seen) <= bound else ALLOWED
    return Observed(verdict, evidence, seen[:20])


ROWS: Final = (
    dropped(
        "38",
        "Read the victim's metadata: spoofed source",
        "CVE-2013-6419",
        _ask_as_the_victim,
        answered_syn,
    ),
    dropped("39", "Reflect off the node", "works in spite of isolated ports", _reflect, _reflected),
    dropped("43", "Another node's guest by its address", "RFC 3927 2.7", _other_node_by_address),
    dropped("44", "Hairpin: to a peer by way of the node", "works with ip_forward=1", _hairpin),
    dropped(
        "45",
        "The node's other services",
        "weak host model, in spite of arp_ignore=1",
        _services_of_the_node,
        answered_from_node,
    ),
    Row(
        "46",
        "Other ports of the responder's address",
        "RFC 1122 3.2.2.1",
        "silent",
        recipe=_other_ports,
        trace=answered_from_node,
        play=_silent,
    ),
    dropped(
        "47", "127/8 from the wire", "CVE-2020-8558", _loopback_from_the_wire, answered_from_node
    ),
    dropped("48", "Martian sources", "RFC 1812 5.3.7", _martians),
    dropped("49", "Fragments", "RFC 1858", _fragments),
    dropped("50", "Overlapping and tiny fragments", "RFC 3128, RFC 5722", _odd_fragments),
    dropped("51", "IP options", "RFC 7126; record route is echoed", _options, answered_from_node),
    Row(
        "52",
        "Time to live of 1 and 255",
        "RFC 3927 2.7, EC2's hop limit",
        "answered, TTL 1",
        in_lab=_time_to_live,
    ),
    dropped(
        "53", "ICMP redirect, router advertisement", "accept_redirects is 1 by default", _redirect
    ),
    dropped("54", "ICMP to the responder's address", "RFC 1122 3.2.2", _icmp, answered_from_node),
    dropped("55", "IGMP querier takeover", "RFC 3376", _igmp),
    dropped("59", "Rogue DHCP server", "CVE-2020-8903", _dhcp_server),
    dropped("60", "Spoofed DHCP client", "OSSA-2016-009", _dhcp_client),
    dropped("61", "Tunnels", "RFC 2784, RFC 2003, RFC 7348", _tunnels),
    Row(
        "62",
        "IP protocol sweep",
        "0-255",
        "only TCP",
        "only TCP, limited to peers",
        play=_every_protocol,
    ),
)
