"""What holds for every verb there is, and so for the next one too."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import hostagent as agents
import netemu
from hostagent.cli import cli as hostagent
from hostagent.terminal.duration import Duration
from netemu.cli import _ELSEWHERE, _GROUPS, _VERBS, cli
from netemu.cli.options import Number
from tests.netemu.cli.every_verb import CommandLine, commands, found, least

ALL = list(commands(cli))
AGENTS = [path for path in commands(hostagent) if path[0] == "controller"]
# These build a lab of their own, or work for long: they are called with what they refuse.
LONG = {"demo", "up", "conformance", "bench", "scenario", "simulate", "check", "chaos"}
NUMBERS = ["nan", "inf", "-inf", "1e999", "-1", "x", ""]

every_verb = pytest.mark.parametrize("path", ALL, ids=" ".join)
pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def run() -> Iterator[CommandLine]:
    with tempfile.TemporaryDirectory() as name:
        called = CommandLine(Path(name))
        yield called
        called.close()


def short(path: tuple[str, ...], text: str = "x") -> "tuple[str | bytes, ...]":
    """A call of the verb that ends soon, without any lab."""
    if path[0] in LONG:
        return (*path, "--no-such-option", text)
    return (*path, *least(found(cli, path), text))


@every_verb
def test_it_ends_in_a_line_and_a_known_code_where_no_lab_runs(
    path: tuple[str, ...], run: CommandLine
) -> None:
    done = run(*short(path))
    assert done.code in (0, 1, 2)
    if done.code:
        assert done.err
        assert done.out == b""


@every_verb
def test_it_says_that_a_full_disk_has_lost_what_it_says(
    path: tuple[str, ...], run: CommandLine
) -> None:
    lost = b"netemu: the output cannot be written: No space left on device\n"
    done = run(*path, "--help", out="full")
    assert (done.code, done.err) == (1, lost)
    assert run(*short(path), out="full").code != 0
    run(*short(path), err="full")


@every_verb
def test_it_runs_with_closed_streams_and_where_nobody_reads(
    path: tuple[str, ...], run: CommandLine
) -> None:
    assert run(*short(path), out="closed").code == run(*short(path)).code
    done = run(*path, "--help", out="unread")
    assert done.code in (1, 141)
    assert done.err == b""


@every_verb
def test_bytes_and_escapes_are_shown_and_never_sent(
    path: tuple[str, ...], run: CommandLine
) -> None:
    done = run(*path, b"\xff")
    assert done.code == 2
    assert b"\xff" not in done.err
    done = run(*short(path, "\x1b[31m\x07[bold]:warning:"))
    assert b"\x07" not in done.err
    if b"bold" in done.err:
        assert b"[bold]:warning:" in done.err


@every_verb
def test_a_working_directory_that_is_gone_is_no_traceback(
    path: tuple[str, ...], run: CommandLine
) -> None:
    assert run(*short(path), gone=True).code == run(*short(path)).code


def parameters() -> list[tuple[tuple[str, ...], click.Parameter]]:
    roots = ((cli, ALL), (hostagent, list(commands(hostagent))))
    return [
        (path, one) for root, paths in roots for path in paths for one in found(root, path).params
    ]


@pytest.mark.parametrize(
    "type_", {id(one.type): one.type for _, one in parameters()}.values(), ids=lambda one: one.name
)
def test_a_number_is_never_infinite_or_none(type_: "click.ParamType[object]") -> None:
    assert not isinstance(type_, type(click.FLOAT)), "let it be a Number, which has bounds"
    if isinstance(type_, click.FloatRange):
        pytest.fail("FloatRange lets nan through: let it be a Number")
    if isinstance(type_, Number | Duration | click.IntRange) or type_ is click.INT:
        for text in NUMBERS:
            if text == "-1" and type_ is click.INT:
                continue
            with pytest.raises(click.BadParameter):
                type_.convert(text, None, None)


def test_one_option_has_one_meaning() -> None:
    for path, one in parameters():
        if "--json" in one.opts:
            assert isinstance(one, click.Option), path
            assert one.is_flag, f"{path}: --json prints on standard output"
        if "-o" in one.opts:
            assert "--output" in one.opts, path
            assert ".svg" in str(getattr(one.type, "_endings", ".svg")), path
        for word in ("--plot", "--svg", "--html", "--junit", "--notice-only"):
            assert word not in one.opts, f"{path}: files are written by -o"
        if one.type.name == "duration":
            assert isinstance(one.type, Duration), path


@every_verb
def test_every_option_says_what_it_is_for(path: tuple[str, ...]) -> None:
    command = found(cli, path)
    assert command.help, path
    for one in command.params:
        if isinstance(one, click.Option):
            assert one.help, f"{path}: {one.opts}"


def test_every_verb_stands_in_a_group_and_words_of_others_lead_to_ours() -> None:
    assert [verb for verbs in _GROUPS.values() for verb in verbs] == list(_VERBS)
    assert set(_ELSEWHERE.values()) <= set(_VERBS)
    assert set(_ELSEWHERE).isdisjoint(_VERBS)


@pytest.mark.parametrize(
    ("word", "ours"),
    [
        ("deploy", "up"),
        ("destroy", "down"),
        ("inspect", "status"),
        ("ls", "list"),
        ("statsu", "status"),
        ("mantenance", "maintenance"),
        ("Destroy", "down"),
        ("qqqqqq", ""),
    ],
)
def test_what_other_tools_call_it_is_understood(word: str, ours: str, run: CommandLine) -> None:
    done = run(word)
    assert done.code == 2
    assert (f"did you mean 'netemu {ours}'?" if ours else "netemu --help").encode() in done.err


def test_only_verbs_that_exist_are_named() -> None:
    """No message or help tells to run what cannot be run."""
    known = {path[:length] for path in ALL for length in range(1, len(path) + 1)}
    for package in (netemu, agents):
        for file in Path(package.__file__ or "").parent.rglob("*.py"):
            for words in re.findall(r"'netemu ([a-z]+)\b(?: ([a-z-]+)\b)?", file.read_text()):
                assert (words[0],) in known, f"{file}: netemu {words[0]}"


@pytest.mark.parametrize("path", AGENTS, ids=" ".join)
def test_the_controllers_verbs_end_in_a_line(path: tuple[str, ...], run: CommandLine) -> None:
    words = ["--agent", "/no/such.sock", *path[1:], *least(found(hostagent, path))]
    if path[-1] == "schedule":
        words += ["--type", "reboot"]
    done = run("controller", *words, program="hostagent", out="full")
    assert done.code in (1, 2, 3)
    assert len(done.err.splitlines()) == 1, done.err


def test_what_is_possible_with_an_event_is_what_can_be_asked_for() -> None:
    """`expire` is no verb: the agent does it by itself."""
    from hostagent.model import EventStatus, IllegalTransition, Request

    verbs = {path[-1] for path in ALL if path[0] == "maintenance"}
    for status in EventStatus:
        told = str(IllegalTransition("x", status, Request.START))
        possible = told.partition("possible now: ")[2]
        assert set(filter(None, possible.split(", "))) <= verbs
        assert possible or "it has ended" in told
