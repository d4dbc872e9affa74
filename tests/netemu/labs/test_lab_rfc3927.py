"""RFC 3927 on the wire of a running lab, where the kernel has a part in it."""

import json
import re
import time

import pytest

from netemu.kernel import nft
from tests.conftest import RunningLab
from tests.netemu.labs.frames import SEND, arp, mac_hex, octets
from tests.netemu.labs.test_lab_isolation import METADATA, bridge_mac, listening, wait_until

pytestmark = pytest.mark.lab

# Keeps a connection to the responder open, says so, and tells how it ends.
HOLD = """
import socket
s = socket.create_connection(('169.254.169.254', 80))
s.sendall(b'GET /metadata/v1/maintenance HTTP/1.1\\r\\nHost: 169.254.169.254\\r\\n\\r\\n')
s.recv(4096)
print('open', flush=True)
try:
    s.settimeout(10)
    print('ended' if s.recv(1) == b'' else 'data')
except OSError as error:
    print(type(error).__name__)
"""
# Sends a datagram from the link-local address to argv[1].
DATAGRAM = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[2], 0))
s.sendto(b'x', (sys.argv[1], 9))
"""


def conflict(lab: RunningLab, guest: str) -> str:
    """A frame by which somebody else claims the guest's address."""
    address = lab.address(guest)
    return arp(bridge_mac(lab, "n"), sender_ip=address, target_ip=address)


@pytest.fixture
def two(fresh_lab: object) -> RunningLab:
    return fresh_lab("nodes: {n: {guests: [a, b]}}")  # type: ignore[operator,no-any-return]


def test_a_guest_defends_its_address_once(two: RunningLab) -> None:
    """Section 2.5 b: to a first conflict a guest answers with one announcement, and stays."""
    before = two.guests()["a"]
    announcement = arp(before["mac"], sender_ip=before["address"], target_ip=before["address"])
    with listening(two, "a", "eth0") as heard:
        two.python("n", SEND, "p1", conflict(two, "a"))
        wait_until(lambda: f"out {announcement}" in heard)
        time.sleep(0.1)
    assert heard.count(f"out {announcement}") == 1
    assert two.guests()["a"] == before


def test_a_guest_yields_to_a_second_conflict(two: RunningLab) -> None:
    """Section 2.5: on a second one it ceases, resets its connections, and claims another."""
    before = two.guests()["a"]
    holder = two.start_python("a", HOLD)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    rival = conflict(two, "a")
    with listening(two, "a", "eth0") as heard:
        two.python("n", SEND, "p1", rival, rival)
        wait_until(lambda: two.guests()["a"]["address"] != before["address"])
        wait_until(lambda: two.guests()["a"]["state"] == "bound")
    assert "ConnectionAbortedError" in holder.communicate(timeout=60)[0]
    resets = [
        one for one in heard
        if one.startswith("out ") and one.split()[1][24:28] == "0800"
        and one.split()[1][52:60] == octets(before["address"])
        and int(one.split()[1][94:96], 16) & 4
    ]  # fmt: skip
    assert resets, "the responder was not told that the connection is over"
    assert '"_a"' in two.get("a")
    neighbours = two.exec("n", "ip", "neigh", "show").stdout
    assert before["address"] not in neighbours
    assert two.address("a") in neighbours


# Drops the probes of a port before the guard, as a wire that loses frames would.
LOSE_PROBES = """table netdev lose {
    chain lose { type filter hook ingress device "p2" priority -10; arp saddr ip 0.0.0.0 drop; }
}"""
# Sends ARP as every address of a /16, as fast as it can, until it is killed.
FLOOD = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('eth0', 0))
print('flooding', flush=True)
frame, n = bytes.fromhex(sys.argv[1]), 0
while True:
    for n in range(n, n + 200):
        s.send(frame[:30] + (n % 60000 + 300).to_bytes(2, 'big') + frame[32:])
"""


def test_a_guest_whose_probes_are_all_lost_is_bound_and_answered(two: RunningLab) -> None:
    """It never probes again. Its node hears it speak, also while a neighbour floods with ARP."""
    if not nft.follows_names():
        pytest.skip("rules loaded for a port end with the port's link here")
    two.exec("n", "nft", LOSE_PROBES)
    flood = arp(two.mac("a"), sender_ip="169.254.1.0", target_ip="169.254.169.254")
    flooder = two.start_python("a", FLOOD, flood)
    assert flooder.stdout is not None
    assert flooder.stdout.readline() == "flooding\n"
    two.netemu("reboot", "b")
    wait_until(lambda: two.guests()["b"]["address"] is not None)
    wait_until(lambda: two.guests()["b"]["state"] == "bound" or bool(two.get("b")))
    flooder.kill()
    flooder.communicate(timeout=60)
    wait_until(lambda: '"_b"' in two.get("b"))
    wait_until(lambda: two.guests()["a"]["state"] == "bound" and '"_a"' in two.get("a"))


def test_an_ordinary_request_is_no_conflict(two: RunningLab) -> None:
    """Section 2.2.1, a common mistake: a host that only asks for an address does not claim it."""
    before = two.guests()["a"]
    ask = arp(bridge_mac(two, "n"), sender_ip=METADATA, target_ip=before["address"])
    two.python("n", SEND, "p1", ask, ask, ask)
    time.sleep(0.1)
    assert two.guests()["a"] == before


def test_a_link_that_comes_up_again_is_probed_on(two: RunningLab) -> None:
    """Section 2.2: root in a guest switches its link off and on; the guest probes again."""
    before = two.guests()["a"]
    with listening(two, "n", "p1") as heard:
        two.exec("a", "ip", "link", "set", "eth0", "down")
        wait_until(lambda: two.guests()["a"]["state"] == "down")
        assert two.address("a") == "None"
        two.exec("a", "ip", "link", "set", "eth0", "up")
        wait_until(lambda: two.guests()["a"]["state"] == "bound")
    assert heard.count(f"in {arp(before['mac'], target_ip=before['address'])}") == 3
    assert two.guests()["a"] == before
    assert '"_a"' in two.get("a")


def test_a_link_that_comes_up_speaks_arp_and_nothing_else(two: RunningLab) -> None:
    """The link has IPv4 only: a guest that joins it says no word of IPv6."""
    with listening(two, "n", "p1") as heard:
        two.exec("a", "sh", "-c", "ip link set eth0 down && ip link set eth0 up")
        wait_until(lambda: two.guests()["a"]["state"] == "bound")
        time.sleep(1.5)  # duplicate address detection and router solicitation are that late
    kinds = {one.split()[1][24:28] for one in heard if one.startswith("in ")}
    assert kinds == {"0806"}
    assert "fe80" not in two.exec("a", "ip", "address", "show", "dev", "eth0").stdout


def test_a_link_that_blinks_is_probed_on(two: RunningLab) -> None:
    """Section 2.2: also a link that is down for a moment only, as in one command, is probed on."""
    before = two.guests()["a"]
    blink = "ip link set eth0 down && ip link set eth0 up"
    with listening(two, "n", "p1") as heard:
        two.exec("a", "sh", "-c", blink)
        wait_until(lambda: two.guests()["a"]["state"] == "bound")
    assert heard.count(f"in {arp(before['mac'], target_ip=before['address'])}") == 3
    assert two.guests()["a"] == before
    assert '"_a"' in two.get("a")


def test_nothing_periodic_is_sent(two: RunningLab) -> None:
    """Sections 2.2 and 4: a guest that holds its address is silent (50 scaled seconds here)."""
    time.sleep(1.0)  # its last announcement
    with listening(two, "n", "br0") as heard:
        time.sleep(1.0)
    assert [one for one in heard if one.startswith("in ")] == []


def test_link_local_traffic_never_goes_to_a_router(two: RunningLab) -> None:
    """Section 2.6.2: link-local source or destination, a guest with a default route asks by ARP."""
    mac, own = two.mac("a"), two.address("a")
    router = "198.51.100.1"
    two.exec("a", "ip", "address", "add", "198.51.100.7/24", "dev", "eth0")
    two.exec("a", "ip", "neigh", "add", router, "lladdr", "02:00:00:00:00:99", "dev", "eth0")
    two.exec("a", "ip", "route", "add", "default", "via", router, "dev", "eth0")
    with listening(two, "a", "eth0") as heard:
        two.python("a", DATAGRAM, "203.0.113.5", own)  # a routable destination
        two.python("a", DATAGRAM, "169.254.9.9", "198.51.100.7")  # a link-local destination
        two.python("a", DATAGRAM, "203.0.113.6", "198.51.100.7")  # neither
        time.sleep(0.1)
    sent = [one.split()[1] for one in heard if one.startswith("out ")]
    to_router = [one for one in sent if one.startswith("020000000099")]
    assert [one[60:68] for one in to_router] == [octets("203.0.113.6")]
    asked = {one[76:84] for one in sent if one[24:28] == "0806" and one[40:44] == "0001"}
    assert {octets("203.0.113.5"), octets("169.254.9.9")} <= asked
    assert all(one.startswith("ff" * 6) for one in sent if one[24:28] == "0806")
    # Section 1.9: a new flow to a routable destination takes the routable address.
    route = json.loads(two.exec("a", "ip", "-j", "route", "get", "203.0.113.77").stdout)
    assert route[0]["prefsrc"] == "198.51.100.7"
    to_node = json.loads(two.exec("a", "ip", "-j", "route", "get", METADATA).stdout)
    assert to_node[0]["prefsrc"] == own
    assert mac_hex(mac) in sent[0]


def test_a_guest_asks_again_by_broadcast(two: RunningLab) -> None:
    """Section 2.5: also the kernel's own requests, to a neighbour that it knows, are broadcast."""
    with listening(two, "a", "eth0") as heard:
        two.exec("a", "sh", "-c", f"ip neigh change {METADATA} dev eth0 nud probe || true")
        two.exec("a", "ip", "neigh", "flush", "to", METADATA)
        two.get("a")
        time.sleep(0.1)
    requests = [
        one.split()[1] for one in heard
        if one.startswith("out ") and one.split()[1][24:28] == "0806"
    ]  # fmt: skip
    assert requests
    assert all(one.startswith("ff" * 6) for one in requests)


def test_an_answer_does_not_outlive_the_link(two: RunningLab) -> None:
    """Section 2.7: what the responder sends has a TTL of 1."""
    with listening(two, "a", "eth0") as heard:
        two.get("a")
    answers = [
        one.split()[1] for one in heard
        if one.startswith("in ") and one.split()[1][24:28] == "0800"
    ]  # fmt: skip
    assert answers
    assert {answer[44:46] for answer in answers} == {"01"}


def test_no_router_answers_for_free_addresses(two: RunningLab) -> None:
    """Section 2.7: nobody answers ARP for addresses that nobody holds."""
    mac, own = two.mac("a"), two.address("a")
    free = [f"169.254.{number}.{number}" for number in range(10, 60)]
    sweep = [arp(mac, sender_ip=own, target_ip=one) for one in free if one != two.address("b")]
    with listening(two, "a", "eth0") as heard:
        two.python("a", SEND, "eth0", *sweep)
        time.sleep(0.1)
    assert len([one for one in heard if one.startswith("out ")]) >= 49
    assert [one for one in heard if re.match(r"in .{24}0806", one)] == []
