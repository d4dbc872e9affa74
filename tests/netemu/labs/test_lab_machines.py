"""One lab of both kinds: web1 shares this kernel, vm1 is a machine that QEMU emulates.

It is brought up once, and these tests go from its boot to its move to another node.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netemu.client.machine_check import QEMU
from netemu.topology import mac_address
from tests.conftest import SOURCE, Person, RunningLab

IMAGES = SOURCE / ".images" / "small"
LAB = f"""
ipv6: true
nodes:
  node1:
    guests:
      - web1
      - name: vm1
        machine:
          kernel: {IMAGES}/kernel
          initrd: {IMAGES}/initrd
          image: DISK
          append: quiet
          memory: 128
          dmi: {{sys_vendor: Amazon EC2}}
  node2: {{guests: []}}
"""
INSTANCE = "http://169.254.169.254/metadata/v1/InstanceInfo"


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    # Not below tmp_path: pytest keeps it from other users.
    with tempfile.NamedTemporaryFile(prefix="nt-disk-") as file:
        file.write(b"on the disk".ljust(1 << 20, b"."))
        file.flush()
        Path(file.name).chmod(0o644)
        yield Path(file.name)


@pytest.fixture(scope="module")
def machines(person: Person, disk: Path) -> Iterator[RunningLab]:
    if shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not installed")
    if subprocess.run([*person.prefix, "test", "-w", "/dev/net/tun"]).returncode != 0:
        pytest.skip("this user may not open /dev/net/tun, which machines need")
    if not (IMAGES / "initrd").exists():
        built = subprocess.run([SOURCE / "netns-scripts" / "vm-image", "small"], check=False)
        if built.returncode == 3:
            pytest.skip("the small machine cannot be built: Debian's packages cannot be had")
        assert built.returncode == 0
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", prefix="nt-lab-") as file:
        Path(file.name).chmod(0o644)
        file.write(LAB.replace("DISK", str(disk)))
        file.flush()
        person.netemu("up", file.name, "--name", "machines", timeout=200)
    yield RunningLab(person, "machines")
    person.netemu("down", "machines")


def _until(lab: RunningLab, what: str, seconds: float = 60) -> None:
    """Wait until the lab's events tell of this."""
    end = time.monotonic() + seconds
    while what not in (said := lab.netemu("events").stdout):
        assert time.monotonic() < end, said
        time.sleep(0.2)


def _is_answered(lab: RunningLab) -> None:
    """Wait until the machine is answered as itself. It sets its address after it has claimed it."""
    end = time.monotonic() + 60
    # (BusyBox's own limit, wget -T, has it crash when it is reached.)
    asked = ("timeout", "3", "wget", "-qO-", INSTANCE)
    while '"_vm1"' not in (said := lab.exec("vm1", *asked, check=None)).stdout:
        assert time.monotonic() < end, said
        time.sleep(0.5)


def test_a_machine_claims_its_address_and_is_answered_as_itself(machines: RunningLab) -> None:
    guests = machines.guests()
    assert {one["state"] for one in guests.values()} == {"bound"}
    _is_answered(machines)
    assert guests["vm1"]["address"] in machines.exec("vm1", "ip", "addr").stdout
    assert '"_web1"' in machines.get("web1")
    vendor = machines.exec("vm1", "cat", "/sys/class/dmi/id/sys_vendor", "/etc/hosts")
    assert vendor.stdout.startswith("Amazon EC2\n")


def test_a_machine_is_answered_by_ipv6_as_itself(machines: RunningLab) -> None:
    """A user whose machine has set the route asks at both addresses of IPv6."""
    machines.exec("vm1", "ip", "-6", "route", "add", "fd00:ec2::254", "dev", "eth0")
    for address in ("fd00:ec2::254", "fe80::a9fe:a9fe%eth0"):
        asked = ("timeout", "20", "wget", "-qO-", f"http://[{address}]/metadata/v1/InstanceInfo/ID")
        assert machines.exec("vm1", *asked).stdout == "_vm1"
    own = machines.guests()["vm1"]["ipv6_address"]
    assert own in machines.exec("vm1", "ip", "-6", "address", "show", "eth0").stdout


def test_a_machine_reads_its_disk_and_writes_to_a_copy(machines: RunningLab, disk: Path) -> None:
    words = "echo changed > /dev/vda; sync; head -c 7 /dev/vda; head -c 20 /dev/vda | tail -c 4"
    assert machines.exec("vm1", "sh", "-c", words).stdout == "changed...."
    assert disk.read_bytes().startswith(b"on the disk")


def test_a_command_in_a_machine_has_streams_and_an_exit_code(machines: RunningLab) -> None:
    words = ("sh", "-c", "cat; echo amiss >&2; exit 7")
    done = machines.exec("vm1", *words, stdin="told\n", check=7)
    assert (done.stdout, done.stderr) == ("told\n", "amiss\n")
    machines.exec("vm1", "no-such-command", check=127)
    script = (
        "import netemu; lab = netemu.Lab.attach('machines')\n"
        "done = lab.run('vm1', ['sh', '-c', 'cat; exit 3'], input='told', check=False)\n"
        "print(done.returncode, done.stdout)\n"
        "try: lab.run('vm1', ['sleep', '60'], timeout=0.5)\n"
        "except netemu.CommandTimedOut as error: print(error)\n"
    )
    said, wrong = machines.person.start_python("-c", script).communicate(timeout=60)
    assert said == "3 told\nvm1: sleep 60 did not end within 0.5 s\n", wrong


def test_the_console_is_the_guests_log_and_its_shell(machines: RunningLab) -> None:
    typed = machines.netemu("shell", "vm1", stdin="echo $((40 + 2)) was asked\n")
    assert "42 was asked" in typed.stdout
    assert "42 was asked" in machines.netemu("logs", "vm1").stdout


SEEN = """
import json, socket, sys, time
link, seconds = sys.argv[1], float(sys.argv[2])
seen = []
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as tap:
    tap.bind((link, 0))
    tap.settimeout(0.2)
    print("listens", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            frame, (_, _, way, *_) = tap.recvfrom(2048)
        except TimeoutError:
            continue
        if way != 4:  # what comes in by the link, and not what goes out by it
            seen.append(frame[:64].hex())
print(json.dumps(seen))
"""
OTHER_MAC = "02:00:00:00:00:66"
# What root in a machine does, and how its frame is known: bytes of it, by where they begin.
ATTACKS = {
    "an echo request to the responder": (
        "ping -c1 -W1 169.254.169.254",
        {23: b"\x01", 30: bytes([169, 254, 169, 254])},
    ),
    "a port of the responder's that is not 80": (
        "nc -w1 169.254.169.254 22 </dev/null",
        {23: b"\x06", 36: (22).to_bytes(2)},
    ),
    "UDP to the responder": ("traceroute -n -q1 -m1 -w1 169.254.169.254", {23: b"\x11"}),
    "fragments": ("ping -c1 -W1 -s4000 169.254.169.254", {20: b"\x20"}),
    "ARP for a neighbour": ("arping -c1 -w1 -I eth0 {peer}", {12: b"\x08\x06", 38: b"{peer}"}),
    "the responder's address, announced": (
        "ip addr add 169.254.169.254/16 scope link dev eth0; "
        "arping -U -c1 -w1 -I eth0 169.254.169.254; "
        "ip addr del 169.254.169.254/16 dev eth0",
        {12: b"\x08\x06", 28: bytes([169, 254, 169, 254])},
    ),
    "a neighbour's address": (
        "ip addr add {peer}/16 scope link dev eth0; ping -c1 -W1 -I {peer} 169.254.169.254; "
        "ip addr del {peer}/16 dev eth0",
        {12: b"\x08\0", 26: b"{peer}"},
    ),
    "a foreign network by way of the responder": (
        "ip route add 10.0.0.0/8 via 169.254.169.254; ping -c1 -W1 10.0.0.1",
        {12: b"\x08\0", 30: bytes([10, 0, 0, 1])},
    ),
    "broadcast": ("ping -c1 -W1 169.254.255.255", {0: b"\xff" * 6, 12: b"\x08\0"}),
    "DHCP": ("udhcpc -nq -t1 -T1 -i eth0 -s /bin/true", {23: b"\x11", 34: b"\0\x44\0\x43"}),
    "IPv6": ("ping6 -c1 -W1 -I eth0 ff02::1", {0: b"\x33\x33", 12: b"\x86\xdd"}),
    "another MAC": (
        f"ip link set eth0 address {OTHER_MAC}; ping -c1 -W1 169.254.169.254; "
        "ip link set eth0 address {mac}",
        {6: bytes.fromhex(OTHER_MAC.replace(":", ""))},
    ),
}


def test_what_a_machine_sends_amiss_reaches_its_port_and_no_further(machines: RunningLab) -> None:
    guests = machines.guests()
    peer, mac = guests["web1"]["address"], guests["vm1"]["mac"]
    octets = bytes(map(int, peer.split(".")))
    port = f"p{guests['vm1']['port_mark']}"
    taps = [
        machines.start_python("node1", SEEN, port, "16"),
        machines.start_python("web1", SEEN, "eth0", "16"),
        machines.start_python("node1", SEEN, "br0", "16"),
    ]
    for tap in taps:
        assert tap.stdout is not None
        assert tap.stdout.readline() == "listens\n"
    script = "\n".join(command for command, _ in ATTACKS.values()).format(peer=peer, mac=mac)
    machines.exec("vm1", "sh", "-c", f"({script}) >/dev/null 2>&1; true", timeout=60)
    at_port, at_peer, at_bridge = (
        [bytes.fromhex(one) for one in json.loads(tap.communicate(timeout=60)[0])] for tap in taps
    )
    # The node answers a claim of its own address by announcing it.
    node = bytes.fromhex(mac_address(machines.name, "node1").replace(":", ""))
    passed = [frame for frame in (*at_peer, *at_bridge) if frame[6:12] != node]
    for name, (_, marks) in ATTACKS.items():
        known = {at: octets if value == b"{peer}" else value for at, value in marks.items()}

        def is_it(frame: bytes, known: dict[int, bytes] = known) -> bool:
            return all(frame[at : at + len(value)] == value for at, value in known.items())

        assert any(map(is_it, at_port)), f"{name}: was not sent"
        assert not any(map(is_it, passed)), f"{name}: passed"
    # Both are still who they are.
    _is_answered(machines)
    assert '"_web1"' in machines.get("web1")


def test_the_emulator_has_a_tap_and_nothing_else(machines: RunningLab) -> None:
    """No capability, no network, no socket with a name, no file but programs and its own."""
    if os.geteuid() != 0:
        pytest.skip("another user's processes cannot be looked at")
    (process,) = _emulators(machines)
    status = (process / "status").read_text()
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    for capabilities in ("CapEff", "CapPrm", "CapBnd", "CapAmb", "CapInh"):
        assert int(facts[capabilities], 16) == 0
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    assert int(facts["Seccomp_filters"]) >= 3
    links = (process / "net" / "dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in links] == ["lo"]
    names = [line.split()[7:] for line in (process / "net" / "unix").read_text().splitlines()[1:]]
    assert not any(names)
    limit = next(
        line for line in (process / "limits").read_text().splitlines() if "address space" in line
    )
    assert int(limit.split()[3]) < 1 << 30
    assert not (process / "root" / "dev" / "kvm").exists()


def _emulators(machines: RunningLab) -> list[Path]:
    """The emulator of this lab: its lab's supervisor is above it."""
    lab = f"lab {machines.name}\n"
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"qemu-system" not in (process / "cmdline").read_bytes():
                continue
            above = process
            while above.name not in ("0", "1"):
                if (above / "comm").read_text() == lab:
                    found.append(process)
                    break
                parent = (above / "status").read_text().partition("PPid:\t")[2].split()[0]
                above = Path("/proc", parent)
        except OSError:  # it has ended meanwhile
            continue
    return found


def test_a_frozen_machine_stands_still(machines: RunningLab) -> None:
    machines.maintenance("schedule", "vm1", "--type", "freeze", "--now", "--duration", "3")
    _until(machines, "vm1 on node1: frozen")
    assert "vm1 is frozen" in machines.exec("vm1", "true", check=None).stderr
    _until(machines, "Freeze Completed: vm1")
    _is_answered(machines)


def test_a_redeploy_ends_a_machine_softly_and_its_own_reboot_is_told(machines: RunningLab) -> None:
    planned = machines.maintenance("schedule", "vm1", "--type", "redeploy")
    machines.maintenance("start", planned["id"])
    _until(machines, "vm1 on node2: bound", 200)
    said = machines.netemu("events").stdout
    assert "vm1 on node1: ended by itself: the machine" in said
    assert "vm1 has moved from node1 to node2" in said
    _is_answered(machines)
    machines.exec("vm1", "sh", "-c", "(sleep 0.2; reboot) >/dev/null 2>&1 &")
    _until(machines, "vm1 on node2: rebooted by itself")
