"""DHCP where the lab leases addresses (`dhcp: true`): a guest gets its own lease, and no other.

These rows are numbered from 301. They are played in a lab with DHCP.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Final

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from netemu.conformance.labstage import LabStage
from netemu.conformance.roles import BROADCAST
from netemu.conformance.row import (
    LIMITED,
    REFUSED,
    Frame,
    Observed,
    Row,
    dropped,
    refused,
)
from netemu.conformance.rows.arp import REPLY, arp
from netemu.conformance.rows.ethernet import syn
from netemu.conformance.stage import CONTROL_PATIENCE, Stage
from netemu.errors import NotSo
from netemu.interfaces import octets
from netemu.kernel.guard import DHCP_BURST, DHCP_PER_SECOND
from netemu.linklocal.addresses import WIRE_SERVER_TEXT

_EVERYWHERE: Final = "255.255.255.255"
_SILENT: Final = "silent"
_NAK: Final = 6
_CLIENTS: Final = 200
_AGAIN: Final = 0.05
# A host plug-in of Azure's has the third.
_SWEPT: Final = (22, 53, 32526, 67, 443)


def _number(stage: Stage, at: int) -> int:
    """A transaction's number that is this row's."""
    return int.from_bytes(stage.token[at : at + 4], "big")


def _asked(
    s: Stage,
    kind: str,
    *,
    mac: str = "",
    source: str = "",
    to: tuple[str, str] = (BROADCAST, _EVERYWHERE),
    ip: str = "0.0.0.0",
    held: str = "0.0.0.0",
    wanted: str = "",
    number: int | None = None,
) -> Packet:
    """What a client says; `mac` is the one that it says it has, `source` the frame's."""
    options: list[tuple[str, str] | str] = [("message-type", kind)]
    if wanted:
        options.append(("requested_addr", wanted))
    head = Ether(dst=to[0], src=source or s.m1) / IP(src=ip, dst=to[1]) / UDP(sport=68, dport=67)
    xid = _number(s, 2) if number is None else number
    message = BOOTP(op=1, xid=xid, ciaddr=held, chaddr=octets(mac or s.m1))
    return head / message / DHCP(options=[*options, "end"])


def _answers(_: Stage, frame: Packet) -> bool:
    """Whether it is a DHCP server's."""
    return BOOTP in frame and frame[BOOTP].op == 2


def _kind(frame: Packet) -> int:
    return next((one[1] for one in frame[DHCP].options if one[0] == "message-type"), 0)


def _answers_after(stage: LabStage, frames: Iterable[Packet]) -> tuple[list[Frame], list[Frame]]:
    """Send the attacker's frames, and after them an honest question of the victim's. Returns the
    server's answers to the attacker's, and the frames of its own that came anywhere.

    The server has read all of them once it has answered the victim. Raises NotSo if it does not.
    """
    batch = [stage.signed(frame) for frame in frames]
    stage.sent += batch
    stage.attacker.send(batch)
    honest = _asked(stage, "discover", mac=stage.m2, source=stage.m2, number=_number(stage, 6))
    answers: list[Frame] = []
    others: list[Frame] = []
    end = time.monotonic() + CONTROL_PATIENCE
    while time.monotonic() < end:
        stage.victim.send([bytes(honest)])
        for one in stage.sightings(_answers):
            frame = Ether(one.data)
            (answers if _answers(stage, frame) else others).append(one)
        wanted = [one for one in answers if Ether(one.data)[BOOTP].xid == _number(stage, 6)]
        if any(one.place == stage.two.name for one in wanted):
            return [one for one in answers if one not in wanted], others
        time.sleep(_AGAIN)
    raise NotSo(f"{stage.two.name}: its DHCP server does not answer it")


def _rogue_server(s: Stage) -> Iterator[Packet]:
    for kind in ("offer", "ack", "nak"):
        for mac, ip in ((s.m1, s.i1), (s.m1, s.md), (s.bridge, s.md)):
            for dst, to in ((BROADCAST, _EVERYWHERE), (s.m2, s.i2), (s.bridge, s.md)):
                for ports in ((67, 68), (68, 68), (67, 67)):
                    head = IP(src=ip, dst=to) / UDP(sport=ports[0], dport=ports[1])
                    reply = BOOTP(op=2, yiaddr="169.254.9.9", siaddr=s.i1, chaddr=octets(s.m2))
                    options = [("message-type", kind), ("router", s.i1), ("name_server", s.i1)]
                    yield (Ether(dst=dst, src=mac) / head / reply / DHCP(options=[*options, "end"]))


def _anothers_lease(stage: LabStage) -> Observed:
    """Ask for the victim's address, as oneself and as the victim; then give it back for it."""
    node = stage.bridge, stage.md
    frames = [
        _asked(stage, "request", wanted=stage.i2),
        _asked(stage, "request", held=stage.i2, ip=stage.i2, to=node),
        _asked(stage, "request", held=stage.i2, ip=stage.i1, to=node),
        _asked(stage, "request", wanted=stage.i2, mac=stage.m2),
        _asked(stage, "request", wanted=stage.i2, mac=stage.m2, source=stage.m2),
        _asked(stage, "inform", held=stage.i2, ip=stage.i1, to=node),
        _asked(stage, "release", held=stage.i2, ip=stage.i1, to=node, mac=stage.m2),
        _asked(stage, "decline", wanted=stage.i2, mac=stage.m2),
        _asked(stage, "decline", wanted=stage.i2),
    ]
    answers, _ = _answers_after(stage, frames)
    granted = [one for one in answers if _kind(Ether(one.data)) != _NAK]
    if stage.bound(stage.two.name) != stage.i2:
        return Observed("taken away", ["the victim no longer holds its address"])
    if not answers:
        return Observed(_SILENT, ["a request for another's address is not refused"])
    return Observed("granted" if granted else REFUSED, [], granted or answers)


def _spoofed_hardware(stage: LabStage) -> Observed:
    """Ask as others, by the message's hardware address and by the frame's."""
    frames = [
        _asked(stage, kind, mac=mac, source=source)
        for kind in ("discover", "request")
        for mac in (stage.m2, stage.m3, "02:99:00:00:00:01")
        for source in (stage.m1, mac)
    ]
    answers, _ = _answers_after(stage, frames)
    return Observed("answered" if answers else _SILENT, [], answers)


def _starvation(stage: LabStage) -> Observed:
    """Be many clients that want all addresses, while the victim wants its own."""
    begun = time.monotonic()
    frames = [
        _asked(stage, kind, mac=f"02:99:00:00:00:{number:02x}", wanted=f"169.254.200.{number}")
        for number in range(_CLIENTS)
        for kind in ("discover", "request")
    ]
    answers, others = _answers_after(stage, frames)
    reached = [one for one in others if one.place == stage.node.name]
    most = DHCP_BURST + DHCP_PER_SECOND * (time.monotonic() - begun + 1)
    evidence = [f"{len(reached)} of {len(frames)} reached the node; the bound is {most:.0f}"]
    if answers:
        return Observed("answered", evidence, answers[:20])
    return Observed(LIMITED if len(reached) <= most else "unlimited", evidence, reached[:20])


def _names_of_others(s: Stage) -> Iterator[Packet]:
    question = DNS(rd=1, qd=DNSQR(qname="metadata.google.internal"))
    ether = Ether(dst=s.bridge, src=s.m1)
    for source in (s.i2, s.i3, s.md, "0.0.0.0"):
        yield ether / IP(src=source, dst=s.md) / UDP(sport=s.port, dport=53) / question
    for to in (_EVERYWHERE, "169.254.255.255", s.if_):
        yield ether / IP(src=s.i1, dst=to) / UDP(sport=s.port, dport=53) / question
    yield ether / IP(src=s.i1, dst=s.md) / TCP(sport=s.port, dport=53, flags="S")
    forged = DNS(qr=1, qd=question.qd, an=DNSRR(rrname="metadata.google.internal", rdata=s.i1))
    for source, mac in ((s.md, s.m1), (s.md, s.bridge)):
        head = IP(src=source, dst=s.i2) / UDP(sport=53, dport=40000)
        yield Ether(dst=s.m2, src=mac) / head / forged


def _wire_server_of_others(s: Stage) -> Iterator[Packet]:
    ether = Ether(dst=s.bridge, src=s.m1)
    for source in (s.i2, s.i3, s.md, WIRE_SERVER_TEXT, "0.0.0.0"):
        yield ether / syn(s, src=source, dst=WIRE_SERVER_TEXT)
    head = IP(src=s.i1, dst=WIRE_SERVER_TEXT)
    for port in _SWEPT:
        yield ether / head / TCP(sport=s.port, dport=port, flags="S")
        yield ether / head / UDP(sport=s.port, dport=port)
    yield ether / head / ICMP()
    yield Ether(dst=BROADCAST, src=s.m1) / syn(s, dst=WIRE_SERVER_TEXT)
    for target in (BROADCAST, s.bridge):
        yield arp(s, dst=target, psrc=s.i2, pdst=WIRE_SERVER_TEXT)
        yield arp(s, dst=target, psrc=WIRE_SERVER_TEXT, pdst=s.i2)
        yield arp(s, dst=target, op=REPLY, psrc=WIRE_SERVER_TEXT, hwdst=s.m2, pdst=s.i2)
    for mac in (s.m1, s.bridge):
        forged = TCP(sport=80, dport=40000, flags="SA", ack=1)
        yield Ether(dst=s.m2, src=mac) / IP(src=WIRE_SERVER_TEXT, dst=s.i2) / forged


def _told_by_wire_server(s: Stage, frame: Packet) -> bool:
    return IP in frame and frame[IP].src == WIRE_SERVER_TEXT and frame.src == s.bridge


def _resolved(s: Stage, frame: Packet) -> bool:
    return UDP in frame and frame[UDP].sport == 53 and frame.src == s.bridge


ROWS: Final = (
    dropped("301", "Rogue DHCP server where addresses are leased", "CVE-2020-8903", _rogue_server),
    refused(302, "Another's lease", "RFC 2131 4.3.2", _anothers_lease),
    Row("303", "Spoofed hardware address", "OSSA-2016-009", _SILENT, in_lab=_spoofed_hardware),
    Row("304", "Starvation: many clients of one", "RFC 2131 7", LIMITED, in_lab=_starvation),
    dropped(
        "305", "Names asked for as another, and forged", "RFC 5452", _names_of_others, _resolved
    ),
    dropped(
        "306",
        "Azure's wire server as another, and forged",
        "CVE-2021-27075",
        _wire_server_of_others,
        _told_by_wire_server,
    ),
)
