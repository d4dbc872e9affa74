"""A lab leaves nothing behind, however it ends."""

import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from netemu.bench.build import lab_of
from netemu.bench.processes import descendants
from netemu.client import labs
from netemu.wire.progress import Step
from tests.conftest import TIME_SCALE, Person, RunningLab

pytestmark = [pytest.mark.lab, pytest.mark.long]

KILLS = {"root": 8, "user": 4}  # spread evenly over `up`


@pytest.fixture
def alone(person: Person, place: Path) -> Iterator[Person]:
    """The same person with a directory of labs that no other test has a lab in."""
    somebody = replace(person, environment={**person.environment, "NETEMU_RUNTIME_DIR": str(place)})
    yield somebody
    somebody.netemu("down", "--all", check=None)


def processes_of(person: Person, what: str = "", among: Iterable[int] | None = None) -> list[int]:
    """The processes whose command line names this person's labs (and `what`)."""
    found = []
    for process in every_process() if among is None else among:
        try:
            raw = Path(f"/proc/{process}/cmdline").read_bytes()
            line = raw.replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(person.labs) in line and what in line:
            found.append(process)
    return found


# What `up` says of a lab that was killed.
KILLED = "the lab ended before it was up"
# The links that a lab makes in its own namespaces: a node's bridges and ports, a guest's wires.
LINK = re.compile(r"br\d*|[pt]\d+|eth1|.*tenant.*")


def of_labs_on_the_machine(person: Person) -> set[str]:
    """What a lab would show of itself on the machine: mounts of its directory, its kind of links.

    Others mount and make links of their own meanwhile, and run labs.
    """
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    told = subprocess.run(["ip", "-j", "link"], capture_output=True, text=True, check=True).stdout
    links = [str(link["ifname"]) for link in json.loads(told)]
    return {
        *(line for line in mounts if str(person.labs) in line),
        *(name for name in links if LINK.fullmatch(name)),
    }


def sandboxes(processes: Iterable[int]) -> set[int]:
    """The PID namespaces of these processes, but for the machine's own."""
    found = set()
    for process in processes:
        with suppress(OSError):  # it is gone, or another user's
            found.add(Path(f"/proc/{process}/ns/pid").stat().st_ino)
    return found - {Path("/proc/self/ns/pid").stat().st_ino}


class Sandboxes:
    """PID namespaces that were seen, held open: no other is given the number of one of them."""

    def __init__(self) -> None:
        self._held: dict[int, int] = {}

    @property
    def seen(self) -> int:
        return len(self._held)

    def note(self, processes: Iterable[int]) -> None:
        for process in processes:
            with suppress(OSError):
                descriptor = os.open(f"/proc/{process}/ns/pid", os.O_RDONLY)
                number = os.fstat(descriptor).st_ino
                if number in self._held or number not in sandboxes([process]):
                    os.close(descriptor)
                else:
                    self._held[number] = descriptor

    def inhabited(self) -> set[int]:
        """Those that still have processes."""
        return self._held.keys() & sandboxes(every_process())

    def close(self) -> None:
        """Let go of them."""
        for descriptor in self._held.values():
            os.close(descriptor)


def every_process() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def gone(true: object, patience: float = 20.0, pause: float = 0.05) -> bool:
    """Whether something comes to be so in time: the kernel ends processes one after another."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if true():  # type: ignore[operator]
            return True
        time.sleep(pause)
    return False


def killed(person: Person, spaces: Sandboxes) -> list[int]:
    """Kill what supervises this person's labs, and all that is left of them with it."""
    for victim in processes_of(person, "netemu.supervisor.boot.pid1"):
        spaces.note([victim])
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    return processes_of(person, str(person.labs) + "/")


@pytest.mark.timeout(900)
def test_killed_at_any_moment_of_up_nothing_is_left(alone: Person) -> None:
    """A user whose lab is killed half-way through `up` finds nothing of it, many times.

    The next `up` of the same name comes at once, or after a look that finds nothing.
    """
    before = of_labs_on_the_machine(alone)
    spaces = Sandboxes()
    chance = random.Random(3927)
    up = ("up", "--name", "kill", "--time-scale", str(TIME_SCALE))
    # As far as `up` has come at a moment depends on how busy the machine is.
    whole = alone.start(*up)
    begins(alone, whole)
    begun = time.monotonic()
    _, said = whole.communicate(timeout=60)
    assert whole.returncode == 0, said
    length = (time.monotonic() - begun) * 0.8
    alone.netemu("down", "kill")
    kills = KILLS[alone.kind]
    died = tries = 0
    while died < kills or not spaces.seen:
        tries += 1
        assert tries <= 3 * kills, "the kills came too late to hit anything"
        process = alone.start(*up)
        begins(alone, process)
        time.sleep(length * (min(died, kills - 1) + chance.random()) / kills)
        if tries % 4 == 3:  # now and then it is the command that dies, not the lab
            process.kill()
        # Again, since one that is seen may have just forked PID 1 of the sandbox.
        assert gone(lambda: not killed(alone, spaces)), processes_of(alone)
        _, said = process.communicate(timeout=60)
        if process.returncode != 0:
            died += 1
        else:  # the machine was busier as `up` was measured
            length *= 0.7
        assert KILLED in said or not said, said
        assert "Traceback" not in said
        assert gone(lambda: not processes_of(alone)), processes_of(alone)
        if tries % 2:  # a command that looks removes the files; else the next `up` does
            assert gone(lambda: not _left(alone)), _left(alone)
    assert gone(lambda: not spaces.inhabited())
    spaces.close()
    assert of_labs_on_the_machine(alone) <= before
    alone.netemu(*up)
    alone.netemu("down", "kill")


def begins(person: Person, process: "subprocess.Popen[str]") -> list[int]:
    """The supervisors of this person's labs, once there is one; none if the command ends first."""
    end = time.monotonic() + 30
    older = set(every_process())
    while process.poll() is None and time.monotonic() < end:
        young = [one for one in every_process() if one not in older]
        if found := processes_of(person, "netemu.supervisor.boot.pid1", young):
            return found
        time.sleep(0.02)
    return []


def _left(person: Person) -> list[str]:
    """What is in the directory of the labs after a look at it."""
    assert "kill" not in person.netemu("list").stdout
    return [path.name for path in person.labs.iterdir() if path.name.startswith("kill")]


def test_a_killed_supervisor_takes_everything_along(alone: Person) -> None:
    """A user kills the supervisor of a running lab: all is gone, and `up` works at once."""
    before = of_labs_on_the_machine(alone)
    alone.netemu("up", "--name", "victim", "--time-scale", str(TIME_SCALE))
    words = "sh", "-c", "echo asleep; exec sleep 1000"
    sleeper = alone.start("exec", "--name", "victim", "web1", "--", *words)
    assert sleeper.stdout is not None
    assert sleeper.stdout.readline() == "asleep\n"
    lab = RunningLab(alone, "victim")
    supervisor = int(lab.status()["supervisor"])
    services = [service["name"] for service in lab.status()["services"]]
    assert services == [
        "node1/agent", "node1/responder", "node2/agent", "node2/responder", "factory", "zygote"
    ]  # fmt: skip
    os.kill(supervisor, signal.SIGKILL)
    assert sleeper.wait(timeout=60) == 128 + signal.SIGKILL
    sleeper.communicate()
    assert gone(lambda: not processes_of(alone)), processes_of(alone)
    assert alone.netemu("status", "--name", "victim", check=1).stdout == ""
    alone.netemu("up", "--name", "victim", "--time-scale", str(TIME_SCALE))
    assert '"_web1"' in lab.get("web1")
    assert alone.netemu("down", "victim").stdout == "victim: down\n"
    assert gone(lambda: not processes_of(alone))
    assert of_labs_on_the_machine(alone) <= before


def test_a_command_that_is_ended_ends_its_unfinished_lab(alone: Person) -> None:
    """A user who interrupts `up` keeps no half of a lab."""
    process = alone.start("up", "--name", "interrupted", "--time-scale", "1")
    assert gone(lambda: processes_of(alone, "netemu.supervisor.boot.pid1"))
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert gone(lambda: not processes_of(alone))
    assert "interrupted" not in alone.netemu("list").stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="as whom it is brought up says nothing here")
def test_a_large_lab_that_is_ended_while_it_claims_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user interrupts `up` of many guests: processes that share their sockets close them.

    Each takes the kernel some 13 ms; the supervisor alone would take seconds.
    """
    monkeypatch.setenv("NETEMU_RUNTIME_DIR", str(tmp_path))
    helpers: list[int] = []

    def on_step(step: Step) -> None:
        if step.phase == "claiming addresses":
            helpers.extend(descendants(labs.supervisor("large"))[1:])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        labs.bring_up(lab_of(1, 70, "large"), on_step=on_step, owned=True)
    assert len(helpers) > len(("factory", "zygote"))
    assert labs.running() == []


def test_foreground_ends_with_the_command(alone: Person) -> None:
    """A user who runs `up --foreground` takes the lab down with Ctrl-C."""
    process = alone.start("up", "--name", "front", "--time-scale", str(TIME_SCALE), "--foreground")
    assert gone(lambda: '"state": "up"' in alone.netemu("list", "--json").stdout, 60)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert "front" not in alone.netemu("list").stdout
    assert not (alone.labs / "front").exists()


def test_nothing_of_a_lab_shows_in_the_machines_network(lab: RunningLab) -> None:
    """A user sees no link, address or namespace of a running lab on the machine itself."""
    told = subprocess.run(["ip", "-j", "address"], capture_output=True, text=True, check=True)
    links = {one.get("address"): one["ifname"] for one in json.loads(told.stdout)}
    addresses = {one["local"] for link in json.loads(told.stdout) for one in link["addr_info"]}
    for guest in lab.guests().values():
        assert guest["mac"] not in links
        assert guest["address"] not in addresses
    assert not [name for name in links.values() if LINK.fullmatch(name)]


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
