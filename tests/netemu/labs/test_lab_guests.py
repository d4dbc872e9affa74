"""A guest is master of its own stack, and of nothing else."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from netemu.bench.processes import descendants
from tests.conftest import RunningLab
from tests.netemu.labs.frames import SEND, arp
from tests.netemu.labs.test_lab_isolation import listening, wait_until

pytestmark = pytest.mark.lab

# Tries to enter the namespaces of every process it can see, and of the lab's supervisor.
ESCAPE = """
import ctypes, glob, os, sys
libc = ctypes.CDLL(None, use_errno=True)
kinds = 'net', 'user', 'mnt', 'pid', 'uts', 'ipc'
own = {kind: os.stat('/proc/self/ns/' + kind).st_ino for kind in kinds}
entered = []
paths = glob.glob('/proc/[0-9]*/ns/*') + glob.glob('/run/netns/*') + glob.glob('/proc/*/root/run/*')
for path in paths + ['/proc/%s/ns/net' % pid for pid in sys.argv[1:]]:
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        continue
    if os.fstat(fd).st_ino not in own.values() and libc.setns(fd, 0) == 0:
        entered.append(path)
    os.close(fd)
print('entered', entered)
print('processes', len(glob.glob('/proc/[0-9]*')))
# In the guest, a low number may be that of one of its own processes, this one among them.
own = {int(path.split('/')[2]) for path in glob.glob('/proc/[0-9]*')}
for pid in set(map(int, sys.argv[1:])) - own:
    try:
        os.kill(pid, 0)
        print('can signal', pid)
    except OSError:
        pass
"""


def test_root_in_a_guest_is_root_of_its_own_network(lab: RunningLab) -> None:
    """A user in a guest is root there: sets links and addresses, sniffs, and crafts frames."""
    assert lab.exec("web3", "id", "-u").stdout == "0\n"
    lab.exec("web3", "ip", "address", "add", "198.51.100.7/24", "dev", "eth0")
    lab.exec("web3", "ip", "link", "set", "lo", "down")
    lab.exec("web3", "ip", "link", "set", "lo", "up")
    lab.exec("web3", "ip", "address", "del", "198.51.100.7/24", "dev", "eth0")
    probe = arp(lab.mac("web3"), target_ip="169.254.169.254")
    with listening(lab, "web3", "eth0") as heard:
        lab.python("web3", SEND, "eth0", probe)
    assert f"out {probe}" in heard
    assert '"_web3"' in lab.get("web3")


def test_root_in_a_guest_can_enter_no_other_namespace(lab: RunningLab) -> None:
    """A user who is root in a guest sees the guest's processes only, and enters nothing."""
    told = lab.status()
    services = [str(one["pid"]) for one in told["services"]]
    others = [str(told["supervisor"]), *services]
    shown = lab.python("web1", ESCAPE, *others).stdout
    assert "entered []" in shown
    assert "can signal" not in shown
    assert int(shown.split("processes ")[1].split()[0]) <= 3


def test_a_guest_sees_no_control_socket(lab: RunningLab) -> None:
    """A user in a guest finds no socket of the lab, neither by path nor by abstract name."""
    labs = str(lab.person.labs)
    assert lab.exec("web1", "ls", "-A", labs).stdout == ""
    # What it has there are the two files that stand in for the machine's.
    assert set(lab.exec("web1", "ls", "/run").stdout.split()) <= {"hosts", "resolv.conf"}
    sockets = lab.exec("web1", "cat", "/proc/net/unix").stdout.splitlines()
    assert len(sockets) == 1, sockets
    for place in ("web1", "node1"):
        shown = lab.exec(place, "sh", "-c", f"ls {labs}/*/lab.log", check=2)
        assert "cannot access" in shown.stderr
    # The check can fail: outside, it is there.
    assert (lab.person.labs / lab.name / "lab.log").is_file()


def test_what_hides_the_sockets_cannot_be_lifted(lab: RunningLab) -> None:
    """A user who is root in a guest cannot unmount what covers the lab's files."""
    labs = str(lab.person.labs)
    for path in (labs, "/run", "/proc/sys"):
        lab.exec("web1", "umount", path, check=32)
    lab.exec("web1", "umount", "-l", labs, check=32)
    assert lab.exec("web1", "ls", "-A", labs).stdout == ""


def test_a_guest_cannot_change_the_machines_settings(lab: RunningLab) -> None:
    """A user in a guest sets its own network's settings and no others."""
    lab.exec("web1", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/log_martians")
    lab.exec("web1", "sh", "-c", "echo x > /proc/sys/kernel/core_pattern", check=2)
    # To write what stands there already would change nothing if it were let.
    script = "cd /proc/irq && read mask < default_smp_affinity && echo $mask > default_smp_affinity"
    lab.exec("web1", "sh", "-c", script, check=2)
    # Nor by mounting the same again, where nothing would lie over it.
    lab.exec("web1", "mount", "-t", "proc", "proc", "/mnt", check=32)


def test_guests_do_not_share_their_processes(lab: RunningLab) -> None:
    """A process that stays behind in one guest is not seen in another."""
    lab.exec("web2", "sh", "-c", "sleep 31 >/dev/null 2>&1 </dev/null &")
    assert "sleep 31" in lab.exec("web2", "ps", "ax").stdout
    assert "sleep 31" not in lab.exec("web1", "ps", "ax").stdout
    lab.exec("web2", "pkill", "-f", "sleep 31", check=None)


def test_what_a_guest_had_in_memory_goes_with_its_first_process(lab: RunningLab) -> None:
    """A guest's first process is killed, as when memory is short: nothing of it is kept for it."""
    if os.geteuid() != 0:
        pytest.skip("only root may look at a supervisor's descriptors")
    lab.exec("web3", "true")
    supervisor = lab.status()["supervisor"]
    first = next(
        pid
        for pid in descendants(supervisor)
        if Path(f"/proc/{pid}/comm").read_text() == "init web3\n"
    )
    mounts = os.readlink(f"/proc/{first}/ns/mnt")

    def held() -> bool:
        there = Path(f"/proc/{supervisor}/fd").iterdir()
        return mounts in [os.readlink(one) for one in there if one.is_symlink()]

    assert held()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not held())
    assert lab.exec("web3", "echo", "again").stdout == "again\n"


def test_a_rebooted_guest_gets_its_address_back(fresh_lab: object) -> None:
    """A user reboots a guest: its processes end, and it holds the address it had before."""
    lab = fresh_lab("nodes: {n: {guests: [a, b]}}")  # type: ignore[operator]
    before = lab.guests()["a"]
    lab.exec("a", "sh", "-c", "sleep 1000 >/dev/null 2>&1 </dev/null &")
    with listening(lab, "n", "br0") as heard:  # its port is a new one
        lab.netemu("reboot", "a")
        wait_until(lambda: lab.guests()["a"]["state"] == "bound")
    assert lab.guests()["a"] == before
    assert '"_a"' in lab.get("a")
    assert "sleep 1000" not in lab.exec("a", "ps", "ax").stdout
    # Section 2.2: it probed again before it used the address, and for that address first (2.1).
    probe = arp(before["mac"], target_ip=before["address"])
    sent = [one.split()[1] for one in heard if one.startswith("in ") and " ffffffffffff" in one]
    assert sent.count(probe) == 3
    assert sent[0] == probe


def test_two_guests_that_want_one_address_end_with_two(fresh_lab: object) -> None:
    """Guests that remember one and the same address, as after a copy, end with different ones."""
    for policy in ("responder-only", "same-node"):
        lab = fresh_lab(  # type: ignore[operator]
            f"policy: {policy}\n"
            "nodes:\n"
            "  n:\n"
            "    guests:\n"
            "      - {name: a, last_address: 169.254.77.77}\n"
            "      - {name: b, last_address: 169.254.77.77}\n"
        )
        guests = lab.guests()
        assert guests["a"]["address"] != guests["b"]["address"]
        assert {one["state"] for one in guests.values()} == {"bound"}
        if policy == "responder-only":  # first come, first served: one of them kept it
            assert "169.254.77.77" in {one["address"] for one in guests.values()}
        assert '"_a"' in lab.get("a")
        assert '"_b"' in lab.get("b")


def test_one_address_on_two_nodes_is_legal(fresh_lab: object) -> None:
    """Section 3.2: a conflict counts only where it is heard; nodes do not hear each other."""
    lab = fresh_lab(  # type: ignore[operator]
        "nodes:\n"
        "  n1: {guests: [{name: a, last_address: 169.254.77.77}]}\n"
        "  n2: {guests: [{name: b, last_address: 169.254.77.77}]}\n"
    )
    assert lab.address("a") == lab.address("b") == "169.254.77.77"
    assert '"_a"' in lab.get("a")
    assert '"_b"' in lab.get("b")


def test_an_address_in_use_cannot_be_claimed_by_a_neighbour(fresh_lab: object) -> None:
    """A guest that probes for its neighbour's address is told it is taken, by the node."""
    lab = fresh_lab("nodes: {n: {guests: [a, b]}}")  # type: ignore[operator]
    probe = arp(lab.mac("a"), target_ip=lab.address("b"))
    with listening(lab, "a", "eth0") as at_a, listening(lab, "b", "eth0") as at_b:
        lab.python("a", SEND, "eth0", probe)
        time.sleep(0.1)
    refusals = [one for one in at_a if one.startswith("in ffffffffffff")]
    assert len(refusals) == 1
    assert not [one for one in at_b if one.startswith("in ")]
    assert lab.guests()["b"]["state"] == "bound"
    assert '"_b"' in lab.get("b")


def test_a_dead_agent_is_started_again(fresh_lab: object) -> None:
    """A user kills agent and responder: both come back, say so in `status`, and know it all."""
    lab = fresh_lab("nodes: {n: {guests: [a, b]}}")  # type: ignore[operator]
    lab.maintenance("schedule", "a", "--type", "reboot", "--in", "4m")
    wait_until(lambda: "eboot" in lab.get("a"))
    for role in ("agent", "responder"):
        host_pid = _host_pid(lab, f"n/{role}")
        os.kill(host_pid, signal.SIGKILL)
        wait_until(lambda role=role: _restarts(lab, role) == 1, 10)  # type: ignore[misc]
        wait_until(lambda: "eboot" in lab.get("a"), 10)
    assert "Reboot" not in lab.get("b")
    assert len(lab.maintenance("list")) == 1
    shown = lab.netemu("status").stdout
    assert "n/agent: running, started again 1 time, last ended with signal 9" in shown
    # While the agent is away the responder answers from what it knows.
    os.kill(_host_pid(lab, "n/agent"), signal.SIGKILL)
    assert "eboot" in lab.get("a")


def test_a_responder_that_hangs_is_started_again(fresh_lab: object) -> None:
    """A responder hangs: `status` says so, and seconds later guests are answered again."""
    lab = fresh_lab("nodes: {n: {guests: [a]}}")  # type: ignore[operator]
    hanging = _host_pid(lab, "n/responder")
    os.kill(hanging, signal.SIGSTOP)
    wait_until(lambda: _service(lab, "n/responder")["state"] == "hung", 15)
    wait_until(lambda: _restarts(lab, "responder") == 1, 20)
    assert _service(lab, "n/responder")["last_end"] == "hung for 8 s"
    assert '"_a"' in lab.get("a")


# Takes every connection that the agent of node `n` has, and holds them.
FILL = """
import sys, time
from hostagent.controller import ControllerError, SyncController
from netemu.client import labs
path, held = labs.agents(sys.argv[1])["n"], []
try:
    while True:
        held.append(SyncController.connect(path))
except ControllerError as error:
    print(error, flush=True)
time.sleep(60)
"""


def test_a_full_agent_ends_no_lab(fresh_lab: object) -> None:
    """A program of the user's holds all of an agent's connections: the lab goes on without them."""
    lab = fresh_lab("nodes: {n: {guests: [a, b]}, m: {guests: [c]}}")  # type: ignore[operator]
    filling = lab.person.start_python("-c", FILL, lab.name)
    try:
        # The agent closes what it refuses, and its reason may not be heard.
        told = filling.stdout.readline()
        assert "too many command connections" in told or told.startswith("agent at "), told
        refused = lab.netemu("set", "a", "vm_size=Standard_F2", check=1)
        # The agent closes what it refuses, and its reason may not be heard.
        assert refused.stderr.startswith("netemu: a: n: ")
        refused = lab.maintenance("schedule", "a", check=1)
        assert refused.stderr.startswith("netemu: n: ")
        lab.netemu("reboot", "a")
        wait_until(lambda: lab.guests()["a"]["state"] == "bound", 20)
        assert '"_a"' in lab.get("a")
        lab.maintenance("schedule", "c")
    finally:
        filling.kill()
        filling.communicate()
    lab.netemu("set", "a", "vm_size=Standard_F2")
    assert lab.maintenance("schedule", "a")["status"] == "Scheduled"


def _service(lab: RunningLab, name: str) -> dict[str, Any]:
    (service,) = [one for one in lab.status()["services"] if one["name"] == name]
    return service


def _restarts(lab: RunningLab, role: str) -> int:
    (service,) = [one for one in lab.status()["services"] if one["name"] == f"n/{role}"]
    return int(service["restarts"]) if service["state"] == "running" else -1


def _host_pid(lab: RunningLab, name: str) -> int:
    """The process ID of a service, as the machine sees it."""
    (inside,) = [one["pid"] for one in lab.status()["services"] if one["name"] == name]
    sandbox = os.stat(f"/proc/{lab.status()['supervisor']}/ns/pid").st_ino
    for entry in os.listdir("/proc"):
        try:
            if os.stat(f"/proc/{entry}/ns/pid").st_ino != sandbox:
                continue
            with open(f"/proc/{entry}/status") as file:
                (line,) = [one for one in file if one.startswith("NSpid:")]
        except (OSError, ValueError):
            continue
        if line.split()[-1] == str(inside):
            return int(entry)
    raise AssertionError(f"{name} is not found")
