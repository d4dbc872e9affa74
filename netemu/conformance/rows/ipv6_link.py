"""IPv6 where the lab speaks it (`ipv6: true`): a guest reaches its responder, and nothing else.

These rows are numbered from 201. They are played in a lab that speaks IPv6.
"""

from collections.abc import Iterator
from ipaddress import IPv6Address
from typing import Final

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLDone,
    ICMPv6MLQuery,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6Unknown,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    RouterAlert,
)
from scapy.layers.l2 import GRE, LLC, SNAP, Dot1Q, Dot3, Ether
from scapy.packet import Packet, Raw

from netemu.conformance.inside import Inside
from netemu.conformance.labstage import LabStage
from netemu.conformance.roles import HTTP, SERVICE
from netemu.conformance.row import ALLOWED, DROPPED, Observed, Row, dropped
from netemu.conformance.stage import CONTROL_PATIENCE, INSTANCE_INFO, Stage, is_answered_as
from netemu.linklocal.ipv6 import LINK_LOCAL, METADATA, UNIQUE_LOCAL, group, group_mac, of_mac

_ALL_NODES: Final = ("33:33:00:00:00:01", "ff02::1")
_UNKNOWN: Final = "02:de:ad:be:ef:01"
_SWEPT: Final = (1, 22, 25, 53, 79, 81, 111, 443, 2375, 3128, 6443, SERVICE)
"""Ports of services that nodes often run."""


def _ether(s: Stage, to: str = "", source: str = "") -> Ether:
    return Ether(dst=to or s.bridge, src=source or s.m1)


def _ip(s: Stage, to: str, source: str = "", **fields: object) -> IPv6:
    return IPv6(src=source or of_mac(s.m1), dst=to, **{"hlim": 255, **fields})


def _syn(s: Stage, port: int = HTTP) -> Packet:
    return TCP(sport=s.port, dport=port, flags="S", seq=1000)


def _solicitation(s: Stage, target: str, mac: str = "") -> Packet:
    return ICMPv6ND_NS(tgt=target) / ICMPv6NDOptSrcLLAddr(lladdr=mac or s.m1)


def _advertisement(target: str, mac: str) -> Packet:
    return ICMPv6ND_NA(tgt=target, R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=mac)


def _to_everyone(s: Stage) -> Iterator[tuple[Ether, str]]:
    """The victim, the node, and all together: a header, and an address behind it."""
    yield _ether(s, s.m2), of_mac(s.m2)
    yield _ether(s, s.m3), of_mac(s.m3)
    yield _ether(s), LINK_LOCAL
    yield _ether(s, _ALL_NODES[0]), _ALL_NODES[1]


def _answered(s: Stage, frame: Packet) -> bool:
    """Whether this is TCP towards the row's own port, from the service to any guest."""
    return IPv6 in frame and TCP in frame and frame[TCP].dport == s.port


def _get(stage: LabStage) -> Observed:
    said = []
    for address in (f"{LINK_LOCAL}%{stage.attacker.interface}", UNIQUE_LOCAL):
        answer, end, _ = stage.attacker.call(
            Inside.get, INSTANCE_INFO, address, HTTP, CONTROL_PATIENCE
        )
        if not is_answered_as(answer, stage.one.name):
            said.append(f"{address}: {end} {answer[:60]!r}")
    if not said and not stage.known_by_port():
        said.append("it is known by something else than its port")
    return Observed(DROPPED if said else ALLOWED, said)


def _service_to_others(s: Stage) -> Iterator[Packet]:
    for ether, to in _to_everyone(s):
        for address in METADATA:
            yield ether / _ip(s, to, address) / _advertisement(address, s.m1)
            yield ether / _ip(s, to) / _advertisement(address, s.m1)


def _own_advertised(s: Stage) -> Iterator[Packet]:
    for ether, to in _to_everyone(s):
        yield ether / _ip(s, to) / _advertisement(of_mac(s.m1), s.m1)


def _solicit_as_others(s: Stage) -> Iterator[Packet]:
    for source in (of_mac(s.m2), of_mac(s.m3), LINK_LOCAL, "fe80::1"):
        for address in METADATA:
            ether = _ether(s, group_mac(address))
            yield ether / _ip(s, group(address), source) / _solicitation(s, address)
            yield _ether(s) / _ip(s, address, source) / _solicitation(s, address)


def _solicit_with_anothers_mac(s: Stage) -> Iterator[Packet]:
    for address in METADATA:
        for mac in (s.m2, s.bridge, "33:33:00:00:00:01"):
            ether = _ether(s, group_mac(address))
            yield ether / _ip(s, group(address)) / _solicitation(s, address, mac)
        twice = _solicitation(s, address) / ICMPv6NDOptSrcLLAddr(lladdr=s.m2)
        yield _ether(s) / _ip(s, address) / twice
        yield _ether(s) / _ip(s, address) / ICMPv6ND_NS(tgt=address)


def _solicit_others(s: Stage) -> Iterator[Packet]:
    for target in (of_mac(s.m2), of_mac(s.m3), of_mac(s.mf), of_mac(s.bridge), "::", "ff02::1"):
        yield _ether(s, group_mac(target)) / _ip(s, group(target)) / _solicitation(s, target)
        for address in METADATA:  # the group is the service's, the target is not
            ether = _ether(s, group_mac(address))
            yield ether / _ip(s, group(address)) / _solicitation(s, target)
        yield _ether(s) / _ip(s, LINK_LOCAL) / _solicitation(s, target)


def _duplicates(s: Stage) -> Iterator[Packet]:
    for target in (of_mac(s.m2), of_mac(s.m3), *METADATA):
        for mac in (group_mac(target), s.m2, s.bridge, _ALL_NODES[0]):
            yield _ether(s, mac) / _ip(s, group(target), "::") / ICMPv6ND_NS(tgt=target)
        ether = _ether(s, _ALL_NODES[0])
        yield ether / _ip(s, _ALL_NODES[1], target) / _advertisement(target, s.m1)


def _router(s: Stage) -> Iterator[Packet]:
    advertisement = (
        ICMPv6ND_RA(routerlifetime=1800)
        / ICMPv6NDOptSrcLLAddr(lladdr=s.m1)
        / ICMPv6NDOptPrefixInfo(prefix="2001:db8:bad::", prefixlen=64)
    )
    for ether, to in _to_everyone(s):
        yield ether / _ip(s, to) / advertisement
        yield ether / _ip(s, to, LINK_LOCAL) / advertisement
        yield ether / _ip(s, to) / IPv6ExtHdrHopByHop() / advertisement
        yield ether / _ip(s, to) / IPv6ExtHdrFragment(m=0) / advertisement
    for mac in ("33:33:00:00:00:02", s.bridge):
        yield _ether(s, mac) / _ip(s, "ff02::2") / ICMPv6ND_RS()


def _redirects(s: Stage) -> Iterator[Packet]:
    for ether, to in _to_everyone(s):
        for source in (of_mac(s.m1), *METADATA):
            redirect = ICMPv6ND_Redirect(tgt=of_mac(s.m1), dst=UNIQUE_LOCAL)
            yield ether / _ip(s, to, source) / redirect / ICMPv6NDOptDstLLAddr(lladdr=s.m1)


def _extensions(s: Stage) -> Iterator[Packet]:
    headers: list[Packet] = [
        IPv6ExtHdrHopByHop(),
        IPv6ExtHdrHopByHop(options=[RouterAlert()]),
        IPv6ExtHdrDestOpt(),
        IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt(),
        IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt(),
        *(IPv6ExtHdrRouting(type=kind, addresses=[UNIQUE_LOCAL]) for kind in (0, 2, 4)),
        IPv6ExtHdrRouting(type=0, segleft=0, addresses=[]),
    ]
    for address in METADATA:
        for header in headers:
            yield _ether(s) / _ip(s, address) / header / _syn(s)
            yield _ether(s) / _ip(s, address) / header / _solicitation(s, address)
        authenticated = Raw(bytes((6, 1)) + bytes(10))  # RFC 4302, without a check value
        yield _ether(s) / _ip(s, address, nh=51) / authenticated / _syn(s)


def _fragments(s: Stage) -> Iterator[Packet]:
    for address in METADATA:
        head = _ether(s) / _ip(s, address)
        for kind, whole in ((6, _syn(s)), (58, _solicitation(s, address))):
            body = bytes(_ip(s, address) / whole)[40:]  # with the checksum of the whole
            yield head / IPv6ExtHdrFragment(nh=kind, m=0, offset=0, id=7) / Raw(body)
            yield head / IPv6ExtHdrFragment(nh=kind, m=1, offset=0, id=8) / Raw(body[:16])
            yield head / IPv6ExtHdrFragment(nh=kind, m=0, offset=2, id=8) / Raw(body[16:])
            yield head / IPv6ExtHdrFragment(nh=kind, m=0, offset=1, id=8) / Raw(body[8:])


def _other_sources(s: Stage) -> Iterator[Packet]:
    others = ("::", "::1", "fe80::1", "2001:db8::1", "ff02::1", f"::ffff:{s.md}", f"::{s.i1}")
    peers = (of_mac(s.m2), of_mac(s.m3), of_mac(s.mf), of_mac(s.bridge))
    for source in (*peers, *METADATA, *others):
        for address in METADATA:
            yield _ether(s) / _ip(s, address, source) / _syn(s)
            segment = TCP(sport=s.port, dport=HTTP, flags="PA", seq=1001, ack=1)
            yield _ether(s) / _ip(s, address, source) / segment / Raw(INSTANCE_INFO)


def _other_macs(s: Stage) -> Iterator[Packet]:
    for mac in (s.m2, s.m3, s.bridge, _ALL_NODES[0]):
        for source in (of_mac(s.m1), of_mac(s.m2)):
            for address in METADATA:
                yield _ether(s, source=mac) / _ip(s, address, source) / _syn(s)
                ether = _ether(s, group_mac(address), mac)
                yield ether / _ip(s, group(address), source) / _solicitation(s, address, mac)


def _reflect(s: Stage) -> Iterator[Packet]:
    for address in METADATA:
        head = _ether(s) / _ip(s, address, of_mac(s.m2))
        yield head / ICMPv6EchoRequest() / Raw(s.token)
        yield head / UDP(sport=s.port, dport=33434) / Raw(s.token)
        for port, flags in ((81, "S"), (80, "S"), (80, "A")):
            yield head / TCP(sport=s.port, dport=port, flags=flags, ack=7)


def _reflected(s: Stage, frame: Packet) -> bool:
    return _answered(s, frame) or (
        IPv6 in frame and frame[IPv6].src in METADATA and s.token in bytes(frame)
    )


def _peers(s: Stage) -> Iterator[Packet]:
    for mac, address in ((s.m2, of_mac(s.m2)), (s.m3, of_mac(s.m3)), (s.mf, of_mac(s.mf))):
        for to in (mac, s.bridge, _UNKNOWN, "ff:ff:ff:ff:ff:ff"):
            head = _ether(s, to) / _ip(s, address)
            yield head / UDP(sport=s.port, dport=9) / Raw(s.token)
            yield head / _syn(s, 22)
            yield head / ICMPv6EchoRequest() / Raw(s.token)
            yield head / _solicitation(s, address)


def _groups(s: Stage) -> Iterator[Packet]:
    for address in (
        "ff02::1",
        "ff02::2",
        "ff02::fb",
        "ff02::1:2",
        "ff02::1:3",
        "ff05::c",
        "ff01::1",
    ):
        mac = (b"\x33\x33" + IPv6Address(address).packed[12:]).hex(":")
        for to in (mac, s.bridge):
            head = _ether(s, to) / _ip(s, address)
            yield head / ICMPv6EchoRequest() / Raw(s.token)
            yield head / UDP(sport=s.port, dport=5353) / Raw(s.token)
            yield head / UDP(sport=546, dport=547) / Raw(s.token)


def _listeners(s: Stage) -> Iterator[Packet]:
    alert = IPv6ExtHdrHopByHop(options=[RouterAlert()])
    for ether, to in _to_everyone(s):
        head = ether / _ip(s, to, hlim=1)
        for body in (
            ICMPv6MLQuery(),
            ICMPv6MLReport(mladdr=group(LINK_LOCAL)),
            ICMPv6MLDone(mladdr=group(LINK_LOCAL)),
            ICMPv6MLReport2(),
        ):
            yield head / alert / body
            yield head / body
    yield _ether(s, "33:33:00:00:00:16") / _ip(s, "ff02::16", hlim=1) / alert / ICMPv6MLReport2()


def _other_ports(s: Stage) -> Iterator[Packet]:
    for address in METADATA:
        for port in _SWEPT:
            yield _ether(s) / _ip(s, address) / _syn(s, port)
            yield _ether(s) / _ip(s, address) / UDP(sport=s.port, dport=port) / Raw(s.token)
        yield _ether(s) / _ip(s, address) / UDP(sport=s.port, dport=HTTP) / Raw(s.token)


def _other_messages(s: Stage) -> Iterator[Packet]:
    for address in METADATA:
        for kind in range(256):
            if kind != ICMPv6ND_NS().type:
                yield _ether(s) / _ip(s, address) / ICMPv6Unknown(type=kind) / Raw(s.token)
        bent = ICMPv6ND_NS(tgt=address, code=1) / ICMPv6NDOptSrcLLAddr(lladdr=s.m1)
        yield _ether(s) / _ip(s, address) / bent
        yield _ether(s) / _ip(s, address, hlim=64) / _solicitation(s, address)


def _other_protocols(s: Stage) -> Iterator[Packet]:
    for address in METADATA:
        for protocol in range(256):
            if protocol not in (6, 58):
                yield _ether(s) / _ip(s, address, nh=protocol) / Raw(bytes(16) + s.token)


def _other_addresses_of_nodes(s: Stage) -> Iterator[Packet]:
    for mac in (s.bridge, *s.port_macs):
        for to in (of_mac(s.bridge), of_mac(mac), "::1", f"::ffff:{s.md}", "fe80::", of_mac(s.mf)):
            head = _ether(s, mac) / _ip(s, to)
            yield head / _syn(s)
            yield head / _syn(s, SERVICE)
            yield head / ICMPv6EchoRequest() / Raw(s.token)


def _tunnels(s: Stage) -> Iterator[Packet]:
    inner = _ip(s, LINK_LOCAL) / _syn(s)
    for to in (s.md, s.if_):  # under same-node a peer may be sent any IPv4
        ether, head = _ether(s), IP(src=s.i1, dst=to)
        yield ether / IP(src=s.i1, dst=to, proto=41) / inner
        yield ether / head / UDP(sport=s.port, dport=3544) / inner
        yield ether / IP(src=s.i1, dst=to, proto=47) / GRE(proto=0x86DD) / inner
    for address in METADATA:
        head = _ether(s) / _ip(s, address)
        yield head / inner
        yield head / IP(src=s.i1, dst=s.md) / _syn(s)
        yield head / GRE(proto=0x86DD) / inner
        yield head / UDP(sport=s.port, dport=4789) / inner


def _lengths(s: Stage) -> Iterator[Packet | bytes]:
    for address in METADATA:
        for length in (0, 4, 19, 400, 65535):
            yield _ether(s) / _ip(s, address, plen=length) / _syn(s)
        for length in (0, 8, 24, 31, 33, 400):
            yield _ether(s) / _ip(s, address, plen=length) / _solicitation(s, address)
        for version in (0, 4, 5, 15):
            yield _ether(s) / _ip(s, address, version=version) / _syn(s)
        yield Ether(dst=s.bridge, src=s.m1, type=0x0800) / _ip(s, address) / _syn(s)
    yield Ether(dst=s.bridge, src=s.m1, type=0x86DD) / IP(src=s.i1, dst=s.md) / _syn(s)
    yield bytes(Ether(dst=s.bridge, src=s.m1, type=0x86DD)) + bytes(8)


def _tags(s: Stage) -> Iterator[Packet]:
    for address in METADATA:
        for body in (_ip(s, address) / _syn(s), _ip(s, address) / _solicitation(s, address)):
            for mac in (s.bridge, group_mac(address), "01:80:c2:00:00:0e"):
                yield _ether(s, mac) / Dot1Q(vlan=0) / body
                yield _ether(s, mac) / Dot1Q(vlan=0) / Dot1Q(vlan=0) / body
                yield Dot3(dst=mac, src=s.m1) / LLC() / SNAP(code=0x86DD) / body
            yield _ether(s, "01:80:c2:00:00:0e") / body


def _frames_of_groups(s: Stage) -> Iterator[Packet]:
    for address in METADATA:
        for mac in (_ALL_NODES[0], group_mac(address), "ff:ff:ff:ff:ff:ff", s.m2, _UNKNOWN):
            yield _ether(s, mac) / _ip(s, address) / _syn(s)
        for mac in (_ALL_NODES[0], "ff:ff:ff:ff:ff:ff", s.m2, _UNKNOWN):
            yield _ether(s, mac) / _ip(s, group(address)) / _solicitation(s, address)
        yield _ether(s) / _ip(s, group(address)) / _syn(s)


def _crowd(s: Stage) -> Iterator[Packet]:
    for number in range(1, 300):
        source = f"fe80::bad:{number:x}"
        ether = _ether(s, group_mac(LINK_LOCAL))
        yield ether / _ip(s, group(LINK_LOCAL), source) / _solicitation(s, LINK_LOCAL)


def _hops(stage: Stage) -> Observed:
    """The hop limit of what answers; the sender's own makes no difference."""
    seen = stage.attack(
        (
            _ether(stage) / _ip(stage, one, hlim=hops) / _syn(stage)
            for one in METADATA
            for hops in (1, 255)
        ),
        _answered,
        enough=1000,
    )
    limits = {
        Ether(frame.data)[IPv6].hlim for frame in seen.frames if _answered(stage, Ether(frame.data))
    }
    seen.verdict = (
        "answered, hop limit " + ", ".join(map(str, sorted(limits))) if limits else DROPPED
    )
    return seen


_HOPS: Final = "answered, hop limit 1"

ROWS: Final = (
    Row("201", "Control: GET by IPv6", "EC2's IPv6 endpoint", ALLOWED, in_lab=_get),
    dropped(
        "202", "Advertise the service's address to others", "CVE-2021-20267", _service_to_others
    ),
    dropped("203", "Advertise an own address", "RFC 4861 7.2.6", _own_advertised),
    dropped("204", "Solicit as a peer", "CVE-2021-20267", _solicit_as_others, _answered),
    dropped("205", "Solicit with another's MAC", "RFC 4861 4.3", _solicit_with_anothers_mac),
    dropped("206", "Solicit addresses of others", "RFC 4861 7.2", _solicit_others),
    dropped("207", "Duplicates of others' addresses", "RFC 4862 5.4", _duplicates),
    dropped("208", "Router advertisement and solicitation", "CVE-2020-13401", _router),
    dropped("209", "Redirects", "RFC 4861 8", _redirects),
    dropped("210", "Extension headers", "RFC 7045", _extensions, _answered),
    dropped("211", "Fragments", "RFC 5722, RFC 6980", _fragments, _answered),
    dropped("212", "Connect from another address", "CVE-2013-6419", _other_sources, _answered),
    dropped("213", "Send from another MAC", "CVE-2021-38598", _other_macs, _answered),
    dropped("214", "Reflect off the node", "row 39", _reflect, _reflected),
    dropped("215", "Peers, by their MAC and by the node", "OSSN-0069", _peers),
    dropped("216", "Groups: scan, mDNS, DHCPv6", "RFC 7707 4.3", _groups),
    dropped("217", "Queriers and members of groups", "RFC 3810", _listeners),
    dropped("218", "Other ports of the service's addresses", "row 46", _other_ports, _answered),
    dropped("219", "Other messages of ICMPv6", "RFC 4890", _other_messages),
    dropped("220", "Other protocols", "row 62", _other_protocols),
    dropped("221", "Other addresses of nodes", "OSSN-0069", _other_addresses_of_nodes, _answered),
    dropped("222", "Tunnels: 6in4, Teredo, GRE, 4in6", "RFC 6169", _tunnels, _answered),
    dropped("223", "Lengths, versions and types that lie", "RFC 8200 3", _lengths, _answered),
    dropped("224", "VLAN tags, SNAP and LLDP's group", "CVE-2021-27853", _tags, _answered),
    dropped("225", "In frames to others and to groups", "row 37", _frames_of_groups, _answered),
    dropped("226", "Neighbour-table exhaustion", "RFC 6583", _crowd),
    Row("227", "Hop limits", "RFC 3927 2.7, EC2's hop limit", _HOPS, play=_hops),
)
