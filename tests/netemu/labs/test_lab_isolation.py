"""What one guest can do to another: nothing. Each test also sees that the way itself works."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import RunningLab
from tests.netemu.labs.frames import LISTEN, SEND, arp, octets, udp

pytestmark = pytest.mark.lab

METADATA = "169.254.169.254"
# Takes the address in argv[1] by hand, and asks the responder from it.
TAKE = """
import socket, subprocess, sys
taken = sys.argv[1]
subprocess.run(['ip', 'address', 'add', taken + '/16', 'scope', 'link', 'dev', 'eth0'],
               check=True)
try:
    s = socket.socket()
    s.settimeout(1.5)
    s.bind((taken, 0))
    s.connect(('169.254.169.254', 80))
    s.sendall(b'GET /metadata/v1/InstanceInfo HTTP/1.1\\r\\nHost: 169.254.169.254\\r\\n\\r\\n')
    print(s.recv(4096))
except OSError as error:
    print('refused:', error)
finally:
    subprocess.run(['ip', 'address', 'del', taken + '/16', 'dev', 'eth0'])
"""


SERVE = """
import http.server
http.server.HTTPServer(('', 8099), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


@contextmanager
def listening(lab: RunningLab, place: str, interface: str) -> Iterator[list[str]]:
    """Collects the frames at an interface while the block runs, and a moment longer."""
    # A frame from the place itself ends it: what was sent before has arrived by then.
    canary = "ff" * 6 + "02000000ca11" + "88b5" + "ca" * 46
    if interface.startswith("p"):  # by a port only what the guard lets out
        canary = arp(bridge_mac(lab, place), sender_ip=METADATA, target_ip=METADATA)
    process = lab.start_python(place, LISTEN, interface, "600")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    heard: list[str] = []

    def collect() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line == f"out {canary}\n":
                return
            heard.append(line.strip())

    reader = threading.Thread(target=collect)
    reader.start()
    try:
        yield heard
        lab.python(place, SEND, interface, canary)
        reader.join(60)
        assert not reader.is_alive(), "its own frame was not heard"
    finally:
        process.terminate()
        reader.join()
        process.communicate()


def test_an_address_taken_by_hand_is_not_answered_as_its_holder(lab: RunningLab) -> None:
    """A guest that configures its neighbour's address gets no answer; the neighbour still does."""
    told = lab.python("web1", TAKE, lab.address("web2")).stdout
    assert "refused" in told
    assert "_web2" in lab.get("web2")
    assert "_web1" in lab.get("web1")


def test_a_free_address_taken_by_hand_is_not_answered(lab: RunningLab) -> None:
    """A guest that uses an address without having claimed it gets no answer."""
    assert "refused" in lab.python("web1", TAKE, "169.254.1.17").stdout
    assert "_web1" in lab.get("web1")


FORGED = "f08ced" * 6


@pytest.mark.parametrize("forged", ["address", "mac", "both"])
def test_a_forged_sender_reaches_nobody(lab: RunningLab, forged: str) -> None:
    """A guest that sends as its neighbour is not answered, and the neighbour hears nothing."""
    web1, web2 = lab.guests()["web1"], lab.guests()["web2"]
    bridge = bridge_mac(lab)
    source = web2["mac"] if forged in ("mac", "both") else web1["mac"]
    sender = web2["address"] if forged in ("address", "both") else web1["address"]
    # Marked behind their end: a question of web2's own is the same to the byte.
    frames = [
        udp(source, bridge, sender, METADATA, b"reflected?"),
        udp(source, web2["mac"], sender, web2["address"], b"direct"),
        arp(source, operation=2, sender_ip=METADATA, target_ip=web2["address"]) + FORGED,
        arp(source, operation=1, sender_ip=sender, target_ip=METADATA, sender_mac=web2["mac"])
        + FORGED,
    ]
    with listening(lab, "web2", "eth0") as at_victim, listening(lab, "node1", "br0") as at_node:
        lab.python("web1", SEND, "eth0", *frames)
        lab.python("web1", SEND, "eth0", arp(web1["mac"], target_ip=METADATA))
        wait_until(lambda: True)
    # What the node itself says to all its guests (it defends its address) is not from web1.
    node = "in ffffffffffff" + bridge.replace(":", "")
    assert [one for one in at_victim if one.startswith("in ") and not one.startswith(node)] == []
    assert not any(frame.split()[1] in frames for frame in at_node)
    assert "_web2" in lab.get("web2")


def test_a_frame_of_ones_own_does_reach_the_node(lab: RunningLab) -> None:
    """The tests above could fail: an honest probe for the responder's address reaches br0."""
    probe = arp(lab.mac("web1"), target_ip=METADATA)
    with listening(lab, "node1", "br0") as at_node:
        lab.python("web1", SEND, "eth0", probe)
    assert f"in {probe}" in at_node


@pytest.mark.parametrize(
    ("what", "ether_type", "payload"),
    [
        ("vlan", "8100", "0005080645000014"),
        ("ipv6", "86dd", "60000000"),
        ("local experimental", "88b5", "00"),
        ("rarp", "8035", "00"),
    ],
)
def test_only_arp_and_ip_are_let_in(
    lab: RunningLab, what: str, ether_type: str, payload: str
) -> None:
    """A guest cannot talk in any other protocol, neither to the node nor to its neighbour."""
    frame = "ff" * 6 + lab.mac("web1").replace(":", "") + ether_type + payload.ljust(92, "0")
    with listening(lab, "web2", "eth0") as at_victim, listening(lab, "node1", "br0") as at_node:
        lab.python("web1", SEND, "eth0", frame)
    assert not any(ether_type in one[24 + 3 : 28 + 3] for one in (*at_victim, *at_node))


def test_neighbours_and_other_nodes_cannot_be_reached(lab: RunningLab) -> None:
    """A guest reaches no other guest, and not the node beyond its responder's port."""
    servers = [lab.start_python(place, SERVE) for place in ("web2", "db1", "node1")]
    try:
        for place in ("web2", "db1", "node1"):
            wait_until(lambda place=place: _fetch(lab, place, "127.0.0.1") == 0)  # type: ignore[misc]
        assert _fetch(lab, "web1", lab.address("web2")) != 0
        assert _fetch(lab, "web1", lab.address("db1")) != 0
        assert _fetch(lab, "web1", METADATA) != 0
    finally:
        for server in servers:
            server.terminate()
            server.communicate()


def test_same_node_lets_guests_of_one_node_meet(fresh_lab: object) -> None:
    """Under `same-node` a guest reaches its neighbour, and still neither node nor other nodes."""
    text = "policy: same-node\nnodes: {n1: {guests: [a, b]}, n2: {guests: [c]}}"
    lab = fresh_lab(text)  # type: ignore[operator]
    servers = [lab.start_python(place, SERVE) for place in ("b", "c", "n1")]
    try:
        for place in ("b", "c", "n1"):
            wait_until(lambda place=place: _fetch(lab, place, "127.0.0.1") == 0)  # type: ignore[misc]
        assert _fetch(lab, "a", lab.address("b")) == 0
        assert _fetch(lab, "a", lab.address("c")) != 0
        assert _fetch(lab, "a", METADATA) != 0
        assert '"_a"' in lab.get("a")
    finally:
        for server in servers:
            server.terminate()
            server.communicate()


def bridge_mac(lab: RunningLab, node: str = "node1") -> str:
    (link,) = json.loads(lab.exec(node, "ip", "-j", "link", "show", "br0").stdout)
    return str(link["address"])


def wait_until(true: object, patience: float = 30.0) -> None:
    """Wait until a condition holds; fail if it does not in time."""
    end = time.monotonic() + patience
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.1)  # most conditions start a process


def _fetch(lab: RunningLab, place: str, address: str) -> int:
    url = f"http://{address}:8099/"
    done: subprocess.CompletedProcess[str] = lab.exec(
        place, "curl", "-s", "-o", "/dev/null", "--max-time", "1", url, check=None
    )
    return done.returncode


def test_arp_of_a_guest_is_broadcast(lab: RunningLab) -> None:
    """Section 2.5: a request for a guest's address is answered by link-layer broadcast."""
    web1 = lab.guests()["web1"]
    ask = arp(bridge_mac(lab), sender_ip=METADATA, target_ip=web1["address"])
    with listening(lab, "web1", "eth0") as at_guest:
        lab.python("node1", SEND, "p1", ask)
        wait_until(lambda: any(re.match("out .{24}0806", one) for one in at_guest))
    assert f"in {ask}" in at_guest
    answers = [
        one.split()[1]
        for one in at_guest
        if one.startswith("out ") and one.split()[1][24:28] == "0806"
    ]
    assert len(answers) == 1
    assert answers[0].startswith("ff" * 6)
    assert answers[0][40:44] == "0002"
    assert answers[0][56:64] == octets(web1["address"])


def test_the_nodes_arp_is_broadcast(lab: RunningLab) -> None:
    """Section 2.5: the node, too, answers a question for its link-local address by broadcast."""
    web1 = lab.guests()["web1"]
    ask = arp(web1["mac"], sender_ip=web1["address"], target_ip=METADATA)
    with listening(lab, "web1", "eth0") as at_guest:
        lab.python("web1", SEND, "eth0", ask)
        wait_until(lambda: any(re.match("in .{24}0806", one) for one in at_guest))
    answers = [
        one.split()[1]
        for one in at_guest
        if one.startswith("in ") and one.split()[1][56:64] == octets(METADATA)
    ]
    assert len(answers) == 1
    assert answers[0].startswith("ff" * 6)


def test_the_node_defends_its_address(fresh_lab: object) -> None:
    """RFC 5227 2.4 c: a guest that claims 169.254.169.254 hears the node defend it."""
    lab = fresh_lab("nodes: {node1: {guests: [web1, web2]}}")  # type: ignore[operator]
    rival = arp(lab.mac("web1"), sender_ip=METADATA, target_ip=METADATA)
    with listening(lab, "web2", "eth0") as at_neighbour:
        lab.python("web1", SEND, "eth0", rival, rival)
        wait_until(lambda: at_neighbour != [])
        time.sleep(0.15)
    assert not any(one.split()[1] == rival for one in at_neighbour)
    defence = arp(bridge_mac(lab), sender_ip=METADATA, target_ip=METADATA)
    assert [one for one in at_neighbour if one == f"in {defence}"] == [f"in {defence}"]
    assert '"_web2"' in lab.get("web2")
