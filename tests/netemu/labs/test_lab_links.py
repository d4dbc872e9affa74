"""Impaired wires: what a guest feels of them, and that it can do nothing about it."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netemu.impairment.fate import Fate
from netemu.impairment.terms import Terms
from tests.conftest import TIME_SCALE, Person, RunningLab
from tests.netemu.labs.test_lab_isolation import wait_until
from tests.netemu.labs.test_lab_rfc3927 import HOLD

pytestmark = pytest.mark.lab

# Sends argv[1] numbered frames at 5,000/s, which the guard drops: they are heard before it.
SEND_NUMBERED = """
import socket, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('eth0', 0))
begun = time.monotonic()
for n in range(int(sys.argv[1])):
    while time.monotonic() < begun + n / 5000:
        pass
    s.send(bytes.fromhex('02' * 12 + '88b5') + n.to_bytes(4, 'big') + bytes(50))
"""
# Hears them at the port argv[1] until none has come for a second; prints their numbers.
HEAR_NUMBERED = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
s.bind((sys.argv[1], 3))
print('hears', flush=True)
s.settimeout(20)
heard = []
try:
    while True:
        frame = s.recv(200)
        if frame[12:14] == b'\\x88\\xb5':
            heard.append(int.from_bytes(frame[14:18], 'big'))
            s.settimeout(1.5)
except TimeoutError:
    print(*heard)
"""
LAB = {
    "nodes": {
        "n1": {"guests": [{"name": "a", "tenant": True}, {"name": "b"}]},
        "n2": {
            "guests": [
                {
                    "name": "c",
                    "tenant": True,
                    "tenant_link": {"delay": "30ms", "to": {"delay": "20ms"}, "seed": 4},
                }
            ]
        },
    }
}
CONNECT = """
import socket, sys, time
begun = time.monotonic()
try:
    socket.create_connection((sys.argv[1], 9), 10)
except ConnectionRefusedError:
    print(time.monotonic() - begun)
"""


@pytest.fixture(scope="module")
def wires(person: Person) -> Iterator[RunningLab]:
    path = person.labs.with_suffix(".links.json")
    path.write_text(json.dumps(LAB))
    try:
        person.netemu("up", str(path), "--name", "links", "--time-scale", str(TIME_SCALE))
    finally:
        path.unlink()
    yield RunningLab(person, "links")
    person.netemu("down", "links")


@pytest.fixture(autouse=True)
def as_they_were(wires: RunningLab) -> Iterator[None]:
    yield
    wires.netemu("link", "a", "b", "--clear")
    wait_until(lambda: all(one["state"] == "bound" for one in wires.guests().values()))


def links(lab: RunningLab) -> dict[str, dict[str, Any]]:
    told = json.loads(lab.netemu("link", "list", "--json").stdout)
    return {f"{one['guest']}/{one['wire']}": one for one in told}


def taken(lab: RunningLab, guest: str) -> float:
    """Seconds that a request takes: a round trip to connect, and one to be answered."""
    url = "http://169.254.169.254/metadata/v1/InstanceInfo"
    told = lab.exec(guest, "curl", "-s", "-o", "/dev/null", "-w", "%{time_total}", url)
    return float(told.stdout)


def services(lab: RunningLab) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in lab.status()["services"]}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b")0 0"


def test_a_delay_is_felt_both_ways_by_this_guest_alone_until_it_is_cleared(
    wires: RunningLab,
) -> None:
    before = wires.exec("a", "ip", "-d", "link").stdout
    wires.netemu("link", "a", "--delay", "100ms")
    assert taken(wires, "a") >= 0.399
    assert min(taken(wires, "b") for _ in range(3)) < 0.399
    # Nothing of it is where the guest's root could reach it.
    assert wires.exec("a", "ip", "-d", "link").stdout == before
    assert wires.guests()["a"]["impaired"] == ["link-local"]
    assert "bound, impaired" in wires.netemu("status").stdout
    wires.netemu("link", "a", "--clear")
    assert min(taken(wires, "a") for _ in range(3)) < 0.399
    assert "relay" not in wires.exec("n1", "ip", "link").stdout


def test_5_percent_of_10_000_frames_are_lost_those_that_the_seed_says(wires: RunningLab) -> None:
    wires.netemu("link", "a", "--loss", "5%", "--seed", "7")
    hears = wires.start_python("n1", HEAR_NUMBERED, "p1")
    assert hears.stdout is not None
    assert hears.stdout.readline() == "hears\n"
    wires.python("a", SEND_NUMBERED, "10000")
    heard = [int(one) for one in hears.communicate(timeout=60)[0].split()]
    counts = links(wires)["a/link-local"]["counts"]["from"]
    fate, expected = Fate(7, "a/link-local/from", Terms(loss=0.05)), []
    others = counts["heard"] - 10_000  # ARP, perhaps: they have a fate of their own
    for n in range(10_000 + others):
        if fate.offer(68, 0.0):
            fate.left()
            expected.append(n)
    assert 0.047 < counts["lost"] / counts["heard"] < 0.053
    # On a machine that is overrun the kernel has no room for all of them.
    if others == counts["missed"] == counts["unsent"] == 0:
        assert heard == expected


def test_an_open_connection_and_the_carrier_live_through_it(wires: RunningLab) -> None:
    """The guest sees no link event when a relay is put into its wire, and none when it goes."""
    holder = wires.start_python("a", HOLD.replace("settimeout(10)", "settimeout(2)"))
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    address = wires.guests()["a"]["address"]
    changes = "/sys/class/net/eth0/carrier_changes"
    before = wires.exec("a", "cat", changes).stdout
    wires.netemu("link", "a", "--delay", "1ms")
    wires.netemu("link", "a", "--clear")
    assert wires.exec("a", "cat", changes).stdout == before
    assert wires.guests()["a"] == {**wires.guests()["a"], "address": address, "state": "bound"}
    assert holder.communicate(timeout=60)[0].strip() == "TimeoutError"  # it was not ended


def test_a_wire_that_is_down_has_no_carrier_and_a_blackhole_keeps_it(wires: RunningLab) -> None:
    wires.netemu("link", "a", "--blackhole")
    assert wires.exec("a", "cat", "/sys/class/net/eth0/carrier").stdout == "1\n"
    url = "http://169.254.169.254/metadata/v1/InstanceInfo"
    assert wires.exec("a", "curl", "-s", "--max-time", "1", url, check=None).returncode == 28
    wires.netemu("link", "a", "--down")
    assert wires.exec("a", "cat", "/sys/class/net/eth0/carrier").stdout == "0\n"
    wait_until(lambda: wires.guests()["a"]["state"] == "down")
    wires.netemu("reboot", "a")
    time.sleep(0.3)
    assert wires.guests()["a"]["state"] == "down"
    wires.netemu("link", "a", "--clear")
    wait_until(lambda: wires.guests()["a"]["state"] == "bound")
    assert '"_a"' in wires.get("a")


def test_a_schedule_takes_a_wire_down_and_up_again(wires: RunningLab) -> None:
    address = wires.guests()["a"]["address"]
    flap = ("--down", "--at", "300ms", "--for", "1s", "--every", "30s", "--times", "2")
    wires.netemu("link", "a", *flap)
    wait_until(lambda: wires.guests()["a"]["state"] == "down")
    wait_until(lambda: wires.guests()["a"]["state"] == "bound")
    assert wires.guests()["a"]["address"] == address
    (timed,) = links(wires)["a/link-local"]["schedule"]
    assert (timed["lasts"], timed["every"], timed["times"]) == (1.0, 30.0, 2)


def test_a_relay_that_is_killed_is_told_of_and_the_next_one_carries_on(wires: RunningLab) -> None:
    wires.netemu("link", "n1", "--delay", "50ms")
    (relay,) = (
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if b"netemu.impairment.relay" in _read(process / "cmdline")
        and _read(process / "stat").rpartition(b")")[2].split()[1]
        == str(wires.status()["supervisor"]).encode()
    )
    os.kill(relay, signal.SIGKILL)
    assert taken(wires, "a") >= 0.199
    assert taken(wires, "b") >= 0.199
    again = services(wires)["relay"]
    assert (again["restarts"], again["last_end"]) == (1, "signal 9")
    assert "relay: ended (signal 9)" in wires.netemu("events").stdout


def test_a_guest_that_boots_keeps_its_wires_and_its_address_behind_them(wires: RunningLab) -> None:
    address = wires.guests()["a"]["address"]
    wires.netemu("link", "a", "--delay", "50ms", "--wire", "all")
    wires.netemu("reboot", "a")
    wait_until(lambda: wires.guests()["a"]["state"] == "bound")
    assert wires.guests()["a"]["address"] == address
    assert taken(wires, "a") >= 0.199
    assert set(links(wires)) == {"a/link-local", "a/tenant", "c/tenant"}


def test_the_lab_file_impairs_the_tenants_wire_as_well(wires: RunningLab) -> None:
    """30 ms from c, 20 ms to it."""
    c = wires.guests()["c"]["tenant"][0]
    assert 0.049 <= float(wires.python("a", CONNECT, c).stdout) < 5
    assert links(wires)["c/tenant"]["seed"] == 4
    assert wires.guests()["c"]["impaired"] == ["tenant"]


# Impairs b's wire, blocking and awaited, and prints what was there each time.
PROGRAM = """
import asyncio, sys
import netemu

def told(links):
    return {one["guest"]: one["to"] for one in links if one["guest"] == "b"}

with netemu.Lab.attach(sys.argv[1]) as lab:
    lab.link("b", delay="60ms", loss="1%")
    print(told(lab.links()))
    lab.link("b", {"at": "1h", "for": "5s", "loss": "30%"})
    lab.link("b", direction="from", rate="1mbit")
    print(told(lab.links()))
    try:
        lab.link("b", loss="5")
    except netemu.BadInput as error:
        print(error)

async def main():
    async with netemu.AsyncMaintenance(sys.argv[1]) as lab:
        await lab.link("b", down=True)
        print(told(await lab.links()))
        await lab.clear_links("b")
        print(told(await lab.links()))

asyncio.run(main())
"""


def test_programs_that_block_and_that_await_impair_wires(wires: RunningLab) -> None:
    process = wires.person.start_python("-c", PROGRAM, wires.name)
    out, errors = process.communicate(timeout=60)
    assert out.splitlines() == [
        "{'b': {'delay': 0.06, 'loss': 0.01}}",
        "{'b': {'delay': 0.06, 'loss': 0.01}}",
        "loss: '5' has no unit: a percentage, as in 5%",
        "{'b': {'down': True}}",
        "{}",
    ], errors


def test_what_is_wrong_is_said_and_changes_nothing(wires: RunningLab) -> None:
    before = links(wires).keys()
    for arguments, words in (
        (("a", "--loss", "5"), "loss: '5' has no unit: a percentage, as in 5%"),
        (("a", "--jitter", "1ms"), "jitter: is more than the delay"),
        (("nobody", "--loss", "5%"), "nobody: lab links has no such guest or node"),
        (("b", "--loss", "5%", "--wire", "tenant"), "b: has no tenant interface"),
        (("a", "--trace", "/nowhere"), "/nowhere: cannot be read: No such file or directory"),
        (("a",), "what is to be wrong with it?"),
        (("--loss", "5%"), "which wires?"),
        (("a", "--down", "--direction", "to"), "a wire is down in both directions"),
        (("a", "--clear", "--loss", "5%"), "--clear goes with no terms"),
    ):
        done = wires.netemu("link", *arguments, check=2)
        assert words in done.stderr, done.stderr
    assert links(wires).keys() == before
