"""The command line without any lab: help, bad usage, and what needs no privilege."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hostagent.terminal.duration import Duration
from netemu.cli import _VERBS


def netemu(*arguments: str, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "netemu", *arguments],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "NETEMU_RUNTIME_DIR": str(directory or "/nonexistent/x")},
    )
    assert "Traceback" not in done.stderr
    return done


def test_help_names_every_verb() -> None:
    done = netemu("--help")
    assert done.returncode == 0
    for verb in _VERBS:
        assert re.search(rf"^  {verb}\b", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("verb", list(_VERBS))
def test_every_verb_has_help(verb: str) -> None:
    done = netemu(verb, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: netemu {verb}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["up", "--nonsense"],
        ["up", "/no/such/lab.yaml"],
        ["up", "--time-scale", "0"],
        ["up", "--time-scale", "fast"],
        ["up", "--name", "a b"],
        ["validate", "/no/such/lab.yaml"],
        ["exec", "web1"],
        ["maintenance", "schedule"],
        ["down", "a", "--name", "b"],
    ],
)
def test_bad_usage_is_one_clear_message_and_exit_code_2(
    arguments: list[str], tmp_path: Path
) -> None:
    done = netemu(*arguments, directory=tmp_path / "labs")
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.strip()


def test_without_a_lab_it_is_said_what_to_do(tmp_path: Path) -> None:
    for verb in (["status"], ["exec", "web1", "--", "true"], ["maintenance", "list"]):
        done = netemu(*verb, directory=tmp_path / "labs")
        assert done.returncode == 1
        assert "netemu up" in done.stderr
    assert netemu("down", directory=tmp_path / "labs").returncode == 0
    assert netemu("down", "--all", directory=tmp_path / "labs").returncode == 0
    assert json.loads(netemu("list", "--json", directory=tmp_path / "labs").stdout) == []


def test_validate_and_schema(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text("nodes: {n: {guests: 3}}")
    assert "valid" in netemu("validate", str(file)).stdout
    file.write_text("nodes: {n: {gests: 3}}")
    done = netemu("validate", str(file))
    assert done.returncode == 2
    assert "did you mean 'guests'" in done.stderr
    assert json.loads(netemu("schema").stdout)["title"] == "netemu lab file"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("1d", 86400),
        ("0.5s", 0.5),
        ("500ms", 0.5),
    ],
)
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    "text", ["", "m", "5x", "-5m", "5 m", "m5", "1h30", "nan", "inf", "9" * 400, "11000d"]
)
def test_what_is_no_length_of_time(text: str) -> None:
    import click

    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = "import sys, netemu.cli; print([m for m in sys.modules if m.split('.')[0] in %r])"
    heavy = ("rich", "pyroute2", "scapy", "uvloop", "asyncio", "msgspec", "yaml", "matplotlib")
    done = subprocess.run(
        [sys.executable, "-c", code % (heavy,)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
