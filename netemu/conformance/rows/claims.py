"""Claims: who may claim an address, and attempts to keep others from claiming."""

import time
from collections.abc import Iterator
from typing import Final

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from netemu.conformance.inside import Inside
from netemu.conformance.labstage import LabStage
from netemu.conformance.roles import BROADCAST, HTTP
from netemu.conformance.row import (
    ALLOWED,
    ANSWERED,
    DROPPED,
    LIMITED,
    Frame,
    Observed,
    Row,
    dropped,
)
from netemu.conformance.rows.arp import REPLY, REQUEST, arp
from netemu.conformance.stage import Stage
from netemu.errors import NotSo
from netemu.interfaces import octets
from netemu.kernel.guard import OVERHEARD_BURST, OVERHEARD_PER_MINUTE
from netemu.linklocal import addresses
from netemu.linklocal.addresses import BROADCAST_TEXT, NETWORK_TEXT
from netemu.linklocal.timing import Timing

# Seconds that a busy machine may be late with what takes a moment otherwise.
_BUSY: Final = 5.0
# Attempts until one frame is heard.
_TRIES: Final = 3


def _guessed_candidates(stage: LabStage) -> list[str]:
    """The addresses that the victim will try: its last one, and those drawn from its MAC, which
    anybody can compute. The attacker's own is its own to speak of.
    """
    mac = octets(stage.m2)
    drawn = (addresses.to_text(addresses.candidate(mac, n)) for n in range(12))
    return [one for one in (stage.i2, *drawn) if one != stage.i1]


def _storm(stage: LabStage, frames: list[Packet]) -> tuple[bool, list[Frame]]:
    """Send frames while the victim claims. Returns whether it is bound, and what was seen."""
    flood = [stage.signed(frame) for frame in frames]
    stage.sent += flood
    stage.victim.call(Inside.drop)
    stage.reboot(stage.two.name)
    timing = Timing().scaled(stage.time_scale)
    longest = timing.probe_wait + 2 * timing.probe_max + timing.announce_wait
    end = time.monotonic() + longest + _BUSY
    bound = False
    while time.monotonic() < end and not bound:
        stage.attacker.send(flood)
        bound = stage.bound(stage.two.name) is not None
        time.sleep(0.005)
    stage.await_bound(stage.two.name)
    _come_back(stage)
    return bound, stage.sightings()


# A node looks at what is said every 20 ms, and less often on a busy machine.
_LOOKED_AT: Final = 2.0


def _come_back(stage: LabStage) -> None:
    """Probing for an address gives up the one that was held: claim it again."""
    if stage.bound(stage.one.name) is None:
        stage.reboot(stage.one.name)
        stage.await_bound(stage.one.name)


def _storm_of_replies(stage: LabStage) -> Observed:
    frames = [
        arp(stage, dst=dst, op=op, psrc=address, pdst=address)
        for address in _guessed_candidates(stage)
        for dst, op in ((BROADCAST, REPLY), (stage.m2, REPLY), (BROADCAST, REQUEST))
    ]
    bound, seen = _storm(stage, frames)
    if bound and not seen:
        return Observed(DROPPED)
    places = ", ".join(sorted({one.place for one in seen}))
    evidence = [
        f"{len(seen)} conflicting frames were seen at {places}; the victim is bound: {bound}"
    ]
    return Observed(ALLOWED, evidence, seen[:20])


def _storm_of_probes(stage: LabStage) -> Observed:
    frames = [arp(stage, psrc="0.0.0.0", pdst=one) for one in _guessed_candidates(stage)]
    begun = time.monotonic()
    bound, seen = _storm(stage, frames)
    taken = time.monotonic() - begun
    if stage.row.expected(stage.policy) == LIMITED and not _at_victim(stage, seen):
        seen += _until_heard(stage, frames[:1])
    at_victim = _at_victim(stage, seen)
    # The node must hear the probe, to answer for the address's holder; the guests must not.
    if bound and all(one.place == stage.node.name for one in seen):
        return Observed(DROPPED)
    most = OVERHEARD_BURST + OVERHEARD_PER_MINUTE / 60 * (taken + 1) / stage.time_scale
    evidence = [
        f"{len(at_victim)} probes reached the victim; the bound is {most:.0f}",
        f"the victim is bound: {bound}",
    ]
    return Observed(LIMITED if bound and len(at_victim) <= most else ALLOWED, evidence, seen[:20])


def _at_victim(stage: LabStage, seen: list[Frame]) -> list[Frame]:
    return [one for one in seen if one.place == stage.two.name]


def _until_heard(stage: LabStage, frames: list[Packet]) -> list[Frame]:
    """Send again once the limit allows frames: other frames may have used it up.

    The attacker's own claims count too: it waits until the limit allows two frames, and sends
    before it claims again.
    """
    for _ in range(_TRIES):
        time.sleep(2 * 60 / OVERHEARD_PER_MINUTE * stage.time_scale)
        stage.attacker.send([stage.signed(frame) for frame in frames])
        time.sleep(0.05)
        _come_back(stage)
        if seen := stage.sightings():
            return seen
    return []


def _hoard(stage: LabStage) -> Observed:
    """Announce addresses that it did not claim; then claim several, as fast as the rules let it."""
    wanted = [one for n in range(20) if (one := f"169.254.{200 + n}.7") != stage.i1]
    stage.sent = [stage.signed(arp(stage, psrc=one, pdst=one)) for one in wanted]
    stage.attacker.send(stage.sent)
    timing = Timing().scaled(stage.time_scale)
    for one in wanted[:5]:
        stage.attacker.send([bytes(arp(stage, psrc="0.0.0.0", pdst=one))])
    time.sleep(2.5 * timing.probe_min)
    held = stage.bound_to(stage.one.port)
    claimed = [one for one in wanted if one in held]
    stage.attacker.send(stage.sent)
    # Announcing a free address gives up the one that was held, once the node comes to look at it.
    end = time.monotonic() + _LOOKED_AT
    while stage.bound(stage.one.name) and time.monotonic() < end:
        time.sleep(0.02)
    _come_back(stage)
    through = stage.sightings()
    spoken = {frame.data[28:32] for frame in through}
    if len(spoken) > 1:
        evidence = [f"{len(spoken)} of the addresses were spoken from"]
        return Observed(ALLOWED, evidence, through[:20])
    return Observed("one", [f"of five claimed at once the port holds {claimed or 'none'}"])


def _use_anothers(stage: Stage) -> Observed:
    """Configure the victim's address, and connect from it with the kernel's own stack."""
    address = (f"{stage.i2}/16", "dev", stage.attacker.interface)
    code, _, said = stage.attacker.run("ip", "address", "add", *address, "scope", "link")
    if code:
        raise NotSo(f"{stage.one.name}: {said.strip()}")
    try:
        wrong, port = stage.attacker.call(Inside.dial, "stolen", stage.md, HTTP, source=stage.i2)
        seen = stage.sightings(_from_attacker_as_victim)
    finally:
        stage.attacker.call(Inside.hang_up, "stolen")
        stage.attacker.run("ip", "address", "del", *address)
    if not wrong:
        return Observed(ANSWERED, [f"a connection from {stage.i2}:{port} on {stage.one.name}"])
    return Observed(ALLOWED if seen else DROPPED, [], seen)


def _from_attacker_as_victim(stage: Stage, frame: Packet) -> bool:
    if frame.src != stage.m1:
        return False
    return bool(
        (ARP in frame and frame[ARP].psrc == stage.i2)
        or (IP in frame and frame[IP].src == stage.i2)
    )


RESERVED: Final = ("169.254.0.5", "169.254.255.5", NETWORK_TEXT, BROADCAST_TEXT)


def _reserved(s: Stage) -> Iterator[Packet]:
    for address in RESERVED:
        yield arp(s, psrc=address)
        yield arp(s, psrc=address, pdst=address)
        yield arp(s, psrc="0.0.0.0", pdst=address)
        yield (
            Ether(dst=s.bridge, src=s.m1)
            / IP(src=address, dst=s.md)
            / TCP(sport=s.port, dport=80, flags="S")
        )


UNBOUND: Final = ("169.254.123.45", "10.1.2.3", "192.0.2.1", "8.8.8.8")


def _unbound(s: Stage) -> Iterator[Packet]:
    for address in UNBOUND:
        if address == s.i1:
            continue
        yield arp(s, psrc=address)
        yield arp(s, psrc=address, dst=s.bridge)
        yield (
            Ether(dst=s.bridge, src=s.m1)
            / IP(src=address, dst=s.md)
            / TCP(sport=s.port, dport=80, flags="S")
        )


ROWS: Final = (
    Row(
        "08",
        "Conflict storm by replies while a peer claims",
        "RFC 3927 2.2.1 and 5",
        in_lab=_storm_of_replies,
    ),
    Row(
        "09",
        "Conflict storm by probes while a peer claims",
        "RFC 3927 2.2.1",
        DROPPED,
        LIMITED,
        in_lab=_storm_of_probes,
    ),
    Row("10", "Hoard addresses", "RFC 3927 2.2", "one", in_lab=_hoard),
    Row(
        "11",
        "Use an address that is bound to another",
        "on a plain bridge the last ARP wins",
        play=_use_anothers,
    ),
    dropped("12", "Reserved addresses of the range", "RFC 3927 2.1", _reserved),
    dropped("13", "Use an address without having probed for it", "RFC 3927 2.2", _unbound),
)
