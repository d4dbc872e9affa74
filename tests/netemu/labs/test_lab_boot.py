"""A guest boots as new, whatever its root did before; a boot that fails is told."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import NOBODY, Person, RunningLab
from tests.netemu.labs.following import Story
from tests.netemu.labs.frames import SEND, arp
from tests.netemu.labs.test_lab_isolation import listening, wait_until

pytestmark = pytest.mark.lab

LAB = """
policy: same-node
nodes:
  n: {guests: [{name: a, tenant: true, run: exec sleep 1000}, {name: b, tenant: true}]}
"""

# What a guest's root can do to its links `$1`; some of it takes what not every kernel has.
MISDEEDS = {
    "the least MTU": "ip link set $1 mtu 68",
    "an MTU below IPv6's": "ip link set $1 mtu 1200",
    "the largest MTU": "ip link set $1 mtu 65535",
    "flags": "ip link set $1 arp off promisc on allmulticast on multicast off",
    "settings": "ip link set $1 group 7 txqueuelen 3; ip link property add dev $1 altname other1$1",
    "offloads": "ip link set $1 gso_max_size 2000 gso_max_segs 3 gro_max_size 2000",
    "an address": "ip link set $1 address 02:00:00:00:00:99; ip addr add 169.254.169.254/16 dev $1",
    "no IPv6": "sysctl -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.$1.disable_ipv6=1",
    "settings of ARP": "sysctl -w net.ipv4.conf.$1.arp_ignore=0 net.ipv4.neigh.$1.ucast_solicit=9",
    "another name": "ip link set $1 down; ip link set $1 name o$1; ip link set o$1 up",
    "links on top": "ip link add m$1 link $1 type macvlan; ip link add v$1 link $1 type vlan id 5;"
    " ip link set m$1 up",
    "a queue": "tc qdisc add dev $1 root tbf rate 1kbit burst 1kb latency 1s;"
    " tc qdisc add dev $1 clsact",
    "down": "ip link set $1 down",
    "gone": "ip link del $1",
    "moved away, a fake in its place": "unshare -n sleep 1000 >/dev/null 2>&1 </dev/null & sleep 1;"
    " index=$(cat /sys/class/net/$1/ifindex || echo 2); ip link set $1 netns $!;"
    " ip link add $1 index $index type veth peer name f$1; ip link set $1 up",
    "routes and rules": "ip route add blackhole 169.254.169.254; ip rule flush;"
    " ip addr flush dev $1",
}


def misbehave(lab: RunningLab, guest: str, deed: str) -> None:
    links = f"deed() {{ {deed}; }}; deed eth0; deed eth1"
    lab.exec(guest, "sh", "-c", links, check=None)


SETTINGS = "ipv4/conf/eth0/arp_ignore ipv4/conf/eth1/arp_announce ipv4/neigh/eth0/ucast_solicit"


def as_new(lab: RunningLab, guest: str) -> Any:
    """All that a guest sees of its links, but for what numbers the other end has."""
    script = f"ip -d -j address; ip rule; cd /proc/sys/net; cat {SETTINGS}"
    first, *rest = lab.exec(guest, "sh", "-c", script).stdout.splitlines()
    links = json.loads(first)
    for link in links:
        for volatile in ("link_index", "link_netnsid", "operstate"):
            link.pop(volatile, None)
        link["flags"].sort()
    return [links, rest]


# The kernel tells the sender of a frame that a rule has dropped it on its way out.
DROPPED = f"""
try:
    {SEND.strip().replace(chr(10), chr(10) + "    ")}
except OSError as error:
    assert error.errno == 105, error
"""


def bound(lab: RunningLab, guest: str) -> None:
    wait_until(lambda: lab.guests()[guest]["state"] == "bound", 30)


def test_nothing_that_a_guest_did_to_its_links_survives_a_boot(
    fresh_lab: Callable[[str], RunningLab],
) -> None:
    """A guest's root does its worst to eth0 and eth1: a reboot makes both new."""
    lab = fresh_lab(LAB)
    new = as_new(lab, "a")
    for what, deed in MISDEEDS.items():
        misbehave(lab, "a", deed)
        assert lab.netemu("reboot", "a").stdout == "a: rebooted\n", what
        bound(lab, "a")
        assert as_new(lab, "a") == new, what
    assert '"_a"' in lab.get("a")
    assert '"_b"' in lab.get("b")


def test_a_guest_that_boots_is_guarded_as_before(fresh_lab: Callable[[str], RunningLab]) -> None:
    """A guest reboots, once as it was and once without its eth0: its new wires are guarded, too."""
    lab = fresh_lab(LAB)
    for deed in ("true", "ip link del $1"):
        misbehave(lab, "a", deed)
        lab.netemu("reboot", "a")
        bound(lab, "a")
        mac, own = lab.mac("a"), lab.address("a")
        spoofed = "ff" * 6 + mac.replace(":", "") + "88b5" + "00" * 46
        evil = arp(mac, operation=2, sender_ip="169.254.169.254", target_ip=own)
        stranger = "ff" * 6 + "020000000077" + "0806" + evil[28:]
        honest = arp(mac, sender_ip=own, target_ip=lab.address("b"))
        with listening(lab, "b", "eth0") as heard, listening(lab, "b", "eth1") as tenant:
            lab.python("a", SEND, "eth0", spoofed, evil, stranger, honest)
            lab.python("a", SEND, "eth1", spoofed, evil, stranger)
        assert f"in {honest}" in heard  # the others could have been heard
        assert not {f"in {one}" for one in (spoofed, evil, stranger)} & set(heard + tenant)
        # And what the node's side sends is filtered on its way out.
        with listening(lab, "a", "eth0") as heard:
            lab.python("n", DROPPED, "p1", spoofed)
        assert f"in {spoofed}" not in heard


FAIL = """
import sys
from netemu.client import labs
from netemu.errors import NetemuError
failed = 0
for _ in range(int(sys.argv[2])):
    try:
        labs.reboot(sys.argv[1], "a")
    except NetemuError as error:
        failed += 1
        assert "ulimit -n" in str(error), error
print(failed)
"""


def service(lab: RunningLab, name: str) -> dict[str, Any]:
    return next(one for one in lab.status()["services"] if one["name"] == name)


def descriptors(lab: RunningLab, pid: str) -> int:
    return len(lab.exec("n", "ls", f"/proc/{pid}/fd").stdout.split())


def limit(lab: RunningLab, pid: str, files: int) -> None:
    lab.exec("n", "prlimit", "--pid", pid, f"--nofile={files}:")


def test_boots_that_fail_are_told_and_leave_nothing(
    fresh_lab: Callable[[str], RunningLab],
) -> None:
    """The factory has no descriptors left: `reboot` says so; two hundred failures lose nothing."""
    lab = fresh_lab(LAB)
    factory = str(service(lab, "factory")["pid"])
    lab.netemu("reboot", "a")
    assert '"_b"' in lab.get("b")  # its first process is there, and no other is needed
    time.sleep(0.5)
    before, idle = descriptors(lab, "1"), descriptors(lab, factory)
    failed = 0
    for room in (0, 1, 2, 4, 6, 8, 10, 12):
        limit(lab, factory, idle + room)
        done = lab.person.start_python("-c", FAIL, lab.name, "25").communicate()
        assert done[1] == ""
        failed += int(done[0])
    assert failed >= 150
    limit(lab, factory, idle)
    refused = lab.netemu("reboot", "a", check=None)
    assert refused.returncode != 0
    assert "rebooted" not in refused.stdout
    assert "ulimit -n" in refused.stderr
    told = lab.guests()["a"]
    assert told["power"] == "off"
    assert "ulimit -n" in told["problem"]
    assert "ulimit -n" in " ".join(lab.netemu("status").stdout.split())
    assert "ulimit -n" in lab.netemu("events").stdout
    assert '"_b"' in lab.get("b")
    assert descriptors(lab, "1") <= before
    limit(lab, factory, 4096)
    with Story(lab) as story:  # by itself, a while after
        story.until(lambda: story.powers("a")[-1:] == ["running"], 90)
    bound(lab, "a")
    assert "problem" not in lab.guests()["a"]
    assert '"_a"' in lab.get("a")
    wait_until(lambda: descriptors(lab, "1") == before, 10)


def test_the_factory_is_killed_and_stopped(fresh_lab: Callable[[str], RunningLab]) -> None:
    """Somebody kills the factory, then stops it: a reboot works, or says that it did not."""
    lab = fresh_lab(LAB)
    lab.exec("n", "kill", "-KILL", str(service(lab, "factory")["pid"]))
    assert lab.netemu("reboot", "a").stdout == "a: rebooted\n"
    assert lab.exec("b", "true").returncode == 0
    assert "factory: ended" in lab.netemu("events").stdout
    assert service(lab, "factory")["restarts"] == 1
    lab.exec("n", "kill", "-STOP", str(service(lab, "factory")["pid"]))
    began = time.monotonic()
    done = lab.netemu("reboot", "a", check=None)
    assert done.returncode == 0 or "gave no answer" in done.stderr
    assert time.monotonic() - began < 30
    bound(lab, "a")  # it is tried again
    assert '"_a"' in lab.get("a")
    assert service(lab, "factory")["restarts"] == 2


# Sends sockets through sockets until the user may have no more of them on their way, and waits.
IN_FLIGHT = """
import array, resource, socket, time
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
one = socket.socketpair()
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [one[0].fileno()] * 253))]
kept = []
sent = 0
try:
    while True:
        pair = socket.socketpair()
        kept += pair
        pair[0].setblocking(False)
        try:
            while True:
                pair[0].sendmsg([b'.'], rights)
                sent += 253
        except BlockingIOError:
            pass
except OSError as error:
    print(sent, error, flush=True)
time.sleep(1000)
"""


# A user who runs nothing else: what one process of a user's holds, all of them lack.
LONER = 65533


@pytest.fixture
def loner(person: Person) -> Iterator[Person]:
    """An ordinary user whose limits no other test shares; root is root."""
    if not person.prefix:
        yield person
        return
    home = tempfile.mkdtemp(prefix="nt-loner-")
    labs = Path(home, "labs")
    labs.mkdir(mode=0o700)
    for path in (home, labs):
        os.chown(path, LONER, LONER)
    prefix = tuple(word.replace(str(NOBODY), str(LONER)) for word in person.prefix)
    own = {"NETEMU_RUNTIME_DIR": str(labs), "HOME": home, "XDG_CACHE_HOME": home}
    somebody = Person(person.kind, prefix, {**person.environment, **own})
    yield somebody
    somebody.netemu("down", "--all", check=None)
    shutil.rmtree(home, ignore_errors=True)


def test_descriptors_in_flight_do_no_lasting_damage(loner: Person) -> None:
    """A guest has all of its user's descriptors in flight: once it ends, every guest boots."""
    loner.netemu("up", "-", "--name", "flight", "--time-scale", "0.02", stdin=LAB)
    lab = RunningLab(loner, "flight")
    attack = lab.start_python("a", IN_FLIGHT)
    assert attack.stdout is not None
    assert int(attack.stdout.readline().split()[0]) > 0
    for command in (("exec", "b", "--", "true"), ("reboot", "b")):
        done = lab.netemu(*command, check=None)  # as it may be: it ends, and says why
        assert done.returncode == 0 or "flight" in done.stderr, done.stderr
    attack.terminate()
    attack.communicate()
    wait_until(lambda: lab.netemu("reboot", "b", check=None).returncode == 0, 60)
    bound(lab, "b")
    assert '"_b"' in lab.get("b")
    assert lab.netemu("reboot", "a").stdout == "a: rebooted\n"
    loner.netemu("down", "flight")


def test_a_limit_of_processes_does_no_lasting_damage(
    fresh_lab: Callable[[str], RunningLab], person: Person
) -> None:
    """The user has all the processes allowed: what failed meanwhile comes back by itself."""
    if person.kind == "root":
        pytest.skip("root has no limit of processes")
    lab = fresh_lab(LAB)
    factory = str(service(lab, "factory")["pid"])
    for pid in ("1", factory):
        lab.exec("n", "prlimit", "--pid", pid, "--nproc=1:")
    lab.exec("n", "kill", "-KILL", str(service(lab, "n/responder")["pid"]))
    refused = lab.netemu("reboot", "a", check=None)
    assert refused.returncode != 0
    assert "ulimit -u" in refused.stderr
    lab.exec("n", "kill", "-KILL", factory)
    time.sleep(2)
    assert lab.netemu("reboot", "b", check=None).returncode != 0
    lab.exec("n", "prlimit", "--pid", "1", "--nproc=4096:")
    running = {"n/agent", "n/responder", "factory", "zygote"}
    wait_until(
        lambda: (
            {one["name"] for one in lab.status()["services"] if one["state"] == "running"}
            == running
        ),
        60,
    )
    wait_until(lambda: lab.netemu("reboot", "a", check=None).returncode == 0, 60)
    bound(lab, "a")
    wait_until(lambda: '"_a"' in lab.get("a"), 30)
    wait_until(lambda: lab.netemu("reboot", "b", check=None).returncode == 0, 60)
