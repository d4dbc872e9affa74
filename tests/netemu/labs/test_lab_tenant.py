"""The tenant network: guests that have it find each other, as themselves, and nothing else."""

import json
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import TIME_SCALE, Person, RunningLab
from tests.netemu.labs.following import Story
from tests.netemu.labs.frames import SEND, arp, udp
from tests.netemu.labs.test_lab_isolation import METADATA, listening, wait_until

pytestmark = pytest.mark.lab

# Says whose it is.
SERVE = """
import http.server, os
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["NETEMU_GUEST"].encode())
http.server.ThreadingHTTPServer(("", 8080), Answer).serve_forever()
"""
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 8080), 0.7)
    print("connected")
except OSError as error:
    print(type(error).__name__)
"""
SERVER = {"tenant": True, "run": [sys.executable, "-c", SERVE]}
LAB = {
    "nodes": {
        "n1": {"guests": [{"name": "a", **SERVER}, "b"], "fault_domain": 0},
        "n2": {"guests": [{"name": "c", **SERVER, "tenant": 2}, "d"], "fault_domain": 1},
    }
}
A, C, C_TOO = "198.18.0.1", "198.18.0.2", "198.18.0.3"


@pytest.fixture(scope="module")
def tenants(person: Person) -> Iterator[RunningLab]:
    path = person.labs.with_suffix(".tenants.json")
    path.write_text(json.dumps(LAB))
    try:
        person.netemu("up", str(path), "--name", "tenants", "--time-scale", str(TIME_SCALE))
    finally:
        path.unlink()
    yield RunningLab(person, "tenants")
    person.netemu("down", "tenants")


@pytest.fixture(scope="module")
def macs(tenants: RunningLab) -> dict[str, str]:
    """The MACs of the guests' eth1."""
    return {guest: link(tenants, guest)["address"] for guest in "ac"}


def link(lab: RunningLab, guest: str, name: str = "eth1") -> dict[str, str]:
    (told,) = json.loads(lab.exec(guest, "ip", "-j", "link", "show", name).stdout)
    found: dict[str, str] = told
    return found


def test_a_tenant_link_has_ipv4_only(tenants: RunningLab) -> None:
    """A user sees no address of IPv6 on a guest's eth1, as on its eth0."""
    assert "inet6" not in tenants.exec("a", "ip", "address", "show", "dev", "eth1").stdout
    ignored = tenants.exec("a", "cat", "/proc/sys/net/ipv4/conf/eth1/arp_ignore").stdout
    announced = tenants.exec("a", "cat", "/proc/sys/net/ipv4/conf/eth1/arp_announce").stdout
    assert (ignored, announced) == ("1\n", "2\n")


def fetch(lab: RunningLab, guest: str, url: str, *options: str) -> str:
    """What curl gets in the guest; the empty text if nothing."""
    words = ("curl", "-sf", "--max-time", "1", *options, url)
    return lab.exec(guest, *words, check=None).stdout


def answers(lab: RunningLab, guest: str, where: str, whose: str, *options: str) -> None:
    """Wait until the guest that is asked answers: its program may only just have been started."""
    wait_until(lambda: fetch(lab, guest, f"http://{where}:8080/", *options) == whose, 30)


def test_those_who_have_it_reach_each_other(tenants: RunningLab) -> None:
    """A user's guests on two nodes find each other by name, and by any of their addresses."""
    answers(tenants, "a", "c", "c")
    answers(tenants, "c", "a", "a")
    for where, whose in ((C, "c"), (C_TOO, "c"), (A, "a")):
        answers(tenants, "a", where, whose)
    guests = tenants.guests()
    assert guests["a"]["tenant"] == [A]
    assert guests["c"]["tenant"] == [C, C_TOO]
    assert "tenant" not in guests["b"]


def test_those_who_have_none_are_not_there(tenants: RunningLab) -> None:
    """A user's guests without it have no such interface, and reach nobody on it."""
    for guest, where in (("b", C), ("d", "c")):
        assert tenants.exec(guest, "ip", "link", "show", "eth1", check=None).returncode != 0
        assert fetch(tenants, guest, f"http://{where}:8080/") == ""
        assert f'"_{guest}"' in tenants.get(guest)


def test_nobody_speaks_as_another_there(tenants: RunningLab, macs: dict[str, str]) -> None:
    """A guest forges its address, its MAC and its ARP on eth1: only what is its own arrives."""
    honest, forged = in_others_names(macs["a"], macs["c"])
    assert forged_arrive(tenants, honest, forged) == []


def in_others_names(source: str, target: str) -> tuple[list[str], list[str]]:
    """What a guest with A may send to one with C; and what it sends in names that are not its."""
    other = "02:00:00:00:00:77"
    honest = [udp(source, target, A, C, b"honest"), arp(source, sender_ip=A, target_ip=C)]
    return honest, [
        udp(source, target, C, C, b"as whom it speaks to"),
        udp(source, target, "198.18.0.9", C, b"as somebody else"),
        udp(source, target, "192.0.2.1", C, b"as somebody from elsewhere"),
        udp(other, target, A, C, b"by another MAC"),
        udp(target, target, A, C, b"by the victim's MAC"),
        arp(source, sender_ip=C_TOO, target_ip=C),
        arp(source, sender_ip="198.18.0.9", target_ip=C),
        arp(source, sender_ip=A, target_ip=C, sender_mac=other),
        arp(other, sender_ip=A, target_ip=C),
        arp(source, operation=2, sender_ip=A, target_ip=C, sender_mac=target),
    ]


def test_nothing_link_local_passes_there(tenants: RunningLab, macs: dict[str, str]) -> None:
    """A guest sends what is of 169.254/16 by eth1, in any dress: nobody on eth1 hears of it."""
    forged = link_local(macs["a"], macs["c"], tenants.address("a"), tenants.address("c"))
    honest = [udp(macs["a"], macs["c"], A, C, b"honest")]
    assert forged_arrive(tenants, honest, forged) == []


def link_local(source: str, target: str, own: str, far: str) -> list[str]:
    """What a guest with A may not send by its tenant wire: `own` and `far` are of 169.254/16."""
    return [
        udp(source, target, own, far, b"link-local"),
        udp(source, target, own, C, b"from link-local"),
        udp(source, target, A, far, b"to link-local"),
        udp(source, target, A, METADATA, b"to the responder"),
        udp(source, "ff:ff:ff:ff:ff:ff", A, "169.254.255.255", b"to all"),
        arp(source, target_ip=METADATA),
        arp(source, sender_ip=A, target_ip=METADATA),
        arp(source, sender_ip=METADATA, target_ip=METADATA),
        arp(source, sender_ip=own, target_ip=own),
        arp(source, target_ip=far),
    ]


def forged_arrive(lab: RunningLab, honest: list[str], forged: list[str]) -> list[str]:
    """Send all of it from a by eth1; those of the forged that c hears. It hears the honest."""
    with listening(lab, "c", "eth1") as heard:
        lab.python("a", SEND, "eth1", *forged, *honest)
    arrived = {one.removeprefix("in ") for one in heard if one.startswith("in ")}
    assert arrived >= set(honest)
    return [frame for frame in forged if frame in arrived]


def test_the_responder_is_not_reached_by_it(tenants: RunningLab) -> None:
    """A guest asks the responder by eth1, or as its tenant address: no answer; by eth0, as ever."""
    url = f"http://{METADATA}/metadata/v1/InstanceInfo"
    for choice in ("if!eth1", f"host!{A}"):
        answers(tenants, "a", C, "c", "--interface", choice)
        assert fetch(tenants, "a", url, "--interface", choice) == ""
    assert '"_a"' in tenants.get("a")
    # Nor does a neighbour on eth1 lead there, were it asked to.
    tenants.exec("a", "ip", "route", "add", METADATA, "via", C, "dev", "eth1")
    try:
        assert fetch(tenants, "a", url) == ""
    finally:
        tenants.exec("a", "ip", "route", "del", METADATA)
    assert '"_a"' in tenants.get("a")


def test_a_frozen_guest_is_silent_there_too(tenants: RunningLab) -> None:
    """A user freezes a guest: its service does not answer, nor its eth1; then it does again."""
    answers(tenants, "a", C, "c")
    with Story(tenants) as story:
        freeze = ("c", "--type", "freeze", "--now", "--duration", "1h")
        event = tenants.maintenance("schedule", *freeze)
        story.until(lambda: story.powers("c") == ["frozen"])
        # Its kernel would take the connection, though its program does not.
        assert tenants.python("a", CONNECT, C, check=None).stdout == "TimeoutError\n"
        tenants.maintenance("complete", event["id"])
        story.until(lambda: story.powers("c") == ["frozen", "running"])
        answers(tenants, "a", C, "c")


def test_it_survives_a_reboot_and_a_redeployment(tenants: RunningLab, macs: dict[str, str]) -> None:
    """A user reboots a guest and redeploys it: it serves by the same address, name and MAC."""
    with Story(tenants) as story:
        for number, kind in enumerate(("reboot", "redeploy"), start=1):
            tenants.maintenance("schedule", "c", "--type", kind, "--now")
            wait_until(lambda number=number: story.boots("c") == number, 15)
            answers(tenants, "a", "c", "c")
            answers(tenants, "a", C_TOO, "c")
            answers(tenants, "c", "a", "a")
            assert link(tenants, "c")["address"] == macs["c"]
        assert story.moves("c") == [("n2", "n1")]
    assert '"_c"' in tenants.get("c")


def test_who_has_taken_its_eth1_away_has_it_back_after_a_reboot(
    tenants: RunningLab, macs: dict[str, str]
) -> None:
    """A guest's root deletes eth1, or changes it: `netemu reboot` brings it back as it was."""
    for script in (
        "ip link delete eth1",
        "ip address flush dev eth1; ip link set eth1 down",
        "ip link set eth1 address 02:00:00:00:be:ef",
    ):
        tenants.exec("a", "sh", "-c", script)
        assert fetch(tenants, "c", f"http://{A}:8080/") == ""
        tenants.netemu("reboot", "a")
        answers(tenants, "c", "a", "a")
        assert link(tenants, "a")["address"] == macs["a"]
    forged = [arp(macs["a"], sender_ip="198.18.0.9", target_ip=C)]
    assert forged_arrive(tenants, [arp(macs["a"], sender_ip=A, target_ip=C)], forged) == []
