"""A guest is master of its own stack: whatever it makes of eth0, only its own wire is behind it.

Links over eth0, other names and MACs, eth0 in a namespace of the guest's own, no eth0 at all; and
floods by which one guest would take the node away from the others. Under same-node, which lets
more by.
"""

import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import msgspec
import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from netemu.conformance.inside import Inside
from netemu.conformance.labstage import LabStage, running
from netemu.conformance.roles import BROADCAST, HTTP
from netemu.conformance.rows import CATALOGUE
from netemu.conformance.rows.arp import arp
from netemu.conformance.rows.ipv4 import to_node
from netemu.conformance.stage import is_answered_as
from netemu.kernel.guard import BROADCAST_BURST, BROADCASTS_PER_SECOND
from netemu.topology import DEMO, Policy, load
from tests.netemu.conformance.law import octets

pytestmark = [pytest.mark.lab, pytest.mark.long]

SCALE = 0.1
# What a guest may wait while another floods: the flood takes a half of a machine of two CPUs.
LONGEST_WAIT = 0.5
FLOOD = 0.5


@contextmanager
def lab(name: str) -> Iterator[LabStage]:
    place = Path(f"/tmp/nt-{name}-{os.getpid()}")
    place.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETEMU_RUNTIME_DIR", str(place))
        made = msgspec.structs.replace(load(DEMO, name=name), policy=Policy.SAME_NODE)
        with running(made, SCALE) as stage:
            stage.begin(CATALOGUE[0][1], 1)
            yield stage
    (place / ".netemu").unlink(missing_ok=True)
    place.rmdir()


@pytest.fixture
def stage() -> Iterator[LabStage]:
    """A lab for a test of its own, which may leave the attacker without a wire."""
    with lab("own") as made:
        yield made


@pytest.fixture(scope="module")
def flooded() -> Iterator[LabStage]:
    """A lab that floods leave as it was."""
    with lab("flooded") as made:
        yield made


def forged(stage: LabStage) -> list[str]:
    """Frames at the node whose source is a guest that never sent them, or nobody at all."""
    time.sleep(0.1)  # the way of a canary may be what the guest has taken away
    said = {octets(stage.m1): None}
    for guest in (stage.two, stage.three):
        heard = guest.place.call(Inside.heard)
        said[octets(guest.mac)] = {frame for _, outgoing, frame in heard if outgoing}
    found = []
    for _, outgoing, frame in stage.node.call(Inside.heard):
        sent = said.get(frame[6:12], set())
        as_another = frame[6:12] == octets(stage.m1) and not _speaks_as_attacker(stage, frame)
        if not outgoing and (as_another or (sent is not None and frame not in sent)):
            found.append(frame.hex())
    return found


def _speaks_as_attacker(stage: LabStage, frame: bytes) -> bool:
    at = 28 if frame[12:14] == b"\x08\x06" else 26
    return frame[at : at + 4] in (bytes(map(int, stage.i1.split("."))), bytes(4))


# What the guest makes of eth0, and the link by which it then speaks.
MAKE = {
    "a macvlan with a MAC of nobody's": (
        "ip link add foo link eth0 address 02:00:5e:10:00:07 type macvlan mode bridge", "foo",
    ),
    "a macvlan with the victim's MAC": (
        "ip link add foo link eth0 address {m2} type macvlan mode vepa", "foo",
    ),
    "a macvlan that takes eth0 over, with the victim's MAC": (
        "ip link add foo link eth0 type macvlan mode passthru; ip link set foo address {m2}", "foo",
    ),
    "a bridge, and a host behind it with the victim's MAC": (
        "ip link add sw type bridge; ip link add foo type veth peer name bar;"
        "ip link set foo address {m2}; ip link set bar master sw up;"
        "ip link set eth0 master sw; ip link set sw up", "foo",
    ),
    "eth0 with the victim's MAC": (
        "ip link set eth0 down; ip link set eth0 address {m2}", "eth0",
    ),
    "eth0 by another name": (
        "ip link set eth0 down; ip link set eth0 name foo", "foo",
    ),
    "eth0 with the victim's address": ("true", "eth0"),
    "eth0, routing and answering for everybody": (
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.eth0.proxy_arp=1"
        " net.ipv4.conf.all.arp_ignore=0; ip route add default dev eth0", "eth0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("made", MAKE)
def test_whatever_a_guest_makes_of_eth0_it_is_known_by_its_wire(stage: LabStage, made: str) -> None:
    """It takes the victim's address, and asks: nobody hears of it, nobody is told as the victim."""
    script, link = MAKE[made]
    believed = stage.stations(), stage.neighbours()
    ask = f"curl -s --max-time 0.5 --interface {link} http://{stage.md}/metadata/v1/InstanceInfo"
    with stage.process_of_attacker() as guest:
        _, out, err = guest.run(
            "sh", "-c",
            f"set -e; {script.format(m2=stage.m2)}; ip link set {link} up;"
            f"ip address flush dev {link}; ip address add {stage.i2}/16 dev {link} scope link;"
            f"ip rule del pref 3927 || true; ip route replace {stage.md} dev {link};"
            f"{ask} || true; ping -c 1 -W 1 -I {link} {stage.i3} >&2 || true",
        )  # fmt: skip
    assert "_web2" not in out
    assert "Error" not in err
    assert forged(stage) == []
    assert (stage.stations(), stage.neighbours()) == believed
    assert stage.control()


def test_eth0_in_a_namespace_of_the_guests_own_is_still_its_wire(stage: LabStage) -> None:
    """It moves eth0 away, speaks as the victim from there, and then both are gone."""
    with stage.process_of_attacker() as guest:
        code, out, err = guest.run(
            "sh", "-c",
            "unshare -n sleep 9 & sleep 0.2; ip link set eth0 netns $!;"
            f"nsenter -t $! -n sh -ec 'ip link set eth0 address {stage.m2}; ip link set eth0 up;"
            f"ip address add {stage.i2}/16 dev eth0; curl -s --max-time 0.5"
            f" http://{stage.md}/metadata/v1/InstanceInfo || true'; c=$?; kill $!; exit $c",
        )  # fmt: skip
    assert code == 0, err
    assert "_web2" not in out
    assert forged(stage) == []
    assert stage.control()


def test_a_guest_that_deletes_eth0_harms_itself_alone(stage: LabStage) -> None:
    with stage.process_of_attacker() as guest:
        assert guest.run("ip", "link", "del", "eth0")[0] == 0
    end = time.monotonic() + 5
    while stage.bound(stage.one.name) is not None and time.monotonic() < end:
        time.sleep(0.05)
    assert stage.bound(stage.one.name) is None
    assert stage.bound(stage.two.name) == stage.i2
    assert stage.control()


# Floods.

# Ask somebody by a connected UDP socket: what comes of it.
ASK = """
import socket, sys
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.bind(("", 5001))
link.connect((sys.argv[1], 5002))
link.settimeout(1)
try:
    link.send(b"x")
    link.recv(1)
except OSError as error:
    print(type(error).__name__)
"""


def worst_wait(flooded: LabStage) -> float:
    """Seconds that the victim waits at worst for an answer while the attacker floods."""
    begun = time.monotonic()
    worst = 0.0
    while time.monotonic() - begun < FLOOD:
        answer, end, taken = flooded.honest_get()
        assert is_answered_as(answer, flooded.two.name), end
        worst = max(worst, taken)
    return worst


def test_connections_that_stay_half_open_cost_the_victim_nothing(flooded: LabStage) -> None:
    """The attacker never says RST to the node's answers, so that each stays where it is."""
    with flooded.process_of_attacker() as guest:
        rules = (
            "table ip t { chain o { type filter hook output priority 0; tcp flags rst drop; }; }"
        )
        assert guest.run("nft", rules)[0] == 0
        syns = [
            bytes(to_node(flooded) / IP(src=flooded.i1, dst=flooded.md) / TCP(sport=port, dport=80))
            for port in range(2000, 5000)
        ]
        flood = flooded.attacker.post(Inside.flood, flooded.attacker.interface, syns, FLOOD)
        try:
            waited = worst_wait(flooded)
        finally:
            sent = flood.result()
        assert sent > len(syns)
        assert waited < LONGEST_WAIT
        end = time.monotonic() + 20  # the responder hears of the address a moment after the node
    while not is_answered_as(flooded.ask()[0], flooded.one.name):
        assert time.monotonic() < end


def test_connections_that_never_ask_cost_the_victim_nothing(flooded: LabStage) -> None:
    names = [f"mute{n}" for n in range(300)]
    opened = 0
    for name in names:
        wrong, _ = flooded.attacker.call(Inside.dial, name, flooded.md, HTTP, patience=0.2)
        opened += not wrong
    assert opened
    assert worst_wait(flooded) < LONGEST_WAIT
    for name in names:
        flooded.attacker.call(Inside.hang_up, name)


@pytest.mark.parametrize("kind", ["garbage", "questions", "announcements"])
def test_a_flood_of_frames_costs_the_victim_nothing(flooded: LabStage, kind: str) -> None:
    frame = {
        "garbage": Ether(dst=flooded.bridge, src=flooded.m1, type=0x88B5) / (b"x" * 1000),
        "questions": arp(flooded, psrc=flooded.i1),
        "announcements": arp(flooded, psrc=flooded.i1, pdst=flooded.i1),
    }[kind]
    flood = flooded.attacker.post(
        Inside.flood, flooded.attacker.interface, [bytes(frame)] * 200, FLOOD
    )
    try:
        waited = worst_wait(flooded)
    finally:
        flood.result()
    assert waited < LONGEST_WAIT


@pytest.mark.parametrize("to", ["one", "all"])
def test_questions_leave_the_victim_its_own_questions_and_answers(
    flooded: LabStage, to: str
) -> None:
    """It answers each by broadcast; and still finds the responder, and is found by a third."""
    one, two, three = flooded.one, flooded.two, flooded.three
    question = arp(
        flooded, psrc=one.address, pdst=two.address, dst=two.mac if to == "one" else BROADCAST
    )
    forget = ("ip", "neighbour", "flush", "dev", "eth0")
    flood = flooded.attacker.post(
        Inside.flood, flooded.attacker.interface, [bytes(question)] * 200, 2.0
    )
    try:
        time.sleep(0.5)
        for _ in range(3):
            two.place.run(*forget)
            answer, end, taken = flooded.honest_get()
            assert is_answered_as(answer, two.name), end
            assert taken < LONGEST_WAIT
            three.place.run(*forget)
            told = three.place.run(sys.executable, "-c", ASK, two.address)[1]
            assert told == "ConnectionRefusedError\n"
    finally:
        flood.result()


def test_probing_for_everything_gives_a_guest_one_address_and_takes_none(flooded: LabStage) -> None:
    """Thousands of claims at once: what others hold stays theirs, and tables stay as they are."""
    choose = random.Random(9)
    drawn = [f"169.254.{choose.randrange(1, 255)}.{choose.randrange(256)}" for _ in range(1000)]
    frames = [
        bytes(arp(flooded, psrc="0.0.0.0", pdst=one)) for one in (flooded.i2, flooded.i3, *drawn)
    ]
    held = {one.port: flooded.bound_to(one.port) for one in (flooded.two, flooded.three)}
    flood = flooded.attacker.post(Inside.flood, flooded.attacker.interface, frames, FLOOD)
    try:
        waited = worst_wait(flooded)
    finally:
        flood.result()
    assert waited < LONGEST_WAIT
    assert {port: flooded.bound_to(port) for port in held} == held
    assert len(flooded.bound_to(flooded.one.port)) <= 1
    assert len(flooded.neighbours()) <= len(flooded.cast.guests)
    flooded.reboot(flooded.one.name)
    assert flooded.await_bound(flooded.one.name)
    end = time.monotonic() + 20  # the responder hears of the address a moment after the node
    while not is_answered_as(flooded.ask()[0], flooded.one.name):
        assert time.monotonic() < end


# linux/virtio_net.h: a header before the frame asks the kernel to cut it, the checksum at 34, into
# datagrams (5: by UDP's segmentation) of so many octets.
SEGMENTED = """
import socket, struct, sys
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
link.bind(("eth0", 0x0800))
link.setsockopt(263, 15, 1)
frame, size = bytes.fromhex(sys.argv[1]), int(sys.argv[2])
for _ in range(300):
    link.send(struct.pack("=BBHHHH", 1, 5, 42, size, 34, 6) + frame)
"""


@pytest.mark.parametrize(("size", "length"), [(1, 128), (11, 1400), (500, 60000)])
def test_what_is_cut_on_its_way_is_counted_as_long_as_it_is(
    flooded: LabStage, size: int, length: int
) -> None:
    """Of datagrams for everybody that the kernel cuts, no more octets pass than of whole ones."""
    head = Ether(dst=BROADCAST, src=flooded.m1) / IP(src=flooded.i1, dst="255.255.255.255")
    frame = head / UDP(sport=9, dport=9) / Raw(b"x" * length)
    flooded.victim.call(Inside.drop)
    begun = time.monotonic()
    with flooded.process_of_attacker() as guest:
        code, _, err = guest.run(sys.executable, "-c", SEGMENTED, bytes(frame).hex(), str(size))
    assert code == 0, err
    bound = BROADCAST_BURST + BROADCASTS_PER_SECOND * (time.monotonic() - begun + 0.5)
    heard = [one for _, outgoing, one in flooded.victim.call(Inside.heard) if not outgoing]
    assert all(len(one) <= 1514 for one in heard)
    assert sum(map(len, heard)) <= bound * 1514
    assert flooded.control()


def test_an_error_is_about_its_sender_alone(flooded: LabStage) -> None:
    """The victim learns that a port of the attacker's is closed; nothing of its way to a third."""
    one, two, three = flooded.one, flooded.two, flooded.three
    assert two.place.run(sys.executable, "-c", ASK, one.address)[1] == "ConnectionRefusedError\n"
    way = IP(src=two.address, dst=three.address)
    quotes = (way / UDP(sport=5001, dport=5002, len=9) / b"x", way / ICMP() / (b"x" * 8))
    errors = [
        Ether(dst=two.mac, src=one.mac)
        / IP(src=one.address, dst=two.address)
        / ICMP(type=kind, code=code, nexthopmtu=600)
        / Raw(bytes(quote))
        for kind, code, quote in product((3, 11, 12), range(16), quotes)
    ]
    three.place.call(Inside.serve, 2, 5002)
    asking = two.place.post(Inside.run, [sys.executable, "-c", ASK, three.address], "")
    try:
        flooded.attacker.flood([bytes(error) for error in errors], 0.8)
    finally:
        _, told, _ = asking.result()
        three.place.call(Inside.stop_serving)
    assert told == "TimeoutError\n"
    assert "mtu" not in two.place.run("ip", "route", "get", three.address)[1]
    assert flooded.control()
