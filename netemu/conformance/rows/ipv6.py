"""IPv6: the link has none, so nothing of it may pass."""

from collections.abc import Iterator
from typing import Final

from scapy.layers.inet import TCP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from netemu.conformance.roles import SERVICE
from netemu.conformance.row import dropped
from netemu.conformance.stage import Stage
from netemu.linklocal.ipv6 import group, group_mac, of_mac

_ALL_NODES: Final = ("33:33:00:00:00:01", "ff02::1")
# The attacker's address: answers to it belong to this row.
_OWN: Final = "fe80::dead:beef"


def _router(s: Stage) -> Iterator[Packet]:
    advertisement = (
        ICMPv6ND_RA(routerlifetime=1800)
        / ICMPv6NDOptSrcLLAddr(lladdr=s.m1)
        / ICMPv6NDOptPrefixInfo(prefix="2001:db8:bad::", prefixlen=64)
    )
    for mac in (_ALL_NODES[0], s.bridge, s.m2):
        head = Ether(dst=mac, src=s.m1) / IPv6(src=_OWN, dst=_ALL_NODES[1], hlim=255)
        yield head / advertisement
        yield head / IPv6ExtHdrHopByHop() / advertisement


def _neighbours(s: Stage) -> Iterator[Packet]:
    for mac, target in ((s.m2, s.m2), (_ALL_NODES[0], s.m2), (s.bridge, s.bridge)):
        address = of_mac(target)
        ether = Ether(dst=mac, src=s.m1)
        head = ether / IPv6(src=_OWN, dst=_ALL_NODES[1], hlim=255)
        yield head / ICMPv6ND_NA(tgt=address, R=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=s.m1)
        yield head / ICMPv6ND_NS(tgt=address) / ICMPv6NDOptSrcLLAddr(lladdr=s.m1)
        yield ether / IPv6(src="::", dst=_ALL_NODES[1], hlim=255) / ICMPv6ND_NS(tgt=address)
        yield head / ICMPv6ND_Redirect(tgt=_OWN, dst="2001:db8::1")


def _node_by_link_local(s: Stage) -> Iterator[Packet]:
    address = of_mac(s.bridge)
    for mac in (s.bridge, group_mac(address), *s.port_macs):
        ether = Ether(dst=mac, src=s.m1)
        to = of_mac(mac) if mac in s.port_macs else address
        ask = ICMPv6ND_NS(tgt=to) / ICMPv6NDOptSrcLLAddr(lladdr=s.m1)
        yield ether / IPv6(src=_OWN, dst=group(address), hlim=255) / ask
        head = ether / IPv6(src=_OWN, dst=to)
        yield head / ICMPv6EchoRequest() / Raw(s.token)
        for port in (80, SERVICE):
            yield head / TCP(sport=s.port, dport=port, flags="S")


def _answered(_: Stage, frame: Packet) -> bool:
    return IPv6 in frame and (frame[IPv6].dst == _OWN or _asks_for_attacker(frame))


def _asks_for_attacker(frame: Packet) -> bool:
    return ICMPv6ND_NS in frame and frame[ICMPv6ND_NS].tgt == _OWN


ROWS: Final = (
    dropped("56", "Router advertisement", "CVE-2020-13401", _router),
    dropped(
        "57",
        "Neighbour solicitation and advertisement as others",
        "CVE-2021-20267",
        _neighbours,
        _answered,
    ),
    dropped("58", "The node's own fe80:: addresses", "OSSN-0069", _node_by_link_local, _answered),
)
