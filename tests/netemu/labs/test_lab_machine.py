"""`netemu check`: what this machine can, and what it says where it cannot."""

import json
import subprocess

import pytest

from tests.conftest import Person

pytestmark = pytest.mark.lab


def on_a_poor_machine(person: Person, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run netemu where nobody may make a user namespace any more."""
    poor = "echo 0 > /proc/sys/user/max_user_namespaces && exec "
    command = person.command(*arguments)[len(person.prefix) :]
    return subprocess.run(
        [*person.prefix, "unshare", "-Ur", "sh", "-c", poor + ' "$@"', "sh", *command],
        env=person.environment,
        cwd="/tmp",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_machine_that_can_run_labs_is_told_so(person: Person) -> None:
    """A user checks the machine: every feature is there, and the exit code is 0."""
    done = person.netemu("check")
    assert "a lab can run here" in done.stdout
    found = {one["what"]: one for one in json.loads(person.netemu("check", "--json").stdout)}
    assert {"sandbox", "namespaces", "guard", "bindings", "raw frames", "open files"} <= set(found)
    assert all(one["ok"] for one in found.values())


def test_a_machine_that_cannot_is_told_what_to_do(person: Person) -> None:
    """A user who may not make namespaces is told so, with a remedy and exit code 3."""
    done = on_a_poor_machine(person, "check")
    assert done.returncode == 3, done.stderr
    assert "NO  user namespaces    at most 0" in done.stdout
    assert "sysctl -w user.max_user_namespaces" in done.stdout
    assert "a lab cannot run here" in done.stdout
    assert "Traceback" not in done.stderr


def test_up_says_it_too_and_leaves_nothing(person: Person) -> None:
    """A user who brings a lab up there gets one line and exit code 3, and no lab."""
    done = on_a_poor_machine(person, "up", "--name", "poor")
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("netemu: ")
    assert len(done.stderr.splitlines()) == 1
    assert "poor" not in person.netemu("list").stdout
