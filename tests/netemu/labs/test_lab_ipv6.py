"""A lab whose guests' links speak IPv6: the same responder, the same identity, the same guard.

The rows of the isolation catalogue from 201 on, which are played with all others, are seen here to
fail without the guard.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from netemu.conformance import weakened
from netemu.conformance.labstage import Ground
from netemu.conformance.prove import prove
from netemu.conformance.rows import CATALOGUE, by_lab
from netemu.linklocal import ipv6
from netemu.topology import DEMO, load
from tests.conftest import TIME_SCALE, Person, RunningLab
from tests.netemu.labs.test_lab_isolation import wait_until

pytestmark = pytest.mark.lab

LAB = """
ipv6: true
dialects: {ec2: {hop_limit: 7}}
nodes:
  node1: {processes: 2, guests: [web1, web2, web3]}
  node2: {guests: [db1]}
"""
ADDRESSES = ("[fd00:ec2::254]", "[fe80::a9fe:a9fe%25eth0]")


# Asks for a token, and for something else; the hop limits of the answers.
HOPS = """
import socket, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x86DD))
wire.bind(("eth0", 0x86DD))
wire.settimeout(20)
for line in ("PUT /latest/api/token", "GET /latest/meta-data/mac"):
    with socket.create_connection((sys.argv[1], 80)) as link:
        head = "Host: [fd00:ec2::254]\\r\\nX-aws-ec2-metadata-token-ttl-seconds: 60\\r\\n\\r\\n"
        link.sendall(f"{line} HTTP/1.0\\r\\n{head}".encode())
        while b"HTTP/1.1 200" not in (frame := wire.recv(2000)):
            pass
        print(frame[21])
"""


# What does not depend on whose lab it is.
ONE_OF_THE_TWO = pytest.mark.parametrize(
    "person", ["root" if os.geteuid() == 0 else "user"], indirect=True
)


@pytest.fixture(scope="module")
def six(person: Person) -> Iterator[RunningLab]:
    person.netemu("up", "-", "--name", "six", "--time-scale", str(TIME_SCALE), stdin=LAB)
    yield RunningLab(person, "six")
    person.netemu("down", "six")


def told(lab: RunningLab, guest: str, address: str, path: str, *options: str) -> str:
    """What curl gets in a guest, with the answer's status behind it."""
    command = ("curl", "-s", "-g", "--max-time", "20", "-w", " %{http_code}", *options)
    return lab.exec(guest, *command, f"http://{address}{path}", check=None).stdout


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_guest_is_answered_by_ipv6_as_itself(six: RunningLab, address: str) -> None:
    """A user asks with curl in each guest, and with a token of EC2."""
    for guest in ("web1", "web2", "web3", "db1"):
        path = "/metadata/v1/InstanceInfo/ID"
        assert told(six, guest, address, path) == f"_{guest} 200"
    lifetime = "X-aws-ec2-metadata-token-ttl-seconds: 60"
    token, status = told(
        six, "web1", address, "/latest/api/token", "-X", "PUT", "-H", lifetime
    ).split()
    assert (len(token), status) == (56, "200")
    header = f"X-aws-ec2-metadata-token: {token}"
    path = "/latest/meta-data/local-hostname"
    mine = told(six, "web1", address, path, "-H", header)
    assert mine.endswith(".ec2.internal 200")
    assert told(six, "web2", address, path, "-H", header).endswith(" 401")


@ONE_OF_THE_TWO
def test_a_token_leaves_by_ipv6_with_the_hop_limit(six: RunningLab) -> None:
    """A user's token travels as far as the lab file says; other answers do not leave the link."""
    assert six.python("web1", HOPS, "fd00:ec2::254").stdout.split() == ["7", "1"]


def test_the_status_says_which_address_a_guest_has(six: RunningLab) -> None:
    assert six.status()["ipv6"] is True
    for name, guest in six.guests().items():
        shown = json.loads(six.exec(name, "ip", "-j", "-6", "address", "show", "eth0").stdout)
        (one,) = shown[0]["addr_info"]
        assert one["local"] == guest["ipv6_address"] == ipv6.of_mac(guest["mac"])
        assert "tentative" not in one


@ONE_OF_THE_TWO
def test_the_link_finds_its_address_again_by_itself(six: RunningLab) -> None:
    """A guest sets its link down and up: its kernel looks for duplicates, and finds none."""
    six.exec("web3", "ip", "link", "set", "eth0", "down")
    six.exec("web3", "ip", "link", "set", "eth0", "up")
    path = "/metadata/v1/InstanceInfo/ID"
    wait_until(lambda: told(six, "web3", ADDRESSES[1], path) == "_web3 200")


@ONE_OF_THE_TWO
def test_ipv6_is_there_after_a_reboot_a_move_and_a_freeze(six: RunningLab) -> None:
    path = "/metadata/v1/InstanceInfo/ID"

    def answered() -> bool:
        return all(told(six, "db1", one, path) == "_db1 200" for one in ADDRESSES)

    six.netemu("reboot", "--hard", "db1")
    assert answered()
    before = json.loads(six.exec("node2", "ip", "-j", "-6", "neighbour").stdout)
    assert [one["dst"] for one in before] == [six.guests()["db1"]["ipv6_address"]]
    six.maintenance("schedule", "db1", "--type", "redeploy", "--now", "--duration", "0.1s")
    wait_until(lambda: "db1" in place_of(six, "node1") and answered())
    assert json.loads(six.exec("node2", "ip", "-j", "-6", "neighbour").stdout) == []
    six.maintenance("schedule", "db1", "--type", "freeze", "--now", "--duration", "1s")
    wait_until(lambda: six.guests()["db1"]["power"] == "frozen")
    wait_until(lambda: six.guests()["db1"]["power"] == "running")
    assert answered()


def place_of(lab: RunningLab, node: str) -> list[str]:
    nodes: list[dict[str, Any]] = lab.status()["nodes"]
    return [one["name"] for this in nodes if this["name"] == node for one in this["guests"]]


@pytest.mark.skipif(os.geteuid() != 0, reason="played once, by root")
def test_each_of_these_rows_fails_without_the_guard(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("NETEMU_RUNTIME_DIR", str(tmp_path))
    nothing = Ground(weakened.without(*weakened.GUARD, weakened.listener))
    lab = replace(load(DEMO, name="six-proof"), ipv6=True)
    rows = by_lab(CATALOGUE).ipv6
    proof = prove(lab, rows, time_scale=TIME_SCALE, grounds={"guard": nothing})
    assert [row.id for row in proof.unproven()] == []
