"""A command that is ended, in whatever way, takes along what it has started."""

import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import Person, RunningLab
from tests.netemu.labs.test_lab_bottle import gone

pytestmark = pytest.mark.lab

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP]


def naming(*texts: str) -> list[int]:
    """The processes of this machine whose command line has all of these texts in it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if line and all(text.encode() in line for text in texts):
            found.append(int(entry.name))
    return found


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("place", ["web1", "node1"])
def test_a_killed_exec_takes_its_command_along(
    lab: RunningLab, number: signal.Signals, place: str
) -> None:
    """A user's `exec` is killed: the command that ran in the guest or on the node has ended."""
    length = f"{time.monotonic_ns()}"
    process = lab.person.start("exec", "--name", lab.name, place, "--", "sleep", length)
    assert gone(lambda: naming("sleep\0" + length), 20)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert gone(lambda: not naming("sleep\0" + length))


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed")
@pytest.mark.parametrize("number", SIGNALS)
def test_a_killed_capture_takes_tcpdump_along(
    lab: RunningLab, number: signal.Signals, place: Path
) -> None:
    """A user's `capture` is killed: no tcpdump is left on the node."""
    port = str(20000 + time.monotonic_ns() % 40000)
    words = ("--name", lab.name, "web1", "-w", str(place / "file.pcap"), "--", "tcp", "port", port)
    process = lab.person.start("capture", *words)
    assert gone(lambda: naming("tcpdump", port + "\0"), 20)
    assert gone(lambda: (place / "file.pcap").stat().st_size, 20)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert gone(lambda: not naming("tcpdump", port + "\0"))


def test_a_killed_program_takes_its_commands_along(person: Person, lab: RunningLab) -> None:
    """A user's program is killed with -9: what it ran in a guest of a lab has ended."""
    length = f"{time.monotonic_ns()}"
    program = (
        "import os, sys; from netemu.client import exec_background, labs\n"
        f"places = labs.enter({lab.name!r}, 'web1')\n"
        f"exec_background.start(places, ['sh', '-c', 'sleep {length}; true']).wait()"
    )
    process = person.start_python("-c", program)
    assert gone(lambda: naming("sleep\0" + length), 20)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert gone(lambda: not naming("sleep\0" + length))
