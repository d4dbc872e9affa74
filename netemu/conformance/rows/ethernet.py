"""Ethernet: other sources, other destinations, other types, tags and lengths."""

import random
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, LLC, SNAP, STP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Packet, Raw

from netemu.conformance.inside import Inside
from netemu.conformance.roles import BROADCAST, HTTP, NOBODY
from netemu.conformance.row import ALLOWED, DROPPED, LIMITED, Frame, Observed, Row, dropped
from netemu.conformance.rows.arp import REPLY, arp
from netemu.conformance.stage import INSTANCE_INFO, Stage, summary
from netemu.interfaces import octets
from netemu.kernel.guard import BROADCAST_BURST, BROADCASTS_PER_SECOND
from netemu.linklocal.addresses import BROADCAST_TEXT

# Long enough to tell the limit's rate from its burst.
_FLOOD_SECONDS: Final = 0.3


def syn(s: Stage, **ip: object) -> Packet:
    """A SYN from the attacker to the responder."""
    fields = {"src": s.i1, "dst": s.md, **ip}
    return IP(**fields) / TCP(sport=s.port, dport=80, flags="S", seq=1000)


def answered_syn(stage: Stage, frame: Packet) -> bool:
    """Whether this is an answer to `syn`, on its way or arrived."""
    return IP in frame and TCP in frame and frame[TCP].dport == stage.port


def asking(s: Stage) -> ARP:
    """The honest ARP request for the responder."""
    return ARP(op=1, hwsrc=s.m1, psrc=s.i1, hwdst=NOBODY, pdst=s.md)


def _as_the_victim(s: Stage) -> Iterator[Packet]:
    for dst in (BROADCAST, s.bridge, s.m3):
        ether = Ether(dst=dst, src=s.m2)
        yield ether / ARP(op=1, hwsrc=s.m2, psrc=s.i2, hwdst=NOBODY, pdst=s.i2)
        yield ether / ARP(op=1, hwsrc=s.m1, psrc=s.i1, hwdst=NOBODY, pdst=s.md)
        yield ether / syn(s)
        yield Ether(dst=dst, src=s.m2, type=0x88B5) / Raw(b"x" * 46)


def _spoof_the_victims_mac(stage: Stage) -> Observed:
    before = stage.stations().get(stage.m2)
    seen = stage.watch()
    after = stage.stations().get(stage.m2)
    if before is not None and after != before:
        seen.verdict = ALLOWED
        seen.evidence.append(f"the bridge believes {stage.m2} at {after}, not {before}")
    return seen


def _as_the_bridge(s: Stage) -> Iterator[Packet]:
    for src in (s.bridge, "01:00:5e:00:00:01", BROADCAST, NOBODY, "33:33:00:00:00:01"):
        for dst in (BROADCAST, s.bridge, s.m2):
            yield Ether(dst=dst, src=src) / ARP(op=1, hwsrc=src, psrc=s.md, hwdst=NOBODY, pdst=s.i2)
            yield Ether(dst=dst, src=src) / asking(s)
            yield Ether(dst=dst, src=src) / syn(s)


def _to_the_peer(s: Stage) -> Iterator[Packet]:
    for body in (UDP(sport=s.port, dport=9), TCP(sport=s.port, dport=22, flags="S"), ICMP()):
        yield Ether(dst=s.m2, src=s.m1) / IP(src=s.i1, dst=s.i2) / body


def _raw_channel(s: Stage) -> Iterator[Packet]:
    for dst in (s.m2, BROADCAST, s.bridge, s.m3, "01:80:c2:00:00:0e", "33:33:00:00:00:01"):
        for ethertype in (0x88B5, 0x88B6, 0x9000, 0x888E, 0x88CC, 0x8863, 0x8864, 0x88E5, 0x8847):
            yield Ether(dst=dst, src=s.m1, type=ethertype) / Raw(b"x" * 46)


def _every_type(s: Stage) -> Iterator[bytes]:
    head = octets(s.m2 + s.m1)
    broadcast = octets(BROADCAST + s.m1)
    for ethertype in range(0x0600, 0x10000, 7):
        if ethertype not in (0x0800, 0x0806):
            yield (head if ethertype % 2 else broadcast) + ethertype.to_bytes(2, "big") + b"x" * 40


def _unknown_unicast(s: Stage) -> Iterator[Packet]:
    for dst in ("02:de:ad:be:ef:01", "00:00:00:00:00:00", "fe:ff:ff:ff:ff:ff"):
        ether = Ether(dst=dst, src=s.m1)
        yield ether / IP(src=s.i1, dst=s.i2) / UDP(sport=s.port, dport=9)
        yield ether / syn(s)
        yield ether / asking(s)
        yield Ether(dst=dst, src=s.m1, type=0x88B5) / Raw(b"x" * 46)


def _ip_broadcast(s: Stage) -> Iterator[Packet]:
    for address in ("255.255.255.255", BROADCAST_TEXT):
        ip = IP(src=s.i1, dst=address) / UDP(sport=s.port, dport=9)
        yield Ether(dst=BROADCAST, src=s.m1) / ip


def _ip_multicast(s: Stage) -> Iterator[Packet]:
    mdns = IP(src=s.i1, dst="224.0.0.251", ttl=255) / UDP(sport=5353, dport=5353)
    yield Ether(dst="01:00:5e:00:00:fb", src=s.m1) / mdns
    ssdp = IP(src=s.i1, dst="239.255.255.250", ttl=1) / UDP(sport=s.port, dport=1900)
    yield Ether(dst="01:00:5e:7f:ff:fa", src=s.m1) / ssdp


def _flood(stage: Stage, *recipes: Callable[[Stage], Iterable[Packet]]) -> Observed:
    """Send in a loop. The verdict is dropped, limited or allowed."""
    frames = [stage.signed(frame) for recipe in recipes for frame in recipe(stage)]
    stage.sent += frames
    begun = time.monotonic()
    sent = stage.attacker.flood(frames * 10, _FLOOD_SECONDS)
    others = stage.sightings()
    seen = [one for one in others if one.place == stage.two.name]
    if not others:
        # A limit that the row before has used up fills again soon.
        for _ in range(5):
            sent += stage.attacker.flood(frames, _FLOOD_SECONDS / 5)
            seen += [one for one in stage.sightings() if one.place == stage.two.name]
    bound = BROADCAST_BURST + BROADCASTS_PER_SECOND * (time.monotonic() - begun)
    evidence = [f"{len(seen)} of {sent} frames reached the victim; the bound is {bound:.0f}"]
    if not seen and not others:
        return Observed(DROPPED, evidence)
    return Observed(LIMITED if len(seen) <= bound else ALLOWED, evidence, seen[:20])


def _listen_to_others(stage: Stage) -> Observed:
    """Steal the victim's port in the bridge's table, and listen while it asks."""
    theft = Ether(dst="02:de:ad:be:ef:02", src=stage.m2, type=0x88B5) / Raw(b"x" * 46)
    # In a loop: each frame of the victim corrects the table.
    flood = stage.attacker.post(
        Inside.flood, stage.attacker.interface, [bytes(theft)], _FLOOD_SECONDS
    )
    end = time.monotonic() + _FLOOD_SECONDS
    while time.monotonic() < end:
        stage.victim.call(Inside.get, INSTANCE_INFO, stage.md, HTTP, _FLOOD_SECONDS)
    flood.result()
    overheard = [
        frame
        for place, outgoing, frame in stage.heard()
        if place is stage.attacker and not outgoing and _between_victim_and_node(stage, frame)
    ]
    stage.sent.append(bytes(theft))
    if overheard:
        frames = [Frame(stage.one.name, frame) for frame in overheard[:20]]
        return Observed("heard", [summary(overheard[0])], frames)
    return Observed("nothing")


def _between_victim_and_node(stage: Stage, frame: bytes) -> bool:
    packet = Ether(frame)
    return IP in packet and {packet[IP].src, packet[IP].dst} == {stage.i2, stage.md}


def _fill_the_bridges_table(stage: Stage) -> Observed:
    before = len(stage.stations())
    choose = random.Random(28)
    tail = bytes(syn(stage))
    to = octets(stage.bridge)
    frames = [
        to + b"\x02" + choose.randbytes(5) + b"\x08\x00" + tail + stage.token for _ in range(20000)
    ]
    stage.sent += frames[:3]
    grown = 0
    # In batches: if the table grows, stop well before it costs the machine anything.
    for start in range(0, len(frames), 2000):
        stage.attacker.send(frames[start : start + 2000])
        grown = len(stage.stations()) - before
        if grown > 0:
            break
    seen = stage.sightings()
    verdict = ALLOWED if grown > 0 or seen else DROPPED
    return Observed(verdict, [f"the bridge's table has grown by {grown}"], seen[:20])


def _inner(s: Stage) -> Iterator[tuple[str, Packet]]:
    """The frames that get the tags below: honest ones, to the node and to the peer."""
    yield s.bridge, syn(s)
    yield s.bridge, asking(s)
    yield BROADCAST, asking(s)
    yield BROADCAST, ARP(op=REPLY, hwsrc=s.m1, psrc=s.md, hwdst=s.m2, pdst=s.i2)
    yield s.m2, IP(src=s.i1, dst=s.i2) / UDP(sport=s.port, dport=9)


def _priority_tag(s: Stage) -> Iterator[Packet]:
    for dst, inner in _inner(s):
        for priority in (0, 7):
            yield Ether(dst=dst, src=s.m1) / Dot1Q(vlan=0, prio=priority) / inner
        yield Ether(dst=dst, src=s.m1) / Dot1AD(vlan=0) / inner
        yield Ether(dst=dst, src=s.m1, type=0x9100) / Dot1Q(vlan=0) / inner


def _stacked_tags(s: Stage) -> Iterator[Packet]:
    for dst, inner in _inner(s):
        ether = Ether(dst=dst, src=s.m1)
        yield ether / Dot1Q(vlan=0) / Dot1Q(vlan=0) / inner
        yield ether / Dot1AD(vlan=0) / Dot1Q(vlan=0) / inner
        yield ether / Dot1AD(vlan=0) / Dot1Q(vlan=0) / Dot1Q(vlan=0) / Dot1Q(vlan=0) / inner
        four = Dot1Q(vlan=0) / Dot1Q(vlan=0) / Dot1Q(vlan=0) / Dot1Q(vlan=0)
        yield ether / Dot1AD(vlan=0) / four / inner


def _numbered_tag(s: Stage) -> Iterator[Packet]:
    for dst, inner in _inner(s):
        for vlan in (1, 5, 4094, 4095):
            yield Ether(dst=dst, src=s.m1) / Dot1Q(vlan=vlan) / inner


def _snap(s: Stage) -> Iterator[Packet]:
    llc = LLC(dsap=0xAA, ssap=0xAA, ctrl=3)
    for dst, inner in _inner(s):
        code = 0x0800 if IP in inner else 0x0806
        for oui in (0, 0x0000F8, 0x00000C):
            yield Dot3(dst=dst, src=s.m1) / llc / SNAP(OUI=oui, code=code) / inner
        yield Dot3(dst=dst, src=s.m1) / LLC(dsap=6, ssap=6, ctrl=3) / inner
        yield Dot3(dst=dst, src=s.m1) / LLC(dsap=0xFF, ssap=0xFF, ctrl=0xFF) / inner


def _snap_of_wrong_length(s: Stage) -> Iterator[Packet]:
    llc = LLC(dsap=0xAA, ssap=0xAA, ctrl=3)
    for dst, inner in _inner(s):
        code = 0x0800 if IP in inner else 0x0806
        for length in (0, 1, 8, 0x5DC, 0x5DD, 0x5FF):
            body = llc / SNAP(OUI=0, code=code) / inner
            yield Dot3(dst=dst, src=s.m1, len=length) / body
            yield Ether(dst=dst, src=s.m1) / Dot1Q(vlan=0, type=length) / body


def _bpdu(s: Stage) -> Iterator[Packet]:
    for dst in ("01:80:c2:00:00:00", "01:00:0c:cc:cc:cd", "01:80:c2:00:00:08", BROADCAST):
        yield (
            Dot3(dst=dst, src=s.m1)
            / LLC(dsap=0x42, ssap=0x42, ctrl=3)
            / STP(rootid=0, rootmac=s.m1, bridgeid=0, bridgemac=s.m1)
        )


def _to_group(s: Stage, groups: tuple[str, ...]) -> Iterator[Packet]:
    for dst in groups:
        yield Ether(dst=dst, src=s.m1) / asking(s)
        yield Ether(dst=dst, src=s.m1) / arp(s, psrc="0.0.0.0", pdst="169.254.99.9").payload
        yield Ether(dst=dst, src=s.m1) / syn(s)
        yield Ether(dst=dst, src=s.m1) / IP(src=s.i1, dst=s.md) / ICMP()
        yield Ether(dst=dst, src=s.m1) / IP(src=s.i1, dst="224.0.0.251") / UDP(dport=5353)


_LLDP: Final = ("01:80:c2:00:00:0e",)
_RESERVED_GROUPS: Final = tuple(
    f"01:80:c2:00:00:{last:02x}" for last in (*range(0x0E), 0x0F, *range(0x20, 0x30))
)
_IP_GROUPS: Final = (
    "01:80:c2:00:00:21",
    "01:00:5e:00:00:01",
    "01:00:5e:7f:a9:fe",
    "33:33:00:00:00:01",
    "03:00:00:00:00:01",
    BROADCAST,
)


def _unicast_in_group(s: Stage) -> Iterator[Packet]:
    for dst in _IP_GROUPS:
        yield Ether(dst=dst, src=s.m1) / syn(s)
        yield Ether(dst=dst, src=s.m1) / IP(src=s.i1, dst=s.i2) / UDP(dport=9)
        yield Ether(dst=dst, src=s.m1) / IP(src=s.i1, dst=s.md) / UDP(dport=9)


def _other_node_by_mac(s: Stage) -> Iterator[Packet]:
    ether = Ether(dst=s.mf, src=s.m1)
    yield ether / IP(src=s.i1, dst=s.if_) / UDP(sport=s.port, dport=9)
    yield ether / ARP(op=1, hwsrc=s.m1, psrc=s.i1, hwdst=NOBODY, pdst=s.if_)
    yield Ether(dst=s.mf, src=s.m1, type=0x88B5) / Raw(b"x" * 46)


_dropped = partial(dropped, trace=answered_syn)

ROWS: Final = (
    Row(
        "18",
        "Spoof a peer's MAC",
        "CVE-2021-38598",
        recipe=_as_the_victim,
        play=_spoof_the_victims_mac,
    ),
    _dropped("19", "Spoof the bridge's MAC; multicast source", "IEEE 802.3 3.2.3", _as_the_bridge),
    Row(
        "20",
        "IPv4 straight to a peer",
        "the policies' difference",
        DROPPED,
        ALLOWED,
        recipe=_to_the_peer,
    ),
    _dropped("21", "Raw EtherType channel", "IEEE 802, 0x88b5", _raw_channel),
    _dropped("22", "EtherType sweep", "0x0600-0xffff, step 7", _every_type),
    _dropped("23", "Unknown unicast", "bridges flood it", _unknown_unicast),
    Row("24", "IP broadcast", "RFC 919", DROPPED, LIMITED, play=lambda s: _flood(s, _ip_broadcast)),
    Row(
        "25",
        "IP multicast, mDNS",
        "RFC 6762",
        DROPPED,
        LIMITED,
        play=lambda s: _flood(s, _ip_multicast),
    ),
    Row(
        "26",
        "Broadcast and multicast in a flood",
        "RFC 3927 5",
        DROPPED,
        LIMITED,
        play=lambda s: _flood(s, _ip_broadcast, _ip_multicast),
    ),
    Row(
        "27",
        "Promiscuous listening, with the victim's port stolen",
        "CVE-2019-15753",
        "nothing",
        play=_listen_to_others,
    ),
    Row("28", "MAC-table exhaustion", "CVE-2019-15753", play=_fill_the_bridges_table),
    _dropped("29", "VLAN 0: priority tag", "CVE-2021-27853", _priority_tag),
    _dropped("30", "Stacked VLAN 0", "CVE-2021-27853", _stacked_tags),
    _dropped("31", "VLAN n", "IEEE 802.1Q", _numbered_tag),
    _dropped("32", "LLC/SNAP", "CVE-2021-27854", _snap),
    _dropped(
        "33", "SNAP with a wrong length", "CVE-2021-27861, CVE-2021-27862", _snap_of_wrong_length
    ),
    _dropped("34", "BPDU: become the root bridge", "IEEE 802.1D", _bpdu),
    _dropped(
        "35",
        "LLDP's group address carrying ARP and IP",
        "passes every hook of a bridge",
        lambda s: _to_group(s, _LLDP),
    ),
    _dropped(
        "36",
        "Other reserved group addresses",
        "IEEE 802.1D table 7-10",
        lambda s: _to_group(s, _RESERVED_GROUPS),
    ),
    _dropped("37", "Unicast IP in a multicast frame", "RFC 1122 3.3.6", _unicast_in_group),
    _dropped("42", "Another node's guest by its MAC", "RFC 3927 2.7", _other_node_by_mac),
)
