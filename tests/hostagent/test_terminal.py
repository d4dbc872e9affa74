"""What both commands print with: nothing is obeyed by the terminal, and nothing is lost."""

import ast
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

import hostagent
import netemu
from hostagent.terminal.output import Styled, painted, visible
from hostagent.terminal.table import Column, beginning, lines

# Anything that a terminal obeys, or that hides or turns text around.
HOSTILE = ["\x1b[31m", "\x9b31m", "\x07", "\r", "\x00", "\x7f", "\u202e", "\u200b", "\udcff"]
WIDTHS = [40, 60, 80, 120]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("keep", [False, True])
def test_what_a_terminal_would_obey_is_spelt_out(text: str, keep: bool) -> None:
    shown = visible(text, lines=keep)
    assert shown.isprintable()
    assert shown.startswith("\\")


@given(st.text())
def test_any_text_becomes_printable_and_encodable(text: str) -> None:
    shown = visible(text)
    assert not any(ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0 for letter in shown)
    shown.encode()


@pytest.mark.parametrize(
    "text", ["02:ab:1c:83:ae:c0", "[bold red]x[/]", ":warning:", "[/]", "web[1]"]
)
def test_nothing_is_markup(text: str) -> None:
    assert lines([Column("A")], [[text]], None)[1] == text
    assert painted(text) == text


def test_an_escape_in_a_styled_text_is_not_ours() -> None:
    assert "\\x1b[2J" in painted(Styled("\x1b[2J", "green"))
    assert "\x1b[2J" not in painted(Styled("\x1b[2J", "green"))


COLUMNS = [
    Column("NODE", rank=1),
    Column("GUEST"),
    Column("ADDRESS"),
    Column("MAC", rank=3),
    Column("STATE", rank=2),
]
ROWS = [
    ["node1", f"a-guest-with-a-long-name-{n:03}", "169.254.200.200", "02:ab:1c:83:ae:c0", "bound"]
    for n in range(3)
]


def test_in_a_pipe_nothing_is_cut() -> None:
    whole = lines(COLUMNS, [["x" * 500] * 5], None)
    assert whole[1].count("x") == 2500


@pytest.mark.parametrize("width", WIDTHS)
def test_on_a_terminal_less_important_columns_go_first(width: int) -> None:
    made = [click.unstyle(line) for line in lines(COLUMNS, ROWS, width)]
    for row, line in zip(ROWS, made[1:], strict=False):
        assert row[1] in line
        assert row[2] in line
    if width >= 60:
        assert all(cell_len(line) <= width for line in made)
    if width == 60:
        assert "02:ab" not in made[1]
        assert "no room for MAC" in made[-1]


@pytest.mark.parametrize("width", [*WIDTHS, None])
def test_what_is_too_long_for_a_line_is_folded_and_ids_are_shortened(width: int | None) -> None:
    ids = ["0123456789ab-1", "0123456789ab-2", "f" * 36]
    guests = [f"web{n}" for n in range(30)]
    columns = [Column("ID", ids=ids), Column("TYPE", rank=1), Column("GUESTS", folds=True)]
    rows = [[one, "Reboot", ", ".join(guests)] for one in ids]
    made = [click.unstyle(line) for line in lines(columns, rows, width)]
    text = " ".join(" ".join(made).split())
    for one in guests[:-1]:
        assert text.count(f" {one},") == 3
    assert width is None or all(cell_len(line) <= width for line in made)
    if width in (40, 60):
        assert " ffffffff " in text
        assert "0123456789ab-1 " in text  # the shortest beginning that no other has
    else:
        assert all(one in text for one in ids)


def test_the_beginning_of_an_id_is_unique() -> None:
    ids = ["abcdefgh1", "abcdefgh2", "abcdefg"]
    for one in ids:
        short = beginning(one, ids)
        assert [other for other in ids if other.startswith(short)][:1] == [one] or short == one


@pytest.mark.parametrize("package", [netemu, hostagent])
def test_everything_is_printed_by_one_way(package: object) -> None:
    """No verb writes to the terminal past the one function that makes text visible."""
    source = Path(package.__file__).parent  # type: ignore[attr-defined]
    files = [*source.glob("cli/*.py"), *source.glob("bench/report.py")]
    assert files
    for file in [*files, *source.glob("conformance/report.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("echo", "secho", "echo_via_pager"), f"{file}:{node.lineno}"
            if isinstance(node, ast.Name):
                assert node.id != "print", f"{file}:{node.lineno}"


RUN = """
import click, sys
from hostagent.terminal import command, output
@click.command()
@click.argument("text")
def cli(text):
    output.say(text)
command.run(cli, "prog")
"""


def program(*arguments: bytes | str, **streams: object) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([sys.executable, "-c", RUN, *arguments], stderr=-1, **streams)  # type: ignore[call-overload, no-any-return]


@pytest.mark.processes
def test_a_full_disk_is_one_line_and_exit_code_1() -> None:
    with open("/dev/full", "w") as full:
        done = program("x", stdout=full)
    assert done.returncode == 1
    assert done.stderr == b"prog: the output cannot be written: No space left on device\n"


@pytest.mark.processes
def test_closed_descriptors_and_pipes_are_no_error_of_the_program() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", sys.executable, "-c", RUN, "x"], capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")
    reader, writer = os.pipe()
    os.close(reader)
    done = program("x", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.processes
@pytest.mark.parametrize("wrong", [b"\xff", b"--no\x1b[31m"])
def test_bad_arguments_are_shown_and_never_sent(wrong: bytes) -> None:
    done = program(wrong, stdout=-1)
    assert done.returncode == 2
    assert b"\x1b" not in done.stderr
    assert b"\xff" not in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.processes
def test_on_a_terminal_data_is_shown_and_colours_are_ours() -> None:
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    done = program("\x1b[31mred", stdout=terminal)
    os.close(terminal)
    assert done.returncode == 0
    assert os.read(screen, 1000) == b"\\x1b[31mred\r\n"
    os.close(screen)


@pytest.mark.processes
def test_a_terminal_without_the_letter_is_no_traceback() -> None:
    done = program("✓", stdout=-1, env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    assert (done.returncode, done.stdout) == (0, b"\\u2713\n")
