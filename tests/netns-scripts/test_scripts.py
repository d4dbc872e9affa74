"""The scripts that people run first."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import NOBODY, SOURCE, Person

SCRIPTS = SOURCE / "netns-scripts"
SHELL_SCRIPTS = [
    path
    for path in [*SCRIPTS.rglob("*"), SOURCE / ".ci" / "run"]
    if path.is_file() and (path.suffix == ".sh" or path.read_bytes().startswith(b"#!/bin/"))
] + [SCRIPTS / "bootstrap"]


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_a_shell_reads_it(script: Path) -> None:
    shell = "sh" if script.read_text().startswith("#!/bin/sh") else "bash"
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", ["netemu", "test"])
def test_it_can_be_run(script: str) -> None:
    assert os.access(SCRIPTS / script, os.X_OK)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ([], "nothing is not 'start' or 'stop'"),
        (["start", "--servers", "0"], "--servers 0: 1 to 9"),
        (["start", "--port", "80"], "--port 80: 1000 to 65499"),
        (["start", "--dir"], "--dir: its value is missing"),
        (["stop", "--all", "x"], "--all: unknown option"),
    ],
)
def test_etcd_is_told_what_is_wrong(arguments: list[str], wrong: str) -> None:
    done = subprocess.run([SCRIPTS / "etcd", *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert wrong in done.stderr


@pytest.mark.lab
def test_the_demo_tells_the_truth(person: Person) -> None:
    """A user runs the demo: each line is checked."""
    done = person.netemu("demo")
    assert "NOT SO" not in done.stdout
    assert done.stdout.count("✓") == 9
    assert "Everything above was checked and is true." in done.stdout
    for told in ("web1 sees it", "its neighbours do not", "on the other node", "nothing is left"):
        assert told in done.stdout
    assert "demo-" not in person.netemu("list").stdout


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to hide nft from an ordinary user")
def test_without_nft_an_ordinary_user_is_told_what_to_run() -> None:
    """A user without root and without nft gets one line that says what to run, and exit code 3."""
    nft = shutil.which("nft", path="/usr/sbin:/usr/bin:/sbin")
    assert nft is not None
    become = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups"
    script = f"mount --bind /dev/null {nft} && {become} {SCRIPTS / 'netemu'} demo"
    if subprocess.run([*become.split(), "test", "-r", str(SCRIPTS / "netemu")]).returncode:
        pytest.skip("this checkout is in a place that ordinary users cannot read")
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr == "netemu: missing: nftables; run: sudo apt-get install nftables\n"
    assert done.stdout == ""
