"""ARP: claims about one's own address and others'."""

import random
from collections.abc import Iterator
from typing import Final

from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from netemu.conformance.roles import BROADCAST, ELSEWHERE, NOBODY
from netemu.conformance.row import ALLOWED, ANSWERED, DROPPED, Observed, Row, dropped
from netemu.conformance.stage import Stage

REQUEST, REPLY = 1, 2


def arp(
    stage: Stage,
    *,
    dst: str = BROADCAST,
    op: int = REQUEST,
    psrc: str,
    pdst: str = "",
    hwsrc: str = "",
    hwdst: str = NOBODY,
) -> Packet:
    """An ARP packet from the attacker's MAC, unless a field says otherwise."""
    return Ether(dst=dst, src=stage.m1) / ARP(
        op=op, hwsrc=hwsrc or stage.m1, psrc=psrc, hwdst=hwdst, pdst=pdst or stage.md
    )


def _reply_for_metadata(s: Stage) -> Iterator[Packet]:
    for dst in (s.m2, BROADCAST, s.bridge):
        for op in (REPLY, REQUEST):
            yield arp(s, dst=dst, op=op, psrc=s.md, hwdst=s.m2, pdst=s.i2)


def _gratuitous_for_metadata(s: Stage) -> Iterator[Packet]:
    for dst in (BROADCAST, s.bridge, s.m2):
        yield arp(s, dst=dst, op=REQUEST, psrc=s.md)
        yield arp(s, dst=dst, op=REPLY, psrc=s.md, hwdst=BROADCAST)


def _probe_metadata(stage: Stage) -> Observed:
    stage.attacker.send([stage.signed(arp(stage, psrc="0.0.0.0"))])
    answers = stage.sightings(_metadata_is_at_node)
    at_home = [one for one in answers if one.place == stage.one.name]
    return Observed(ANSWERED if at_home else DROPPED, [], at_home)


def _metadata_is_at_node(stage: Stage, frame: Packet) -> bool:
    return (
        ARP in frame
        and frame[ARP].op == REPLY
        and frame[ARP].psrc == stage.md
        and frame[ARP].hwsrc == stage.bridge
        and frame[ARP].pdst == "0.0.0.0"
    )


def _evict_metadata(stage: Stage) -> Observed:
    seen = stage.attack([arp(stage, psrc=stage.md), arp(stage, psrc=stage.md)])
    held = stage.addresses()
    if stage.md not in held:
        return Observed("evicted", [f"the node's addresses are now {held}"])
    return seen


def _as_a_peer(s: Stage) -> Iterator[Packet]:
    for dst in (BROADCAST, s.bridge, s.m3):
        yield arp(s, dst=dst, psrc=s.i2)
        yield arp(s, dst=dst, psrc=s.i2, pdst=s.i2)
        yield arp(s, dst=dst, op=REPLY, psrc=s.i2, pdst=s.md, hwdst=s.bridge)


def _other_sender_mac(s: Stage) -> Iterator[Packet]:
    for hwsrc in (s.m2, s.bridge, "02:00:5e:10:00:01", BROADCAST, NOBODY):
        yield arp(s, psrc=s.i1, hwsrc=hwsrc)
        yield arp(s, dst=s.bridge, psrc=s.i1, hwsrc=hwsrc)
        yield arp(s, psrc="0.0.0.0", hwsrc=hwsrc, pdst="169.254.99.99")


def _others_of_the_node(s: Stage) -> Iterator[Packet]:
    for pdst in (ELSEWHERE, "127.0.0.1", "0.0.0.0", "192.168.0.1"):
        for dst in (BROADCAST, s.bridge):
            yield arp(s, dst=dst, psrc=s.i1, pdst=pdst)
            yield arp(s, dst=dst, psrc="0.0.0.0", pdst=pdst)


def _another_address_is_there(_: Stage, frame: Packet) -> bool:
    return (
        ARP in frame
        and frame[ARP].op == REPLY
        and frame[ARP].psrc in (ELSEWHERE, "127.0.0.1", "192.168.0.1")
    )


def _malformed(s: Stage) -> Iterator[Packet | bytes]:
    def body(**wrong: int) -> ARP:
        fields = {"op": REQUEST, "hwsrc": s.m1, "psrc": s.i1, "hwdst": NOBODY, "pdst": s.md}
        return ARP(**{**fields, **wrong})

    well = bytes(body())
    for dst in (BROADCAST, s.bridge, s.m2):
        head = bytes(Ether(dst=dst, src=s.m1, type=0x0806))
        # The lengths are patched: scapy would lay the fields out by them.
        for offset, value in ((4, 8), (4, 0), (4, 255), (5, 16), (5, 0), (5, 255)):
            yield head + well[:offset] + bytes((value,)) + well[offset + 1 :]
        for htype in (0, 6, 15, 32, 0xFFFF):
            yield head + htype.to_bytes(2, "big") + well[2:]
        for ptype in (0x86DD, 0x0806, 0, 0xFFFF):
            yield head + well[:2] + ptype.to_bytes(2, "big") + well[4:]
        for op in (0, 3, 4, 5, 8, 9, 10, 25, 0xFFFF):
            yield head + well[:6] + op.to_bytes(2, "big") + well[8:]
        for length in (8, 18, 20, 24):
            yield head + well[:length]


def _fill_the_neighbour_table(stage: Stage) -> Observed:
    before = len(stage.neighbours())
    choose = random.Random(16)
    drawn = (f"169.254.{choose.randrange(1, 255)}.{choose.randrange(256)}" for _ in range(5000))
    senders = [one for one in drawn if one != stage.i1]
    evidence: list[str] = []
    # In batches: if the table grows, it is the whole machine's, and must not be filled.
    for start in range(0, len(senders), 100):
        frames = [arp(stage, dst=stage.bridge, psrc=one) for one in senders[start : start + 100]]
        seen = stage.attack(frames)
        grown = len(stage.neighbours()) - before if seen.verdict == ALLOWED else 0
        if seen.verdict == ALLOWED:
            evidence = [f"{grown} more neighbours on the node", *seen.evidence]
            return Observed(ALLOWED, evidence, seen.frames)
    grown = len(stage.neighbours()) - before
    return Observed(DROPPED if grown <= 0 else ALLOWED, [f"{grown} more neighbours on the node"])


def _rarp(s: Stage) -> Iterator[Packet | bytes]:
    for ethertype in (0x8035, 0x0835, 0x3580):
        for dst in (BROADCAST, s.m2, s.bridge):
            for op in (3, 4, REQUEST, REPLY):
                body = ARP(op=op, hwsrc=s.m1, psrc=s.i1, hwdst=s.m2, pdst=s.md)
                yield Ether(dst=dst, src=s.m1, type=ethertype) / Raw(bytes(body))


ROWS: Final = (
    dropped(
        "02", "ARP reply: the responder is at the attacker", "OSSA-2016-009", _reply_for_metadata
    ),
    dropped("03", "Gratuitous ARP for the responder", "OSSA-2016-009", _gratuitous_for_metadata),
    Row(
        "04",
        "Probe the responder's address",
        "RFC 3927 2.2.1",
        ANSWERED,
        play=_probe_metadata,
        held_by_kernel="a host that has an address answers a probe for it; what is checked is that "
        "no protection gets in the way of that",
    ),
    Row(
        "05",
        "Evict the responder: two claims within DEFEND_INTERVAL",
        "RFC 3927 2.5, RFC 5227 2.4 c",
        play=_evict_metadata,
    ),
    dropped("06", "ARP as a peer", "CVE-2021-38598", _as_a_peer),
    dropped(
        "07",
        "ARP sender MAC other than the Ethernet source",
        "a gap in Neutron's rule",
        _other_sender_mac,
    ),
    dropped(
        "14",
        "ARP for the node's other addresses",
        "Linux's weak host model, arp_ignore 0",
        _others_of_the_node,
        _another_address_is_there,
    ),
    dropped("15", "Malformed ARP", "nft adds no check of hlen and plen", _malformed),
    Row(
        "16",
        "Neighbour-table exhaustion",
        "net.ipv4.neigh.default.gc_thresh3: one table for all namespaces",
        play=_fill_the_neighbour_table,
    ),
    dropped("17", "RARP", "libvirt's clean-traffic lets 0x0835 by", _rarp),
)
