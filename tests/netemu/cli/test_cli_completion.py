"""Completion in bash, zsh and fish: the real shells complete real words."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Person, RunningLab

# Bash tells completions to a program this way: the words, the cursor, and the function.
BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
complete -p netemu >/dev/null || exit 9
$(complete -p netemu | sed 's/.*-F \\([^ ]*\\) .*/\\1/') netemu "${@: -1}" "${@: -2:1}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
Complete = Callable[..., list[str]]


@pytest.fixture(scope="module")
def bin_directory(person: Person) -> Iterator[Path]:
    """A directory with this person's `netemu`, and the completion for each shell."""
    with tempfile.TemporaryDirectory(prefix="nt-complete-") as name:
        place = Path(name)
        place.chmod(0o755)
        program = place / "netemu"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m netemu "$@"\n')
        program.chmod(0o755)
        for shell in ("bash", "zsh", "fish"):
            made = person.netemu("completion", shell).stdout
            (place / f"completion.{shell}").write_text(made)
        yield place


@pytest.fixture
def complete(person: Person, bin_directory: Path) -> Complete:
    """What bash offers for the last of these words."""

    def ask(*words: str) -> list[str]:
        source = str(bin_directory / "completion.bash")
        done = _run(person, bin_directory, "bash", "-c", BASH, "bash", source, "netemu", *words)
        return done.stdout.split()

    return ask


def _run(person: Person, place: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**person.environment, "PATH": f"{place}:{person.environment['PATH']}"}
    done = subprocess.run(
        [*person.prefix, *command],
        env=environment, cwd="/tmp", capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done


def test_bash_completes_verbs_and_options(complete: Complete) -> None:
    """A user types the beginning of a verb or an option and presses Tab."""
    assert complete("maint") == ["maintenance"]
    assert complete("maintenance", "app") == ["approve"]
    assert complete("graph", "--format", "") == ["svg", "dot", "mermaid"]
    assert "--time-scale" in complete("up", "--")
    assert complete("scenario", "mask") == ["masked-reboot"]
    assert complete("scenario", "masked-reboot", "--only", "") == ["with", "without"]
    assert "--output" in complete("scenario", "masked-reboot", "--")


@pytest.mark.lab
def test_bash_completes_names_of_what_runs(complete: Complete, lab: RunningLab) -> None:
    """A user presses Tab and is offered the labs, nodes and guests that there are."""
    assert complete("status", "sha") == ["shared"]
    assert complete("exec", "--name", "sh") == ["shared"]
    at = ("--name", "shared")
    assert complete("shell", *at, "web") == ["web1", "web2", "web3"]
    assert complete("exec", *at, "n") == ["node1", "node2"]
    assert complete("capture", *at, "node2") == ["node2"]
    assert complete("reboot", *at, "web1", "db") == ["db1", "db2", "db3"]
    assert complete("maintenance", "schedule", *at, "db3") == ["db3"]
    assert complete("set", *at, "no") == []
    assert complete("shell", "--name", "no-such-lab", "") == []


@pytest.mark.lab
def test_bash_completes_events_and_properties(complete: Complete, lab: RunningLab) -> None:
    """A user presses Tab where an event's ID, or a property's key, is to stand."""
    at = ("--name", "shared")
    planned = lab.maintenance("schedule", "web2", "--type", "freeze", "--in", "1h")["id"]
    try:
        assert complete("maintenance", "approve", *at, planned[:3]) == [planned]
        assert planned in complete("maintenance", "cancel", *at, "")
    finally:
        lab.maintenance("cancel", planned)
    assert complete("maintenance", "start", *at, planned[:8]) == []
    assert complete("set", *at, "web1", "vm_si") == ["vm_size="]
    assert complete("set", *at, "web1", "addr") == []  # the lab says this itself


@pytest.mark.lab
def test_completion_does_not_keep_anybody_waiting(person: Person, lab: RunningLab) -> None:
    """A user who presses Tab does not wait for what only other verbs need."""
    environment = {
        **person.environment,
        "_NETEMU_COMPLETE": "bash_complete",
        "COMP_WORDS": "netemu shell --name shared web",
        "COMP_CWORD": "4",
        "PYTHONPROFILEIMPORTTIME": "1",
    }
    done = subprocess.run(
        person.command(), env=environment, cwd="/tmp", capture_output=True, text=True
    )
    assert done.stdout.split() == ["plain,web1", "plain,web2", "plain,web3"]
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "netemu.client.labs" in loaded
    assert loaded.isdisjoint({"rich", "uvloop", "pyroute2", "scapy", "matplotlib", "netemu.bench"})


@pytest.mark.lab
@pytest.mark.skipif(shutil.which("fish") is None, reason="Debian's fish is not installed")
def test_fish_completes(person: Person, bin_directory: Path, lab: RunningLab) -> None:
    """A user of fish presses Tab."""
    script = f"source {bin_directory}/completion.fish; complete -C '%s'"
    done = _run(person, bin_directory, "fish", "--no-config", "-c", script % "netemu maint")
    assert done.stdout.split("\t")[0].strip() == "maintenance"
    done = _run(
        person, bin_directory, "fish", "--no-config", "-c",
        script % "netemu shell --name shared db",
    )  # fmt: skip
    assert sorted(done.stdout.split()) == ["db1", "db2", "db3"]


@pytest.mark.lab
@pytest.mark.skipif(shutil.which("zsh") is None, reason="Debian's zsh is not installed")
def test_zsh_completes(person: Person, bin_directory: Path, lab: RunningLab) -> None:
    """A user of zsh presses Tab: its completion function is given the words, and offers names."""
    script = """
autoload -Uz compinit; compinit -D -u
source "$1"
[[ $_comps[netemu] = _netemu_completion ]] || exit 9
# What the function hands over to zsh's own completion, instead of to a terminal.
compadd() { for word in ${(P)@[-1]}; do print -r -- $word; done }
_describe() { local -a given; given=(${(P)@[-1]}); print -rl -- $given }
words=(netemu shell --name shared web); CURRENT=5
_netemu_completion
"""
    source = str(bin_directory / "completion.zsh")
    done = _run(person, bin_directory, "zsh", "-f", "-c", script, "zsh", source)
    assert [one for one in done.stdout.split() if one.startswith("web")] == ["web1", "web2", "web3"]


def test_which_shells_are_known_is_said(person: Person) -> None:
    """A user of another shell reads which ones there are, and where the text belongs."""
    done = person.netemu("completion", "tcsh", check=2)
    assert "bash" in done.stderr
    shown = person.netemu("completion", "--help").stdout
    assert "bash-completion/completions/netemu" in shown
