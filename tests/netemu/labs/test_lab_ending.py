"""A lab can be taken down whatever it is doing, and a lab that hangs hides no other."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from hostagent.channel.frames import pack
from netemu.wire import runtime_dir
from tests.conftest import TIME_SCALE, Person, RunningLab
from tests.netemu.labs.test_lab_bottle import alone, gone, processes_of

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

__all__ = ["alone"]
# Seconds in which `down` ends in any case; and for a machine that is busy with other tests.
AT_MOST, AND_BUSY = 10.0, 10.0
MOMENTS = {"root": 10, "user": 6}


def down(person: Person, name: str) -> str:
    """Take the lab down; it takes no longer than it may."""
    began = time.monotonic()
    said = person.netemu("down", name, timeout=120).stdout
    assert time.monotonic() - began < AT_MOST + AND_BUSY
    assert gone(lambda: not processes_of(person)), processes_of(person)
    assert not (person.labs / name).exists()
    return said


@contextmanager
def stopped(*processes: int) -> Iterator[None]:
    """These processes do nothing meanwhile."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


def test_a_lab_that_hangs_is_shown_and_can_be_taken_down(alone: Person) -> None:
    """A user whose lab hangs sees that in `list`, and every verb's wait is bounded."""
    for name in ("hangs", "works"):
        alone.netemu("up", "--name", name, "--time-scale", str(TIME_SCALE))
    with stopped(RunningLab(alone, "hangs").status()["supervisor"]):
        listed = alone.netemu("list")
        assert re.search(r"^hangs +hung ", listed.stdout, re.MULTILINE)
        assert re.search(r"^works +up +responder-only ", listed.stdout, re.MULTILINE)
        assert listed.stderr == "hangs does not answer; 'netemu down hangs' ends it\n"
        states = {
            one["name"]: one["state"] for one in json.loads(alone.netemu("list", "--json").stdout)
        }
        assert states == {"hangs": "hung", "works": "up"}
        verbs = [
            ["status", "hangs"],
            ["exec", "--name", "hangs", "web1", "--", "true"],
            ["reboot", "--name", "hangs", "web1"],
            ["set", "--name", "hangs", "web1", "tags.a=b"],
            ["maintenance", "list", "--name", "hangs"],
            ["node", "fail", "--name", "hangs", "node1"],
            ["events", "hangs"],
            ["events", "hangs", "--follow"],
            ["up", "--name", "hangs", "--time-scale", str(TIME_SCALE)],
        ]
        for process in [alone.start(*verb) for verb in verbs]:
            _, wrong = process.communicate(timeout=60)
            assert process.returncode == 1
            assert "has not answered for 5 s" in wrong
        began = time.monotonic()
        assert alone.netemu("down", "--all").stdout == "hangs: down\nworks: down\n"
        assert time.monotonic() - began < AT_MOST + AND_BUSY
        assert gone(lambda: not processes_of(alone)), processes_of(alone)


def test_a_lab_whose_connections_are_all_taken_can_be_taken_down(alone: Person) -> None:
    """A user's other programs hold connections to the lab, or fill its queue: `down` ends it."""
    name = "crowded"
    for hang in (False, True):
        alone.netemu("up", "--name", name, "--time-scale", str(TIME_SCALE))
        supervisor = RunningLab(alone, name).status()["supervisor"]
        held = []
        with stopped(*[supervisor] * hang):
            for number in range(200):
                link = socket.socket(socket.AF_UNIX)
                link.settimeout(0.1)
                held.append(link)
                try:
                    link.connect(runtime_dir.address(alone.labs / name, runtime_dir.CONTROL))
                    link.sendall(pack({"verb": "follow"}) if number % 2 else b"\0")
                except OSError:
                    continue
            assert down(alone, name) == f"{name}: down\n"
        for link in held:
            link.close()


@pytest.mark.parametrize("what", ["netemu up", "boot.pid1"])
def test_a_lab_that_hangs_while_it_comes_up_can_be_taken_down(alone: Person, what: str) -> None:
    """A user's `up` stands still half-way: `down` ends it, and what it has begun."""
    chance = random.Random(what)
    for number in range(2):
        name = f"half{number}"
        up = alone.start("up", "--name", name, "--time-scale", "1")
        if what == "netemu up":
            assert gone((alone.labs / name).exists, 20)
            victims = [up.pid]
        else:
            end = time.monotonic() + 20
            while not (victims := processes_of(alone, what)) and time.monotonic() < end:
                pass
        time.sleep(chance.uniform(0, 0.1))
        with stopped(*victims):
            down(alone, name)
        up.communicate(timeout=20)
        assert up.returncode in (1, -signal.SIGKILL)


def test_down_beside_an_up_that_is_just_starting(alone: Person) -> None:
    """A user takes a lab down at any moment of its `up`: it is down, and `up` says so."""
    chance = random.Random(26)
    for number in range(MOMENTS[alone.kind]):
        name = f"begun{number % 2}"
        up = alone.start("up", "--name", name, "--time-scale", str(TIME_SCALE))
        time.sleep(chance.uniform(0, 1.5))
        began = time.monotonic()
        said = alone.netemu("down", name).stdout
        assert time.monotonic() - began < AT_MOST + AND_BUSY
        _, wrong = up.communicate(timeout=60)
        if said == f"{name}: down\n":
            assert up.returncode in (0, 1), wrong
        else:  # it had not begun
            assert up.returncode == 0, wrong
            assert alone.netemu("down", name).stdout == f"{name}: down\n"
        assert "Traceback" not in wrong
        assert alone.netemu("list").stdout == "no lab runs\n"
        assert gone(lambda: not processes_of(alone)), processes_of(alone)


def test_many_commands_at_once_leave_one_lab_or_none(alone: Person) -> None:
    """A user's scripts bring one lab up and down at the same time, again and again."""
    chance = random.Random(5)
    begun: list[subprocess.Popen[str]] = []
    for _ in range(6):
        begun.append(alone.start("up", "--name", "one", "--time-scale", str(TIME_SCALE)))
        time.sleep(chance.uniform(0, 0.5))
        begun.append(alone.start("down", "one"))
        time.sleep(chance.uniform(0, 0.5))
    for process in begun:
        _, wrong = process.communicate(timeout=120)
        assert process.returncode in (0, 1), wrong
        assert "Traceback" not in wrong
    alone.netemu("down", "one")
    assert gone(lambda: not processes_of(alone)), processes_of(alone)
