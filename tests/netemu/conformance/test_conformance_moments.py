"""Moments: boots, moves, freezes and failures, in which ports are made again or come up again.

The attacking guest runs a program that sends what no port may let by, on each of its links, from
the first moment in which there is one; nobody ever sees a frame of it, and nobody is kept from
being served. A guest's root that does away with its links first gains nothing by it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import netemu
from netemu.client import labs
from netemu.conformance.inside import Inside
from netemu.conformance.labstage import LabStage, running
from netemu.conformance.probe import Place
from netemu.conformance.rows import CATALOGUE
from netemu.topology import Policy, parse

pytestmark = [pytest.mark.lab, pytest.mark.long]

SCALE = 0.05
SIGN = b"\xde\xad\xfa\xce\x99"
LAB = """
name: moments
policy: {policy}
nodes:
  node1:
    tenant: true
    guests:
      - {{name: web1, run: [{python}, {poison}]}}
      - web2
      - web3
  node2: {{guests: [db1], tenant: true}}
"""
# As itself and as somebody else: ARP for the responder, for anybody; IP from the responder; raw
# types, LLDP's group. Its sockets are made again, since links come and go.
POISON = r"""
import socket, threading, time
ALL, SIGN, OTHER = b"\xff" * 6, b"\xde\xad\xfa\xce\x99", b"\2\x66\x66\x66\x66\x66"
def frames(mac):
    responder, tenant = b"\xa9\xfe\xa9\xfe", b"\xc6\x12\x09\x09"
    for who, address in ((w, a) for w in (mac, OTHER) for a in (responder, tenant)):
        for kind in (b"\0\1", b"\0\2"):
            yield ALL + who + b"\x08\6\0\1\x08\0\6\4" + kind + who + address + ALL + address + SIGN
        yield ALL + who + b"\x88\xb5" + SIGN * 10
        head = bytes.fromhex("08004500002000000000401100" + "00") + address + b"\xff" * 4
        yield ALL + who + head + bytes(12) + SIGN
    yield b"\1\x80\xc2\0\0\x0e" + mac + b"\x88\xcc" + SIGN * 10
def poison(link):
    while True:
        try:
            mac = bytes.fromhex(open(f"/sys/class/net/{link}/address").read().replace(":", ""))
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
                raw.bind((link, 0x0806))
                for _ in range(50):
                    for frame in frames(mac):
                        raw.send(frame)
                time.sleep(0.002)
        except OSError:
            time.sleep(0.0005)
threading.Thread(target=poison, args=("eth1",)).start()
poison("eth0")
"""


class Watch:
    """Taps at every other place, on both networks."""

    def __init__(self, stage: LabStage, others: list[Place]) -> None:
        self.stage = stage
        far = stage.cast.far
        assert far is not None
        self.places = [stage.victim, stage.three.place, far.place, *stage.cast.nodes, *others]

    def seen(self, seconds: float = 0.0) -> list[str]:
        """What anybody has seen of the attack by then."""
        end = time.monotonic() + seconds
        found: list[str] = []
        while True:
            for place in self.places:
                for interface, outgoing, frame in place.call(Inside.heard):
                    # What a node's port hears of all types, it hears before the guard.
                    if SIGN in frame and not outgoing:
                        found.append(f"{place.name} {interface}: {frame.hex()}")
            if time.monotonic() >= end:
                return found
            time.sleep(0.05)


def netemu_(*arguments: str) -> None:
    source = str(Path(netemu.__file__).resolve().parent.parent)
    subprocess.run(
        [sys.executable, "-P", "-m", "netemu", *arguments],
        check=True,
        capture_output=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": source},
    )


@pytest.fixture(scope="module", params=list(Policy))
def watch(request: pytest.FixtureRequest) -> Iterator[Watch]:
    place = Path(f"/tmp/nt-moments-{os.getpid()}")
    place.mkdir(mode=0o700)
    # Not there: what steers a lab is hidden from its guests.
    poison = place.with_suffix(".py")
    poison.write_text(POISON)
    text = LAB.format(policy=request.param, python=sys.executable, poison=poison)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("NETEMU_RUNTIME_DIR", str(place))
        stage = stack.enter_context(running(parse(text, source="moments"), SCALE))
        stage.begin(CATALOGUE[0][1], 1)
        others = []
        for name in ("web2", "web3", "db1"):
            other = Place(name, "eth1").start(labs.enter(stage.lab, name))
            stack.callback(other.close)
            other.ready()
            other.call(Inside.listen, "eth1", 3, True)
            others.append(other)
        yield Watch(stage, others)
    poison.unlink()
    (place / ".netemu").unlink(missing_ok=True)
    place.rmdir()


def refused(watch: Watch) -> int:
    """Frames that the guards of all nodes have refused to guests."""
    count = 0
    for node in watch.stage.cast.nodes:
        _, out, _ = node.run("nft", "-j", "list", "counter", "netdev", "guard", "refused_in")
        count += sum(one["counter"]["packets"] for one in json.loads(out)["nftables"][1:])
    return count


def test_from_its_first_moment_a_port_is_guarded(watch: Watch) -> None:
    """It sends all the while, as counters show, and is served like anybody: as who it is."""
    before = refused(watch)
    assert watch.seen(0.3) == []
    assert refused(watch) > before
    assert watch.stage.control()
    assert watch.stage.well()


DESTROYED = "for link in eth0 eth1; do ip link del $link || true; done"
MOVED = """
unshare -n sleep 9 >/dev/null 2>&1 &
sleep 0.1
for link in eth0 eth1; do ip link set $link netns $!; done
"""


@pytest.mark.parametrize("first", ["true", DESTROYED, MOVED], ids=["whole", "destroyed", "moved"])
def test_a_reboot_makes_no_gap(watch: Watch, first: str) -> None:
    with watch.stage.process_of_attacker() as guest:
        guest.run("sh", "-c", first)
    for _ in range(2):
        netemu_("reboot", "--name", "moments", "web1")
        assert watch.seen(0.2) == []
    assert watch.stage.await_bound("web1")
    assert watch.stage.control()


@pytest.mark.parametrize("kind", ["freeze", "redeploy"])
def test_an_event_makes_no_gap(watch: Watch, kind: str) -> None:
    """Frozen, the guest is silent, and goes on afterwards; redeployed, it is on the other node."""
    netemu_(
        *("maintenance", "schedule", "--name", "moments", "--type", kind, "web1"),
        *("--now", "--duration", "1s"),
    )
    assert watch.seen(1.5) == []
    before = refused(watch)
    assert watch.seen(0.3) == []
    assert refused(watch) > before
    assert watch.stage.control()


def test_a_node_that_fails_and_comes_back_makes_no_gap(watch: Watch) -> None:
    """The attacker's own node: the guest comes up on another, and finds its port guarded there."""
    told = labs.status("moments")["nodes"]
    home = next(node["name"] for node in told for one in node["guests"] if one["name"] == "web1")
    netemu_("node", "fail", "--name", "moments", home)
    assert watch.seen(1.5) == []
    netemu_("node", "restore", "--name", "moments", home)
    assert watch.seen(1.0) == []
