"""`netemu graph`, `capture` and `top` on a running lab, as root and as an ordinary user."""

import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ
from typing import Any

import pytest
from scapy.utils import rdpcap

from tests.conftest import NOBODY, Person, RunningLab
from tests.netemu.labs.test_lab_isolation import wait_until

pytestmark = pytest.mark.lab

needs_tcpdump = pytest.mark.skipif(
    shutil.which("tcpdump", path=f"{os.environ['PATH']}:/usr/sbin") is None,
    reason="Debian's tcpdump is not installed",
)

# Asks the responder over and over, so many times.
ASK = """
import http.client, sys
for _ in range(int(sys.argv[1])):
    link = http.client.HTTPConnection("169.254.169.254", timeout=5)
    link.request("GET", "/metadata/v1/InstanceInfo")
    link.getresponse().read()
    link.close()
"""


def tcpdump_reads(file: Path) -> list[str]:
    done = subprocess.run(["tcpdump", "-n", "-r", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_lab_is_drawn_in_three_formats(lab: RunningLab, place: Path) -> None:
    """A user draws the running lab, with an event in it, into a file or on standard output."""
    planned = lab.maintenance("schedule", "web2", "--type", "freeze", "--in", "10m")
    try:
        lab.netemu("graph", "-o", str(place / "lab.svg"))
        root = ET.parse(place / "lab.svg").getroot()
        said = " ".join(root.itertext())
        for guest, told in lab.guests().items():
            assert guest in said
            assert told["address"] in said
        assert "Freeze in 10 min" in said
        assert lab.netemu("graph", "--format", "dot").stdout.startswith('graph "shared" {')
        lab.netemu("graph", "-o", str(place / "lab.mmd"))
        assert "flowchart LR" in (place / "lab.mmd").read_text()
    finally:
        lab.maintenance("cancel", planned["id"])
    done = lab.netemu("graph", "-o", "/no/such/directory/x.svg", check=2)
    assert "No such file or directory" in done.stderr


@needs_tcpdump
def test_a_capture_shows_what_passes_at_a_guests_port(lab: RunningLab) -> None:
    """A user captures at one guest's port: its own frames are there, and nobody else's."""
    capture = lab.person.start("capture", "--name", lab.name, "web1", "--", "-c", "8", "tcp")
    assert capture.stderr is not None
    _until_it_listens(capture, "p1")
    lab.python("web2", ASK, "3")
    lab.python("web1", ASK, "2")
    out, _ = capture.communicate(timeout=60)
    assert capture.returncode == 0
    addresses = set(re.findall(r"169\.254\.\d+\.\d+", out))
    assert addresses == {lab.address("web1"), "169.254.169.254"}
    assert len(out.splitlines()) == 8


@needs_tcpdump
def test_ctrl_c_ends_a_capture_and_its_file_is_whole(lab: RunningLab, place: Path) -> None:
    """A user captures at a node's bridge into a file, presses Ctrl-C, and reads all of it."""
    file = place / "node2.pcap"
    capture = lab.person.start("capture", "--name", lab.name, "node2", "-w", str(file))
    _until_it_listens(capture, "br0")
    lab.python("db1", ASK, "5")
    lab.python("db2", ASK, "5")
    _interrupt(capture)
    _, err = capture.communicate(timeout=60)
    assert capture.returncode == 0
    assert "0 packets dropped by kernel" in err
    assert re.search(rf"{file}: [\d,]+ bytes, captured at node2's br0", err)
    lines = tcpdump_reads(file)
    opened = [line for line in lines if "Flags [S]," in line]
    assert len(opened) == 10
    assert {re.findall(r"IP (169\.254\.\d+\.\d+)\.", line)[0] for line in opened} == {
        lab.address("db1"),
        lab.address("db2"),
    }
    owner = file.stat().st_uid
    assert owner == (NOBODY if lab.person.prefix else os.geteuid())


@needs_tcpdump
def test_a_capture_goes_into_a_pipe(lab: RunningLab) -> None:
    """A user pipes a capture into another program, as into Wireshark."""
    arguments = ("capture", "--name", lab.name, "web3", "-w", "-", "--", "-c", "4", "tcp")
    with (
        subprocess.Popen(
            lab.person.command(*arguments),
            env=lab.person.environment,
            cwd="/tmp",
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as capture,
        subprocess.Popen(
            ["tcpdump", "-n", "-r", "-"],
            stdin=capture.stdout,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as reader,
    ):
        while capture.poll() is None:
            lab.python("web3", ASK, "1")
        out, _ = reader.communicate(timeout=60)
    assert capture.returncode == 0
    assert len(out.splitlines()) == 4
    assert f"IP {lab.address('web3')}." in out


def test_what_cannot_be_captured_is_said_in_one_line(lab: RunningLab, place: Path) -> None:
    """A user without tcpdump, or who misspells a guest, reads one line."""
    done = lab.netemu("capture", "web9", check=2)
    assert "web9: lab shared has no such guest or node" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = lab.netemu("capture", "web1", "-w", "/no/such/directory/x", check=2)
    assert "No such file" in done.stderr
    script = (
        "import netemu.cli, netemu.client.recording as r; r.shutil.which = lambda *a, **k: None; "
        f"netemu.cli.main(['capture', '--name', '{lab.name}', 'web1'])"
    )
    command = [*lab.person.prefix, sys.executable, "-c", script]
    bare = subprocess.run(
        command, env=lab.person.environment, cwd="/tmp", capture_output=True, text=True
    )
    assert bare.returncode == 3
    assert bare.stderr == ("netemu: tcpdump is not installed: run 'sudo apt-get install tcpdump'\n")


def test_top_counts_what_guests_send_and_receive(lab: RunningLab) -> None:
    """A user sees who is busy: rates at the guest's port are those of what it asked."""
    planned = lab.maintenance("schedule", "db3", "--type", "reboot", "--in", "10m")
    busy = lab.start_python("db1", ASK, "1000000")
    try:
        for _ in range(30):  # until it asks
            told = json.loads(lab.netemu("top", "--json", "--interval", "0.5").stdout)
            guests = {one["name"]: one for node in told["nodes"] for one in node["guests"]}
            if guests["db1"]["sent_frames"] > 50:
                break
        shown = lab.netemu("top", "--once", "--interval", "0.2").stdout
    finally:
        busy.terminate()
        busy.communicate()
        lab.maintenance("cancel", planned["id"])
    assert set(guests) == set(lab.guests())
    assert guests["db1"]["sent_frames"] > 50
    # Questions and answers are of the same size, about. Two frames may go for one that comes:
    # who asks also acknowledges.
    assert 0.5 < guests["db1"]["received_bytes"] / guests["db1"]["sent_bytes"] < 2
    assert guests["db1"]["sent_bytes"] > 60 * guests["db1"]["sent_frames"]
    assert 0.3 < guests["db1"]["received_frames"] / guests["db1"]["sent_frames"] < 3
    assert guests["db2"]["sent_frames"] < 5
    assert told["seconds"] > 0.4
    (event,) = told["events"]
    assert (event["id"], event["guests"], event["type"]) == (planned["id"], ["db3"], "Reboot")
    (row,) = (line for line in shown.splitlines() if line.split()[0] == "db3")
    assert row.split()[1:3] == [lab.address("db3"), "bound"]
    assert row.rstrip().endswith("Reboot in 10 min")


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_top_runs_in_a_terminal_until_q_or_ctrl_c(lab: RunningLab, key: bytes) -> None:
    """A user watches in a terminal too small for all guests, and leaves it as it was."""
    screen, terminal = pty.openpty()
    ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", 8, 80, 0, 0))
    top = subprocess.Popen(
        lab.person.command("top", "--name", lab.name, "--interval", "0.1"),
        env=_in_a_terminal(lab.person),
        cwd="/tmp",
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=_own_terminal,
    )
    os.close(terminal)
    try:
        seen = _read(screen, until=b" quieter", twice=True)
        os.write(screen, key)
        seen += _read(screen)
        assert top.wait(60) in (0, 130)
    finally:
        top.kill()
        top.wait()
        os.close(screen)
    assert b"web1" in seen
    assert b"\x1b[?1049l" in seen  # the terminal shows again what it showed before
    assert b"Traceback" not in seen


def test_a_lab_that_ends_ends_the_watching(person: Person) -> None:
    """A user watches a lab that goes down, and reads so instead of a traceback."""
    person.netemu("up", "--name", "short", "--time-scale", "0.02")
    screen, terminal = pty.openpty()
    top = subprocess.Popen(
        person.command("top", "--name", "short", "--interval", "0.1"),
        env=_in_a_terminal(person),
        cwd="/tmp",
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(terminal)
    try:
        _read(screen, until=b"web1")
        person.netemu("down", "short")
        _read(screen)
        _, err = top.communicate(timeout=60)
    finally:
        top.kill()
        os.close(screen)
    assert top.returncode == 1
    assert err.startswith("netemu: ")
    assert len(err.splitlines()) == 1


def _in_a_terminal(person: Person) -> dict[str, str]:
    """The environment: the size is not what somebody else's terminal has."""
    sizes = ("LINES", "COLUMNS")
    inherited = {key: value for key, value in person.environment.items() if key not in sizes}
    return {**inherited, "TERM": "xterm"}


def _own_terminal() -> None:
    """Make standard input the terminal from which Ctrl-C comes."""
    from termios import TIOCSCTTY

    ioctl(0, TIOCSCTTY, 0)


def _read(screen: int, *, until: bytes | None = None, twice: bool = False) -> bytes:
    """What is written to a terminal until `until` (twice) is there, or nobody writes any more."""
    seen = b""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if until is not None and seen.count(until) > twice:
            return seen
        ready, _, _ = select.select([screen], [], [], 0.2)
        if ready:
            try:
                seen += os.read(screen, 65536)
            except OSError:  # the other end is closed
                return seen
    raise AssertionError(f"not seen in time; but {seen!r}")


def _until_it_listens(capture: "subprocess.Popen[str]", link: str) -> None:
    assert capture.stderr is not None
    for line in capture.stderr:
        if f"listening on {link}," in line:
            return
    raise AssertionError("it ended")


def _interrupt(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGINT)


@needs_tcpdump
def test_a_capture_goes_on_over_a_guests_reboot(person: Person, fresh_lab: Any) -> None:
    """A user captures at a guest while it reboots: frames of both lives are in one whole file."""
    lab = fresh_lab("nodes: {n1: {guests: [web1]}}")
    file = Path("/tmp") / f"{person.labs.name}-both.pcap"
    running = person.start("capture", "--name", lab.name, "web1", "-w", str(file))
    try:
        wait_until(lambda: file.exists() and file.stat().st_size >= 24)
        wait_until(lambda: lab.get("web1") != "" and file.stat().st_size > 500)
        before = file.stat().st_size
        lab.netemu("reboot", "web1")
        wait_until(lambda: lab.guests()["web1"]["state"] == "bound")
        wait_until(lambda: lab.get("web1") != "" and file.stat().st_size > before + 500)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=30)
        assert running.returncode == 0
        frames = rdpcap(str(file))
        assert sum(len(frame) + 16 for frame in frames) + 24 == file.stat().st_size
    finally:
        running.kill()
        running.communicate()
        file.unlink(missing_ok=True)
