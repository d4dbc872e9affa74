"""`netemu scenario masked-reboot` without a lab: options, verdict, files, and errors."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from netemu.cli import main
from netemu.errors import NotSo
from netemu.scenario import play
from netemu.scenario.requests import Reboot, Request, Run
from netemu.wire.progress import Step
from tests.conftest import SOURCE

REBOOT = Reboot("web1", 10.0, 11.0, 20.0)


def _request(time: float, server: str | None) -> Request:
    return Request(time, 0.25, "a", server, server is not None, None if server else "timeout")


MASKED = Run(True, (_request(9, "web1"), _request(12, "web2")), (REBOOT,))
SEEN = Run(False, (_request(9, "web1"), _request(12, None)), (REBOOT,))
Played = Callable[..., list[play.Pace]]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    """Has these runs come out, with agents and without. Returns the paces asked for."""

    def come_out(on: Run = MASKED, off: Run = SEEN) -> list[play.Pace]:
        paces: list[play.Pace] = []

        def fake(*, drained: bool, pace: play.Pace, on_step: Callable[[Step], None]) -> Run:
            paces.append(pace)
            on_step(Step("a run", 3, 3))
            return on if drained else off

        monkeypatch.setattr(play, "play", fake)
        monkeypatch.setattr(play, "require", lambda: None)
        return paces

    return come_out


def netemu(*arguments: str) -> object:
    with pytest.raises(SystemExit) as ended:
        main(["scenario", "masked-reboot", *arguments])
    return ended.value.code


def test_well_is_zero_and_a_table_of_both(
    played: Played, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paces = played()
    file = tmp_path / "runs.json"
    assert netemu("-o", str(file), "--duration", "3", "--rate", "100") == 0
    assert paces == [play.Pace(duration=3.0, rate=100.0)] * 2
    on, off = json.loads(file.read_text())
    assert (on["agents"], on["failed"], on["problems"]) == (True, 0, [])
    assert (off["agents"], off["failed"], off["problems"]) == (False, 1, [])
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines()]
    assert ["on", "1", "2", "0", "250", "ms", "1", "of", "1", "0"] in rows
    assert ["off", "1", "2", "1", "250", "ms", "0", "of", "1", "0"] in rows
    assert "…" not in said


def test_one_of_them_alone(played: Played) -> None:
    paces = played()
    assert netemu("--only", "with") == 0
    assert len(paces) == 1


@pytest.mark.parametrize(
    ("on", "off", "said"),
    [
        (Run(True, (*MASKED.requests, _request(13, None)), (REBOOT,)), SEEN, "1 requests failed"),
        (MASKED, Run(False, MASKED.requests, (REBOOT,)), "without agents: no request failed"),
    ],
)
def test_what_is_not_as_it_has_to_be_is_said_and_is_one(
    played: Played, on: Run, off: Run, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    played(on, off)
    assert netemu() == 1
    assert said in capsys.readouterr().out


def test_what_does_not_come_is_one_line(
    monkeypatch: pytest.MonkeyPatch, played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(**_: object) -> Run:
        raise NotSo("web1's reboot: its drain agent does not approve (not seen within 60 s)")

    played()
    monkeypatch.setattr(play, "play", never)
    assert netemu() == 1
    assert "does not approve" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x.json", "x.svg", "x.png"])
def test_a_file_that_cannot_be_written_is_said_before_anything_is_played(
    played: Played, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    paces = played()
    assert netemu("-o", f"/no/such/directory/{name}") == 2
    said = capsys.readouterr().err
    assert ("its ending says" if name == "x.png" else "No such file or directory") in said
    assert paces == []


@pytest.mark.parametrize(
    "wrong", ["--only some", "--rate 1", "--calm 0", "--duration 90", "--time-scale 0"]
)
def test_options_that_cannot_be_are_refused(played: Played, wrong: str) -> None:
    paces = played()
    assert netemu(*wrong.split()) == 2
    assert paces == []


def test_a_missing_program_is_named_with_what_to_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name, **_: None if name == "ip" else name)
    assert netemu() == 3
    assert capsys.readouterr().err == "netemu: missing: ip; run: sudo apt-get install iproute2\n"


def test_a_load_that_ends_by_itself_is_noticed() -> None:
    with subprocess.Popen([sys.executable, "-c", "exit(3)"], text=True) as load:
        load.wait(60)
        with open(os.devnull) as nothing:
            assert play._begun(load, nothing.fileno())
        for wanted in (None, 0):
            with pytest.raises(NotSo, match="the load ended with 3"):
                play._expect(load, wanted)


def test_the_environment_is_as_it_was() -> None:
    os.environ.pop("NETEMU_TRIED", None)
    with play._environment("NETEMU_TRIED", "off"), play._environment("NETEMU_TRIED", "on"):
        assert os.environ["NETEMU_TRIED"] == "on"
    assert "NETEMU_TRIED" not in os.environ


def test_help_imports_nothing_to_play_or_to_draw_with() -> None:
    script = "import sys, netemu.cli.scenario; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint({"matplotlib", "rich", "asyncio", "netemu.client", "netemu.scenario"})


def test_an_installed_copy_has_all_files_that_are_played() -> None:
    """What is no module has to be named as data, or a wheel leaves it out."""
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())
    taken = {*project["tool"]["setuptools"]["package-data"]["netemu"], "**/*.py"}
    files = [file for file in play.FILES.iterdir() if file.is_file()]
    assert {"lab.yaml", "haproxy.cfg", "web.sh", "web.py", "load.py", "drain-agent.py"} == {
        file.name for file in files
    }
    assert [file.name for file in files if f"**/*{file.suffix}" not in taken] == []
