"""The host: attacks without a frame, and moments without a guard."""

import time
from typing import Final

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from netemu.conformance.inside import Inside
from netemu.conformance.labstage import LabStage
from netemu.conformance.roles import BROADCAST, HTTP
from netemu.conformance.row import ALLOWED, DROPPED, REFUSED, Observed, Row, refused
from netemu.conformance.rows.arp import REPLY, arp
from netemu.conformance.rows.ethernet import syn
from netemu.conformance.stage import INSTANCE_INFO, Stage, is_answered_as

# How often the guard is replaced while the attacker sends.
_RELOADS: Final = 5


def _own_mark(stage: LabStage) -> Observed:
    """Set the victim's mark on the attacker's socket: the responder must still know the port."""
    for mark in (int(stage.two.port[1:]), 0xFFFFFFFF, 1):
        answer = b""
        wrong, _ = stage.attacker.call(Inside.dial, "marked", stage.md, HTTP, mark=mark)
        if not wrong:
            stage.attacker.call(Inside.say, "marked", INSTANCE_INFO)
            answer, _ = stage.attacker.call(Inside.hear, "marked", 1.0)
        stage.attacker.call(Inside.hang_up, "marked")
        if not is_answered_as(answer, stage.one.name):
            return Observed("believed", [f"mark {mark}: {wrong or answer[-200:]!r}"])
        if not stage.known_by_port():
            return Observed("not by its port", ["the responder's record has not the port's mark"])
    return Observed("scrubbed", [f"answered as {stage.one.name} whatever the socket's mark"])


def _poison(s: Stage) -> list[Packet]:
    """Frames that would do harm in a single moment without a guard."""
    return [
        arp(s, op=REPLY, psrc=s.md, hwdst=s.m2, pdst=s.i2),
        arp(s, psrc=s.i2, pdst=s.i2),
        Ether(dst=s.m2, src=s.m1) / IP(src=s.md, dst=s.i2) / UDP(dport=9),
        Ether(dst=s.bridge, src=s.m1) / syn(s, src=s.i2),
        Ether(dst=BROADCAST, src=s.m1, type=0x88B5) / Raw(b"x" * 46),
        Ether(dst=BROADCAST, src=s.m2) / ARP(op=1, hwsrc=s.m2, psrc=s.i2, pdst=s.md),
    ]


def _port_up(stage: LabStage) -> Observed:
    """Send while the link comes up, until the claim is done."""
    frames = [stage.signed(frame) for frame in _poison(stage)]
    stage.sent += frames
    seen = []
    for _ in range(3):
        stage.attacker.run("ip", "link", "set", stage.attacker.interface, "down")
        stage.attacker.call(Inside.race, stage.attacker.interface, frames, 0.1)
    bound = stage.await_bound(stage.one.name)
    seen = stage.sightings()
    if not bound:
        return Observed("failed", [f"{stage.one.name} is not bound again"])
    return Observed(ALLOWED if seen else DROPPED, [], seen[:20])


def _reload(stage: LabStage) -> Observed:
    """Replace the guard, as one transaction, again and again while the attacker sends."""
    frames = [stage.signed(frame) for frame in _poison(stage)]
    stage.sent += frames
    rules = stage.rules()
    begun = time.monotonic()
    flood = stage.attacker.post(Inside.flood, stage.attacker.interface, frames * 20, 0.5)
    wrong = ""
    try:
        for _ in range(_RELOADS):
            stage.on_node("nft", "-f", "-", text=rules)
    finally:
        flood.result()
    took = time.monotonic() - begun
    seen = stage.sightings()
    evidence = [f"{_RELOADS} reloads within {took:.2f} s {wrong}"]
    return Observed(ALLOWED if seen else DROPPED, evidence, seen[:20])


def _sockets(stage: LabStage) -> Observed:
    with stage.process_of_attacker() as guest:
        reached = guest.call(Inside.reach, stage.management_sockets(), ["hostagent", "netemu"])
    return Observed("reached" if reached else REFUSED, [f"reached {one}" for one in reached])


def _escape(stage: LabStage) -> Observed:
    with stage.process_of_attacker() as guest:
        entered = guest.call(Inside.escape)
    return Observed("entered" if entered else REFUSED, [f"entered {one}" for one in entered[:10]])


ROWS: Final = (
    Row(
        "75",
        "A guest sets SO_MARK",
        "veth scrubs it",
        "scrubbed",
        in_lab=_own_mark,
        held_by_kernel="a veth takes the mark off whatever crosses from namespace to namespace",
    ),
    Row("77", "Port-up race: send from link-up on", "OSSA-2015-018", in_lab=_port_up),
    Row("78", "Window while the guard is reloaded", "nft: one transaction", in_lab=_reload),
    refused(79, "Management sockets, by path and abstract", "CVE-2020-15257", _sockets),
    refused(80, "Namespace escape", "setns(2)", _escape),
)
