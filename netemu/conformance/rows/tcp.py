"""TCP: attacks on other guests' connections, and more connections than a guest's share."""

import time
from typing import Final

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from hostagent.responder.server import Limits
from netemu.conformance.inside import Inside
from netemu.conformance.labstage import LabStage
from netemu.conformance.roles import HTTP
from netemu.conformance.row import ALLOWED, DROPPED, LIMITED, Observed, Row
from netemu.conformance.rows.arp import arp
from netemu.conformance.rows.ethernet import syn
from netemu.conformance.rows.ipv4 import to_node
from netemu.conformance.stage import (
    CONTROL_PATIENCE,
    INSTANCE_INFO,
    Stage,
    is_answered_as,
    status_of,
)
from netemu.kernel.guard import CONNECTION_BURST, CONNECTIONS_PER_SECOND
from netemu.linklocal.timing import Timing

KEEP: Final = INSTANCE_INFO.replace(b"Connection: close\r\n", b"")
_NOWHERE: Final = KEEP.replace(b"/metadata/v1/InstanceInfo", b"/injected-by-another")
_HELD_PER_GUEST: Final = Limits().held_per_guest
# Far more than the responder holds for one guest.
_MANY: Final = 4 * _HELD_PER_GUEST
# A flood that one CPU sends in a second.
_FLOOD: Final = 1.0
# How long a guest may wait while another floods. Its own share of the machine is small then: the
# attacker's process alone takes one of two CPUs.
_LONGEST_WAIT: Final = 0.5
# The most floods, until one in which the victim does not wait longer.
_FLOODS: Final = 4


def _victims_connection(stage: LabStage) -> tuple[int, int, int]:
    """Open a kept-alive connection of the victim. Returns its port, and its next seq and ack."""
    stage.victim.call(Inside.drop)
    _, port = stage.victim.call(Inside.dial, "kept", stage.md, HTTP)
    stage.victim.call(Inside.say, "kept", KEEP)
    stage.victim.call(Inside.hear, "kept", CONTROL_PATIENCE)
    time.sleep(0.05)  # for the last acknowledgement
    seq = ack = 0
    for place, outgoing, frame in stage.heard():
        packet = Ether(frame)
        if place is stage.victim and outgoing and TCP in packet and packet[TCP].sport == port:
            tcp = packet[TCP]
            length = packet[IP].len - 4 * packet[IP].ihl - 4 * tcp.dataofs
            seq = (tcp.seq + length + (1 if tcp.flags.S else 0)) % 2**32
            ack = tcp.ack or ack
    return port, seq, ack


def _as_victim(stage: Stage, port: int, **tcp: object) -> list[Packet]:
    segment = IP(src=stage.i2, dst=stage.md) / TCP(sport=port, dport=HTTP, **tcp)
    return [
        Ether(dst=stage.bridge, src=stage.m1) / segment,
        Ether(dst=stage.bridge, src=stage.m2) / segment,
        Ether(dst=stage.bridge, src=stage.m1) / IP(src=stage.i1, dst=stage.md) / segment[TCP],
    ]


def _inject(stage: LabStage) -> Observed:
    """Insert a request of the attacker at the right place of the victim's connection."""
    port, seq, ack = _victims_connection(stage)
    frames = [one / _NOWHERE for one in _as_victim(stage, port, flags="PA", seq=seq, ack=ack)[:2]]
    seen = stage.attack(frames)
    said, _ = stage.victim.call(Inside.hear, "kept", 0.1)
    if said:
        seen.verdict = "injected"
        seen.evidence.append(f"the victim is told {status_of(said)} without having asked")
    stage.victim.call(Inside.hang_up, "kept")
    return seen


def _cut(stage: LabStage) -> Observed:
    """Reset the victim's connection, or end it."""
    port, seq, ack = _victims_connection(stage)
    frames: list[Packet] = []
    for flags in ("R", "RA", "FA"):
        frames += _as_victim(stage, port, flags=flags, seq=seq, ack=ack)[:2]
    to_victim = IP(src=stage.md, dst=stage.i2) / TCP(sport=HTTP, dport=port, flags="R", seq=ack)
    frames.append(Ether(dst=stage.m2, src=stage.m1) / to_victim)
    seen = stage.attack(frames)
    wrong = stage.victim.call(Inside.say, "kept", KEEP)
    answer, _ = stage.victim.call(Inside.hear, "kept", CONTROL_PATIENCE)
    if wrong or not is_answered_as(answer, stage.two.name):
        seen.verdict = "cut"
        seen.evidence.append(f"the victim's connection is gone: {wrong or 'no answer'}")
    stage.victim.call(Inside.hang_up, "kept")
    return seen


def _syn_flood(stage: LabStage) -> Observed:
    """Send SYNs from changing ports while the victim connects again and again.

    Other load on the machine delays the victim too, but not each time.
    """
    for _ in range(_FLOODS):
        seen, worst = _one_syn_flood(stage)
        if seen.verdict == ALLOWED or worst <= _LONGEST_WAIT:
            return seen
    seen.verdict = ALLOWED
    return seen


def _one_syn_flood(stage: LabStage) -> tuple[Observed, float]:
    """The outcome of one flood, and the victim's longest wait."""
    head = bytes(to_node(stage) / syn(stage))
    # Only the ports and the checksum change: they are patched, since scapy is slow.
    frames = [_with_port(head, 1024 + n) + stage.token for n in range(0, 60000, 3)]
    stage.sent += frames[:3]
    before = stage.received()
    begun = time.monotonic()
    stage.hear_control()
    flood = stage.attacker.post(Inside.flood, stage.attacker.interface, frames[:1000], _FLOOD)
    worst, answered = 0.0, 0
    while time.monotonic() - begun < _FLOOD:
        answer, _, taken = stage.honest_get()
        worst = max(worst, taken)
        answered += is_answered_as(answer, stage.two.name)
    sent = flood.result()
    took = time.monotonic() - begun
    through = stage.received() - before
    # Each SYN that comes in is answered, and the answer reset by the attacker's kernel. The rest is
    # the victim's.
    honest = 10 * answered + 200
    bound = 2 * (CONNECTION_BURST + CONNECTIONS_PER_SECOND * took) + honest
    evidence = [
        f"{through} of {sent} frames came in, the bound is {bound:.0f}",
        f"the victim was answered {answered} times, after {worst * 1000:.0f} ms at worst",
    ]
    within = through <= bound and answered > 0
    return Observed(LIMITED if within else ALLOWED, evidence), worst


def _with_port(frame: bytes, port: int) -> bytes:
    old = int.from_bytes(frame[34:36], "big")
    checksum = int.from_bytes(frame[50:52], "big")
    # RFC 1624: HC' = ~(~HC + ~m + m')
    total = (~checksum & 0xFFFF) + (~old & 0xFFFF) + port
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return (
        frame[:34]
        + port.to_bytes(2, "big")
        + frame[36:50]
        + (~total & 0xFFFF).to_bytes(2, "big")
        + frame[52:]
    )


def _many(stage: LabStage, said: bytes, room: int | None = None) -> Observed:
    """Open many connections, send something on each, and count those that are held."""
    names = [f"many{n}" for n in range(_MANY)]
    opened = []
    for name in names:
        wrong, _ = stage.attacker.call(Inside.dial, name, stage.md, HTTP, patience=0.5, room=room)
        if not wrong:
            opened.append(name)
            stage.attacker.call(Inside.say, name, said)
    end = time.monotonic() + CONTROL_PATIENCE
    while (held := stage.connections(stage.i1)) > _HELD_PER_GUEST and time.monotonic() < end:
        time.sleep(0.05)
    served = stage.control()
    for name in names:
        stage.attacker.call(Inside.hang_up, name)
    evidence = [
        f"of {len(opened)} connections the node holds {held}; the bound is {_HELD_PER_GUEST}",
        f"the victim is answered meanwhile: {served}",
    ]
    if not opened:
        return Observed(DROPPED, evidence)
    return Observed(LIMITED if held <= _HELD_PER_GUEST and served else ALLOWED, evidence)


def _idle(stage: LabStage) -> Observed:
    return _many(stage, b"GET /")


def _zero_window(stage: LabStage) -> Observed:
    return _many(stage, KEEP * 400, room=1024)


def _hand_over(stage: LabStage) -> Observed:
    """The attacker's address goes to the victim, which tries to continue its connection."""
    stage.hear_control()
    address = stage.i1
    stage.attacker.call(Inside.drop)
    _, port = stage.attacker.call(Inside.dial, "kept", stage.md, HTTP)
    stage.attacker.call(Inside.say, "kept", KEEP)
    stage.attacker.call(Inside.hear, "kept", 0.3)
    seq = ack = 0
    for place, outgoing, frame in stage.heard():
        packet = Ether(frame)
        if place is stage.attacker and outgoing and TCP in packet and packet[TCP].sport == port:
            length = packet[IP].len - 4 * packet[IP].ihl - 4 * packet[TCP].dataofs
            seq, ack = packet[TCP].seq + length, packet[TCP].ack or ack
    try:
        stage.attacker.run("ip", "link", "set", stage.attacker.interface, "down")
        probe = (
            Ether(dst="ff:ff:ff:ff:ff:ff", src=stage.m2)
            / arp(stage, psrc="0.0.0.0", pdst=address, hwsrc=stage.m2).payload
        )
        timing = Timing().scaled(stage.time_scale)
        for _ in range(3):
            stage.victim.send([bytes(probe)])
            time.sleep(timing.probe_min)
        stage.victim.call(Inside.drop)
        onward = (
            Ether(dst=stage.bridge, src=stage.m2)
            / IP(src=address, dst=stage.md)
            / TCP(sport=port, dport=HTTP, flags="PA", seq=seq, ack=ack)
            / KEEP
        )
        stage.sent.append(bytes(onward))
        stage.victim.send([bytes(onward)])
        time.sleep(0.1)
        _, heard = stage.victim.call(Inside.take, b"\0never", 0.05)
        answers = [Ether(frame) for _, outgoing, frame in heard if not outgoing]
        segments = [one[TCP] for one in answers if TCP in one and one[TCP].dport == port]
    finally:
        stage.attacker.run("ip", "link", "set", stage.attacker.interface, "up")
        stage.attacker.call(Inside.hang_up, "kept")
        stage.reboot(stage.two.name)
        stage.await_bound(stage.one.name)
        stage.await_bound(stage.two.name)
    if any(bytes(one.payload) for one in segments):
        return Observed("answered", [f"{stage.two.name} was answered on another's connection"])
    if any(one.flags.R for one in segments):
        return Observed("RST")
    return Observed("silence", [f"{len(segments)} segments came back"])


ROWS: Final = (
    Row("40", "Inject into the victim's connection", "RFC 5961", in_lab=_inject),
    Row("41", "RST or FIN into the victim's connection", "RFC 5961", in_lab=_cut),
    Row("63", "SYN flood", "RFC 4987", LIMITED, in_lab=_syn_flood),
    Row("65", "Hoard connections", "Firecracker: 30 a guest", LIMITED, in_lab=_idle),
    Row("66", "Zero window", "RFC 9293 3.8.6.1", LIMITED, in_lab=_zero_window),
    Row(
        "76", "Keep-alive across a hand-over of an address", "RFC 3927 5", "RST", in_lab=_hand_over
    ),
)
