"""Every README: commands and Python run, lab files are valid, links lead somewhere."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import SOURCE, Person
from tests.readmes import Block, as_printed, blocks

IGNORED = (".venv", ".git", ".clients", ".peers", ".matrix", "build", "dist", ".pytest_cache")
READMES = sorted(path for path in SOURCE.rglob("README.md") if not set(path.parts) & set(IGNORED))
READMES.append(SOURCE / ".readme" / "package.md")  # the wheel's
BLOCKS = [block for readme in READMES for block in blocks(readme)]
LONGEST_README = 1500


def of(*languages: str) -> list[Block]:
    return [one for one in BLOCKS if one.language in languages and one.reason is None]


@pytest.fixture
def workplace(person: Person, place: Path) -> Iterator[Path]:
    """A directory with `netemu` and `hostagent` in PATH, and labs of its own."""
    if person.kind != "root" and any(person.prefix):
        pytest.skip("root runs the same commands")
    programs = place / "programs"
    programs.mkdir()
    for name in ("netemu", "hostagent"):
        script = programs / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m {name} "$@"\n')
        script.chmod(0o755)
    yield place
    subprocess.run(
        [programs / "netemu", "down", "--all"],
        env={**person.environment, "NETEMU_RUNTIME_DIR": str(place / "labs")},
        capture_output=True,
        timeout=60,
    )


@pytest.mark.lab
@pytest.mark.parametrize("block", of("sh"), ids=lambda block: block.id)
def test_every_command_of_a_readme_runs(block: Block, person: Person, workplace: Path) -> None:
    """A user pastes a block into a shell: each command in it succeeds and prints what is said."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=SOURCE if "netns-scripts/" in block.text else workplace,
        env={
            **person.environment,
            "NETEMU_RUNTIME_DIR": str(workplace / "labs"),
            "PATH": f"{workplace / 'programs'}:{person.environment['PATH']}",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, f"{block.id}\n{block.text}\n{done.stdout}\n{done.stderr}"
    after = [one for one in BLOCKS if one.readme == block.readme and one.line > block.line]
    if after and after[0].language == "text":
        assert as_printed(after[0].text, done.stdout), done.stdout


@pytest.mark.lab
@pytest.mark.parametrize("block", of("python"), ids=lambda block: block.id)
def test_every_python_block_runs(block: Block, person: Person, workplace: Path) -> None:
    """A user pastes a Python block into a file: it runs, by itself or by pytest."""
    file = workplace / "test_pasted.py"
    file.write_text(block.text)
    if "def test_" in block.text:
        compile(block.text, block.id, "exec")  # tests/netemu/test_pytest_plugin.py runs it
        return
    done = subprocess.run(
        [sys.executable, file],
        cwd=workplace,
        env={**person.environment, "NETEMU_RUNTIME_DIR": str(workplace / "labs")},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", of("yaml"), ids=lambda block: block.id)
def test_every_lab_file_is_valid(block: Block, tmp_path: Path) -> None:
    assert "nodes" in yaml.safe_load(block.text)
    file = tmp_path / "lab.yaml"
    file.write_text(block.text)
    done = subprocess.run(
        [sys.executable, "-m", "netemu", "validate", str(file)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.parent.relative_to(SOURCE)))
def test_links_and_pictures_lead_somewhere(readme: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", readme.read_text()):
        if not target.startswith(("http:", "https:")):
            assert (readme.parent / target).exists(), f"{readme}: {target}"


def test_the_readme_is_short() -> None:
    words = (SOURCE / "README.md").read_text().split()
    assert len(words) <= LONGEST_README


def test_what_is_not_run_says_why() -> None:
    assert all(len(block.reason.split()) >= 3 for block in BLOCKS if block.reason is not None)


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    """A block in a language that nothing checks would rot."""
    unchecked = {one.language for one in BLOCKS if one.reason is None} - {
        *("sh", "python", "yaml", "text", ""),
    }
    assert not unchecked


def test_what_is_printed_is_compared() -> None:
    assert as_printed("up in … s\n", "1. x\nup in 2.1 s\n")
    assert not as_printed("up in … s\n", "down in 2.1 s\n")
    assert as_printed("a\n   …\nz", "a\nb\nc\nz\n")
    assert not as_printed("a\n   …\nz", "a\nb\n")
