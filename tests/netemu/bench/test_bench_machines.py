"""`netemu bench machines`, with no machine."""

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from netemu.bench import machines
from netemu.errors import BadInput
from netemu.topology import Lab


def test_an_image_that_is_not_there_is_told_with_what_builds_it(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"/kernel: no such file: 'netns-scripts/vm-image small'"):
        machines.run(tmp_path, (1,), rounds=1, say=str)


def test_each_of_many_machines_is_waited_for_and_its_memory_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("kernel", "initrd"):
        (tmp_path / name).touch()
    up: list[int] = []
    asked: list[str] = []

    def bring_up(lab: Lab, **_: Any) -> None:
        assert all(guest.machine is not None for guest in lab.guests)
        up.append(len(lab.guests))

    def answers(_lab: str, guest: str, *_: Any) -> "subprocess.CompletedProcess[str]":
        asked.append(guest)
        return subprocess.CompletedProcess([], 1 if asked.count(guest) == 1 else 0)

    down: list[str] = []
    monkeypatch.setattr(machines, "labs", SimpleNamespace(bring_up=bring_up, take_down=down.append))
    monkeypatch.setattr(machines, "machines", SimpleNamespace(run=answers))
    monkeypatch.setattr(machines, "_memory", lambda _: [(100.0, 120.0)])
    monkeypatch.setattr(machines, "_available", lambda: 1050.0)
    report = machines.run(tmp_path, (1, 3), rounds=2, say=str)
    assert up == [1, 3, 1, 3]
    assert len(down) == 4
    assert list(report.samples) == ["one machine", "3 at once"]
    assert report.samples["3 at once"][1]["PSS MiB"] == 100
    assert report.notes[0].startswith("10 such machines fit")
