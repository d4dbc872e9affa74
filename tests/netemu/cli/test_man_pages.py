"""The manual pages are those of the commands as they are, and man shows them."""

import shutil
import subprocess
import tomllib
from pathlib import Path

import click
import pytest

import netemu
from hostagent.cli import cli as hostagent
from hostagent.terminal.manual import page
from netemu.cli import cli
from tests.netemu.cli.every_verb import commands, found

ROOT = Path(netemu.__file__).parent.parent
PROGRAMS = {"netemu": cli, "hostagent": hostagent}
programs = pytest.mark.parametrize("name", PROGRAMS)


@programs
def test_the_pages_are_current(name: str) -> None:
    """If this fails, run netns-scripts/man-pages."""
    made = page(PROGRAMS[name], name, netemu.__version__)
    assert (ROOT / "netns-scripts" / "man" / f"{name}.1").read_text() == made, (
        "run netns-scripts/man-pages"
    )


@programs
def test_a_page_has_every_command_and_option(name: str) -> None:
    made = page(PROGRAMS[name], name, "1").replace("\\-", "-")
    for path in commands(PROGRAMS[name]):
        assert f'.SS "{name} {" ".join(path)}' in made
        for one in found(PROGRAMS[name], path).params:
            for option in one.opts if isinstance(one, click.Option) else ():
                assert option in made


def test_text_is_not_taken_for_requests() -> None:
    @click.group(help="Of dots.\n\n.SH and \\fB, in 'quotes'\n\n\b\n.nf\n'x")
    def root() -> None: ...

    made = page(root, "dots", "1")
    assert "\\&.SH and \\(rsfB" in made
    assert "\\&.nf\n\\&'x" in made


def test_the_wheel_installs_them() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    files = told["tool"]["setuptools"]["data-files"]["share/man/man1"]
    assert files == sorted(f"netns-scripts/man/{name}.1" for name in PROGRAMS)
    assert all((ROOT / file).is_file() for file in files)


@pytest.mark.processes
@pytest.mark.skipif(shutil.which("groff") is None, reason="Debian's groff is not installed")
@programs
def test_groff_has_nothing_to_say_against_a_page(name: str) -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", str(ROOT / "netns-scripts" / "man" / f"{name}.1")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
