"""A command that owns a lab takes it along, however the command ends."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from tests.conftest import TIME_SCALE, Person
from tests.netemu.labs.test_lab_bottle import gone

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

SCALE = ("--time-scale", str(TIME_SCALE))
OWNERS = {
    "up": ("up", "--name", "front", "--foreground", *SCALE),
    "demo": ("demo",),
    "conformance": ("conformance", "--rows", "01-20", *SCALE),
    "prove": ("conformance", "--prove", "--rows", "01-03", *SCALE),
    "against": ("conformance", "--against", "all", "--rows", "01-03", *SCALE),
    "rfc3927": ("conformance", "--suite", "rfc3927", *SCALE),
    "scenario": ("scenario", "masked-reboot"),
    "chaos": ("chaos", "--for", "20s", *SCALE),
    "build": ("bench", "build"),
    "claim": ("bench", "claim"),
    "responder": ("bench", "responder"),
    "events": ("bench", "events"),
}
# Each is killed: as soon as its lab is up where that can be seen, else at some moment. Those of a
# few kinds are also asked to end. How it ends is the same for all: root plays half of it, and an
# ordinary user the other half.
SEEN_UP = ("up", "demo", "conformance", "rfc3927", "scenario", "chaos")
ENDS = [(owner, signal.SIGKILL, owner in SEEN_UP) for owner in OWNERS]
ENDS += [("up", signal.SIGKILL, False)]
ENDS += [("up", number, True) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
ENDS += [("demo", signal.SIGINT, True), ("conformance", signal.SIGTERM, True)]
PERSONS = ("root", "user") if os.geteuid() == 0 else ("user",)
PLAYED = [(PERSONS[(turn + end[2]) % len(PERSONS)], *end) for turn, end in enumerate(ENDS)]


@pytest.fixture
def marked(person: Person, place: Path) -> Iterator[tuple[Person, str]]:
    """The same person with a directory of labs, and a mark in the environment, of a test's own."""
    mark = f"NT_MARK={uuid4()}"
    name, _, value = mark.partition("=")
    environment = {**person.environment, "NETEMU_RUNTIME_DIR": str(place), name: value}
    somebody = replace(person, environment=environment)
    yield somebody, mark
    somebody.netemu("down", "--all", check=None)


def left(mark: str) -> dict[int, str]:
    """The processes with this in the environment, and their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_text(errors="replace")
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("person", "owner", "number", "when_up"), PLAYED, indirect=["person"], scope="session"
)
def test_a_command_takes_its_lab_along(
    marked: tuple[Person, str], owner: str, number: signal.Signals, when_up: bool
) -> None:
    """A user's command is ended at some moment: no lab, process or file of it is left."""
    person, mark = marked
    chance = random.Random(f"{owner}{number}{person.kind}")
    process = person.start(*OWNERS[owner])
    if when_up:
        assert gone(lambda: '"state": "up"' in person.netemu("list", "--json").stdout, 60, 0.3)
    else:
        time.sleep(chance.uniform(0.2, 2.5))
    process.send_signal(number)
    try:
        process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    # A process that is just becoming another program has no environment to be seen.
    assert gone(lambda: person.netemu("list").stdout == "no lab runs\n", 20), left(mark)
    assert gone(lambda: not left(mark), 20), left(mark)
    assert {path.name for path in person.labs.iterdir()} <= {".netemu"}
