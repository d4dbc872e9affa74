"""A lab leaves nothing behind, however it ends."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import TIME_SCALE, Person, RunningLab

pytestmark = pytest.mark.lab

KILLS = {"root": 50, "user": 20}


@pytest.fixture
def alone(person: Person, place: Path) -> Iterator[Person]:
    """The same person with a directory of labs that no other test has a lab in."""
    somebody = replace(person, environment={**person.environment, "NETEMU_RUNTIME_DIR": str(place)})
    yield somebody
    somebody.netemu("down", "--all", check=None)


def processes_of(person: Person, what: str = "") -> list[int]:
    """The processes whose command line names this person's labs (and `what`)."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(person.labs) in line and what in line:
            found.append(int(entry.name))
    return found


def machine() -> tuple[str, str, str]:
    """What a lab must never change: the machine's links, addresses and mounts."""
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True).stdout
    addresses = subprocess.run(["ip", "-o", "addr"], capture_output=True, text=True).stdout
    return links, addresses.replace("valid_lft", ""), Path("/proc/self/mounts").read_text()


def network_namespaces() -> set[int]:
    """The network namespaces of all processes that can be seen."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.add((entry / "ns" / "net").stat().st_ino)
            except OSError:
                continue
    return found


def gone(true: object, patience: float = 5.0) -> bool:
    """Whether something comes to be so in time: the kernel ends processes one after another."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if true():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


@pytest.mark.timeout(900)
def test_killed_at_any_moment_of_up_nothing_is_left(alone: Person) -> None:
    """A user whose lab is killed half-way through `up` finds nothing of it, many times."""
    before = machine()
    spaces = network_namespaces()
    chance = random.Random(3927)
    died = 0
    kills = KILLS[alone.kind]
    for number in range(kills):
        name = f"kill{number % 3}"
        process = alone.start("up", "--name", name, "--time-scale", str(TIME_SCALE))
        end = time.monotonic() + 10
        victims: list[int] = []
        while not victims and process.poll() is None and time.monotonic() < end:
            victims = processes_of(alone, "netemu.supervisor.boot.pid1")
        time.sleep(chance.uniform(0, 0.9))
        if number % 5 == 4:  # now and then it is the command that dies, not the lab
            process.kill()
        for victim in victims:
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
        _, said = process.communicate(timeout=20)
        died += process.returncode != 0
        assert "Traceback" not in said
        assert gone(lambda: not processes_of(alone)), processes_of(alone)
        if number % 2:  # whoever looks takes the files away …
            assert gone(lambda: not _left(alone)), _left(alone)
        else:  # … and so does an `up` that comes at once
            died_at_once = alone.start("up", "--name", name, "--time-scale", "0.01")
            _, said = died_at_once.communicate(timeout=30)
            assert died_at_once.returncode == 0, said
            alone.netemu("down", name)
        assert not _left(alone)
    assert died > kills // 3, "the kills came too late to hit anything"
    assert gone(lambda: network_namespaces() <= spaces | network_namespaces_of_others(alone))
    assert machine() == before
    alone.netemu("up", "--name", "kill0", "--time-scale", str(TIME_SCALE))
    alone.netemu("down", "kill0")


def _left(person: Person) -> list[str]:
    """What is in the directory of the labs after a look at it."""
    assert "kill" not in person.netemu("list").stdout
    return [path.name for path in person.labs.iterdir() if path.name.startswith("kill")]


def network_namespaces_of_others(person: Person) -> set[int]:
    """Other tests' labs may come and go on this machine meanwhile; none of ours is left."""
    return set() if processes_of(person) else network_namespaces()


def test_a_killed_supervisor_takes_everything_along(alone: Person) -> None:
    """A user kills the supervisor of a running lab: all is gone, and `up` works at once."""
    before = machine()
    alone.netemu("up", "--name", "victim", "--time-scale", str(TIME_SCALE))
    sleeper = alone.start("exec", "--name", "victim", "web1", "--", "sleep", "1000")
    lab = RunningLab(alone, "victim")
    supervisor = int(lab.status()["supervisor"])
    services = [service["name"] for service in lab.status()["services"]]
    assert services == ["node1/agent", "node1/responder", "node2/agent", "node2/responder"]
    os.kill(supervisor, signal.SIGKILL)
    assert sleeper.wait(timeout=10) == 128 + signal.SIGKILL
    sleeper.communicate()
    assert gone(lambda: not processes_of(alone)), processes_of(alone)
    assert alone.netemu("status", "--name", "victim", check=1).stdout == ""
    alone.netemu("up", "--name", "victim", "--time-scale", str(TIME_SCALE))
    assert '"_web1"' in lab.get("web1")
    assert alone.netemu("down", "victim").stdout == "victim: down\n"
    assert gone(lambda: not processes_of(alone))
    assert machine() == before


def test_a_command_that_is_ended_ends_its_unfinished_lab(alone: Person) -> None:
    """A user who interrupts `up` keeps no half of a lab."""
    process = alone.start("up", "--name", "interrupted", "--time-scale", "1")
    assert gone(lambda: processes_of(alone, "netemu.supervisor.boot.pid1"))
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert gone(lambda: not processes_of(alone))
    assert "interrupted" not in alone.netemu("list").stdout


def test_foreground_ends_with_the_command(alone: Person) -> None:
    """A user who runs `up --foreground` takes the lab down with Ctrl-C."""
    process = alone.start("up", "--name", "front", "--time-scale", str(TIME_SCALE), "--foreground")
    assert gone(lambda: '"state": "up"' in alone.netemu("list", "--json").stdout, 20)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert "front" not in alone.netemu("list").stdout
    assert not (alone.labs / "front").exists()


def test_nothing_of_a_lab_shows_in_the_machines_network(lab: RunningLab) -> None:
    """A user sees no link, address or namespace of a running lab on the machine itself."""
    links, addresses, _ = machine()
    assert "p1@" not in links
    assert "br0" not in links
    assert "169.254." not in addresses
    for guest in lab.guests().values():
        assert guest["mac"] not in links


def test_what_is_not_a_labs_stays(alone: Person) -> None:
    """A user whose labs' directory has other things in it keeps them, whatever verb looks."""
    alone.netemu("up", "--name", "mine", "--time-scale", str(TIME_SCALE))
    letters = alone.labs / "letters"
    subprocess.run([*alone.prefix, "mkdir", str(letters)], check=True)
    subprocess.run([*alone.prefix, "touch", str(letters / "control.sock")], check=True)
    listed = json.loads(alone.netemu("list", "--json").stdout)
    assert [one["name"] for one in listed] == ["mine"]
    assert alone.netemu("down", "letters").stdout == "letters: was not up\n"
    refused = alone.netemu("up", "--name", "letters", check=3).stderr
    assert refused.startswith(f"netemu: {letters}: is not a lab's")
    alone.netemu("down", "--all")
    assert [path.name for path in letters.iterdir()] == ["control.sock"]


def test_a_directory_of_somebodys_own_is_not_taken_for_the_labs(alone: Person) -> None:
    """A user who names a directory with photos in it is told so, and every photo is kept."""
    photo = alone.labs / "photos" / "one.jpg"
    subprocess.run([*alone.prefix, "mkdir", str(photo.parent)], check=True)
    subprocess.run([*alone.prefix, "touch", str(photo)], check=True)
    for verb in (["list"], ["up"], ["down", "photos"], ["down", "--all"], ["status"], ["demo"]):
        assert "holds other things than labs" in alone.netemu(*verb, check=3).stderr
    assert [path.name for path in alone.labs.iterdir()] == ["photos"]
    assert [path.name for path in photo.parent.iterdir()] == ["one.jpg"]
