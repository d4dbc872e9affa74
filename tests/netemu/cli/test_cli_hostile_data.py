"""What guests and users say is shown, and never obeyed by the terminal that shows it."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Person, RunningLab

pytestmark = pytest.mark.lab

ESCAPES = "\x1b]0;owned\x07\x1b[2J[bold]:ab:web\u202e"
LAB = r"""
nodes:
  n1:
    guests:
      - name: a-guest-with-quite-a-long-name-1
        run: printf '\033]0;owned\a\033[2J[bold]:ab:\377\n'; sleep 1000
      - name: a-guest-with-quite-a-long-name-2
        run: ""
"""
FIRST, SECOND = (f"a-guest-with-quite-a-long-name-{n}" for n in (1, 2))


@pytest.fixture(scope="module")
def hostile(person: Person) -> Iterator[RunningLab]:
    person.netemu("up", "-", "--name", "hostile", "--time-scale", "0.02", stdin=LAB)
    lab = RunningLab(person, "hostile")
    try:
        yield lab
    finally:
        person.netemu("down", "hostile")


def seen(lab: RunningLab, width: int, verb: str, *words: str) -> str:
    """What a terminal of this width is sent."""
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    sizes = ("LINES", "COLUMNS", "NO_COLOR")
    environment = {k: v for k, v in lab.person.environment.items() if k not in sizes}
    with subprocess.Popen(
        lab.person.command(*verb.split(), "--name", lab.name, *words),
        env={**environment, "TERM": "xterm"}, cwd="/tmp",
        stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal,
    ) as process:  # fmt: skip
        os.close(terminal)
        said = b""
        while process.poll() is None or select.select([screen], [], [], 0)[0]:
            if select.select([screen], [], [], 0.2)[0]:
                try:
                    said += os.read(screen, 65536)
                except OSError:
                    break
    os.close(screen)
    return said.decode()


def test_a_guests_log_is_shown_and_not_obeyed(hostile: RunningLab) -> None:
    """A user reads the log of a guest that prints escapes, in a pipe and on a terminal."""
    deadline = time.monotonic() + 20
    while not (piped := hostile.netemu("logs", FIRST).stdout):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    shown = "\\x1b]0;owned\\x07\\x1b[2J[bold]:ab:\\xff"
    assert piped == f"{shown}\n"
    assert seen(hostile, 80, "logs", FIRST) == f"{shown}\r\n"
    raw = subprocess.run(
        hostile.person.command("logs", "--name", hostile.name, FIRST, "--raw"),
        env=hostile.person.environment, cwd="/tmp", capture_output=True,
    )  # fmt: skip
    assert raw.stdout == b"\x1b]0;owned\x07\x1b[2J[bold]:ab:\xff\n"


def test_the_log_of_a_guest_that_runs_nothing_is_not_just_empty(hostile: RunningLab) -> None:
    """A user asks for the log of a guest without a program, and is told so."""
    done = hostile.netemu("logs", SECOND, check=1)
    assert done.stderr == f"netemu: {SECOND}: has no log, as it has no 'run:' in the lab file\n"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_at_every_width_guests_and_events_can_be_told_apart(
    hostile: RunningLab, width: int
) -> None:
    """A user of a narrow terminal sees each guest's whole name and address, and each event's ID."""
    ids = [
        hostile.maintenance(
            "schedule", FIRST, SECOND, "--type", "freeze", "--in", "1h", "--no-impact",
            "--description", ESCAPES,
        )["id"]
        for _ in range(2)
    ]  # fmt: skip
    try:
        for verb in ("status", "top --once --interval 0.1"):
            shown = seen(hostile, width, verb)
            for guest, told in hostile.guests().items():
                assert guest in shown
                assert verb != "status" or str(told["address"]) in shown
            assert "…" not in shown
        shown = seen(hostile, width, "maintenance list")
        assert FIRST in shown
        assert SECOND in shown
        for one in ids:
            beginning = next(word for word in shown.split() if one.startswith(word))
            assert hostile.maintenance("approve", beginning)["id"] == one
        events = seen(hostile, width, "events")
        assert "\x1b]" not in events + shown
        piped = hostile.netemu("maintenance", "list", "--history", check=None)
        assert piped.returncode == 2  # maintenance has verbs of its own
        piped = hostile.person.netemu("maintenance", "list", "--name", hostile.name)
        for one in ids:
            (line,) = (line for line in piped.stdout.splitlines() if one in line)
            assert f"{FIRST}, {SECOND}" in line
    finally:
        for one in ids:
            hostile.maintenance("complete", one, check=None)


def test_what_a_user_sets_is_shown_as_it_is(hostile: RunningLab, tmp_path: Path) -> None:
    """A user sets a value that looks like markup, and one with line breaks, and reads both back."""
    text = "[red]:warning: web\u202e"
    hostile.netemu("set", FIRST, f"user_data={text}\nline", check=None)
    said = hostile.netemu("set", FIRST).stdout
    assert "[red]:warning: web\\u202e\\nline" in said
