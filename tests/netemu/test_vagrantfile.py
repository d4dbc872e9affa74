"""The Vagrantfile: valid, and its provisioning is what the README says."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import SOURCE

VAGRANTFILE = SOURCE / "Vagrantfile"
pytestmark = pytest.mark.skipif(
    not VAGRANTFILE.exists(), reason="not run from a checkout, which has the Vagrantfile"
)


def test_the_machine_is_provisioned_by_the_readmes_two_commands() -> None:
    """A user of Vagrant gets what the README promises, and its source is this checkout."""
    section = (SOURCE / "README.md").read_text().split("\n## Two commands\n")[1]
    shown = re.findall(r"^```sh\n(.*?)^```$", section.split("\n## ")[0], re.MULTILINE | re.DOTALL)
    commands = "".join(shown).splitlines()
    assert len(commands) == 2
    text = VAGRANTFILE.read_text()
    (script,) = re.findall(r"<<~SHELL\n(.*?)^ *SHELL$", text, re.MULTILINE | re.DOTALL)
    assert [line.strip() for line in script.splitlines()] == ["set -eu", "cd /vagrant", *commands]
    assert 'config.vm.box = "debian/bookworm64"' in text
    assert 'synced_folder ".", "/vagrant"' in text


@pytest.mark.skipif(shutil.which("vagrant") is None, reason="Debian's vagrant is not installed")
@pytest.mark.parametrize("broken", [False, True])
def test_vagrant_finds_it_valid(tmp_path: Path, broken: bool) -> None:
    """A user's Vagrant takes the file; one with a misspelt setting is refused by the same check."""
    text = VAGRANTFILE.read_text()
    if broken:
        text = text.replace("config.vm.hostname", "config.vm.hostnam")
    (tmp_path / "Vagrantfile").write_text(text)
    # Without a hypervisor there is no provider whose settings could be checked; we have none.
    done = subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=tmp_path,
        env={**os.environ, "VAGRANT_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if broken:
        assert done.returncode != 0
        assert "hostnam" in done.stdout + done.stderr
    else:
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Vagrantfile validated successfully" in done.stdout
