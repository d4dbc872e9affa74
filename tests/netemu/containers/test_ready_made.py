"""The ready-made files for containers and CI: they parse, and say what the remedies say."""

import json
import re
from typing import Any

import pytest
import yaml

from netemu.supervisor.boot import remedies
from tests.conftest import SOURCE


def test_the_development_container_gets_what_a_lab_needs() -> None:
    told = json.loads((SOURCE / ".devcontainer/devcontainer.json").read_text())
    flags = " ".join(told["runArgs"]).replace("=", " ", 1)
    for flag in ("SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "apparmor=unconfined"):
        assert flag in flags
        assert flag in remedies.remedy(
            remedies.KernelError("a new namespace", 1),
            remedies.Surroundings(container=True, root=True),
        )


def test_the_containerfile_copies_what_setup_needs_and_nothing_private() -> None:
    text = (SOURCE / ".devcontainer/Containerfile").read_text()
    assert 'ENTRYPOINT ["netemu"]' in text
    ignored = (SOURCE / ".dockerignore").read_text().split()
    assert {".git", ".venv"} <= set(ignored)


@pytest.mark.parametrize("path", ["actions/netemu/action.yml", "workflows/example.yml"])
def test_ci_files_are_well_formed(path: str) -> None:
    told: dict[Any, Any] = yaml.safe_load((SOURCE / ".github" / path).read_text())
    steps = told["runs"]["steps"] if "runs" in told else told["jobs"]["test"]["steps"]
    for step in steps:
        assert ("run" in step) != ("uses" in step)
    assert re.search("netemu", json.dumps(steps))


def test_the_action_loads_the_modules_that_labs_use() -> None:
    text = (SOURCE / ".github/actions/netemu/action.yml").read_text()
    assert f"modprobe -a {' '.join(remedies.MODULES)}" in text
