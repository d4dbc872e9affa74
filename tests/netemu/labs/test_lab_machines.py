"""One lab of both kinds: web1 shares this kernel, vm1 is a machine that QEMU emulates.

It is brought up once, and these tests go from its boot to its end. Root's machine has a tap; an
ordinary user's, who may not open /dev/net/tun as a rule, has a relay.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netemu.client.machine_check import QEMU
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
          append: quiet mitigations=off
          memory: 128
          cloud: ec2
          dmi: {{board_name: vm1}}
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
    script = SOURCE / "netns-scripts" / "vm-image"
    image = IMAGES / "initrd"
    if not image.exists() or image.stat().st_mtime < script.stat().st_mtime:
        built = subprocess.run([script, "small"], check=False)
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
    files = [f"/sys/class/dmi/id/{name}" for name in ("sys_vendor", "board_name", "product_uuid")]
    vendor, board, uuid = machines.exec("vm1", "cat", *files).stdout.split("\n")[:3]
    assert (vendor, board, uuid[:3]) == ("Amazon EC2", "vm1", "ec2")


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


# Rows of the catalogue that a machine plays: its own kernel sends the frames. Of a machine with a
# relay, those that a relay could spoil.
ROWS = "02,06,18,21,29,38,39,44,49,54,56,59"
ROWS_BY_RELAY = "06,18,29,38,49"


def _played(lab: RunningLab, rows: str) -> dict[str, dict[str, Any]]:
    told = lab.netemu("conformance", "--rows", rows, "--json", check=None, timeout=300).stdout
    played = {row["id"]: row for row in json.loads(told)["rows"]}
    assert list(played) == rows.split(",")
    return played


def test_what_a_machine_sends_amiss_reaches_its_port_and_no_further(machines: RunningLab) -> None:
    """Rows of the catalogue, from within; some are seen to fail while the guard lets all pass."""
    by_tap = machines.person.kind == "root"
    held = _played(machines, ROWS if by_tap else ROWS_BY_RELAY)
    assert [row for row in held.values() if not row["ok"]] == []
    if by_tap:
        weak = _without_guard(machines)
        assert [
            row for row in weak.values() if row["observed"] in (row["expected"], "failed")
        ] == []
    # Both are still who they are.
    _is_answered(machines)
    assert '"_web1"' in machines.get("web1")


def _without_guard(lab: RunningLab) -> dict[str, dict[str, Any]]:
    chains = ("netdev guard from_guest", "netdev guard to_guest", "inet guard input")
    opened = "; ".join(f"nft -ae insert rule {chain} accept" for chain in chains)
    said = lab.exec("node1", "sh", "-ec", opened).stdout
    try:
        return _played(lab, ROWS_BY_RELAY)
    finally:
        handles = re.findall(r"handle (\d+)", said)
        ends = zip(chains, handles, strict=True)
        closed = "; ".join(f"nft delete rule {chain} handle {one}" for chain, one in ends)
        lab.exec("node1", "sh", "-ec", closed)


def test_the_emulator_has_a_wire_and_nothing_else(machines: RunningLab) -> None:
    """No capability, no other network, no socket with a name, no file but programs and its own."""
    if os.geteuid() != 0:
        pytest.skip("another user's processes cannot be looked at")
    (emulator,) = _emulators(machines)
    relayed = not os.access("/dev/net/tun", os.W_OK) or machines.person.kind != "root"
    init = (emulator / "status").read_text().partition("PPid:\t")[2].split()[0]
    programs = Path("/proc", init, "task", init, "children").read_text().split()
    assert len(programs) == 1 + relayed  # the relay is as confined as the emulator
    for program in programs:
        status = Path("/proc", program, "status").read_text()
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        for capabilities in ("CapEff", "CapPrm", "CapBnd", "CapAmb", "CapInh"):
            assert int(facts[capabilities], 16) == 0
        assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
        assert int(facts["Seccomp_filters"]) >= (3 if program == emulator.name else 2)
        lines = Path("/proc", program, "limits").read_text().splitlines()
        limit = next(line for line in lines if "address space" in line)
        assert int(limit.split()[3]) < 1 << 30
    links = (emulator / "net" / "dev").read_text().splitlines()[2:]
    assert {line.split(":")[0].strip() for line in links} == {"lo", *(["eth0"] if relayed else [])}
    names = [line.split()[7:] for line in (emulator / "net" / "unix").read_text().splitlines()[1:]]
    assert not any(names)
    assert not (emulator / "root" / "dev" / "kvm").exists()


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


def test_a_machine_boots_elsewhere_when_its_node_fails_and_softly_for_a_redeploy(
    machines: RunningLab,
) -> None:
    """Its node fails while it reboots by its own wish; in the end it is preempted."""
    if machines.person.kind != "root":
        pytest.skip("root's machine goes through this; an ordinary user's has another end")
    machines.exec("vm1", "sh", "-c", "(sleep 0.2; reboot) >/dev/null 2>&1 &")
    _until(machines, "vm1 on node1: rebooted by itself")
    machines.person.netemu("node", "fail", "node1", "--name", machines.name)
    _until(machines, "vm1 on node2: bound", 200)
    _is_answered(machines)
    machines.person.netemu("node", "restore", "node1", "--name", machines.name)
    planned = machines.maintenance("schedule", "vm1", "--type", "redeploy")
    machines.maintenance("start", planned["id"])
    _until(machines, "vm1 has moved from node2 to node1", 100)
    assert "vm1 on node2: ended by itself: the machine" in machines.netemu("events").stdout
    _until(machines, "vm1 on node1: bound", 200)
    _ends(machines, "preempt")


def test_a_reboot_and_a_termination_press_a_machines_power_button(machines: RunningLab) -> None:
    if machines.person.kind == "root":
        pytest.skip("root's machine has ended")
    planned = machines.maintenance("schedule", "vm1", "--type", "reboot")
    machines.maintenance("start", planned["id"])
    _until(machines, "vm1 on node1: ended by itself: the machine")
    _until(machines, "vm1 on node1: bound", 200)
    _is_answered(machines)
    _ends(machines, "terminate")
    assert machines.netemu("events").stdout.count("ended by itself: the machine") == 2


def _ends(lab: RunningLab, kind: str) -> None:
    """Have an event of this kind end the machine for good."""
    planned = lab.maintenance("schedule", "vm1", "--type", kind)
    lab.maintenance("start", planned["id"])
    _until(lab, "vm1 on node1: gone", 100)
    assert _emulators(lab) == []
    assert "vm1 is gone" in lab.exec("vm1", "true", check=None).stderr
    assert '"_web1"' in lab.get("web1")
