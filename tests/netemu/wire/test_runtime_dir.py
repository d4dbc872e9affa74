"""Where labs are found: locks decide which live."""

import os
from pathlib import Path

import pytest

from netemu.errors import MachineCannot
from netemu.wire import runtime_dir


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETEMU_RUNTIME_DIR", str(tmp_path / "labs"))


def test_a_name_is_claimed_once() -> None:
    claimed = runtime_dir.claim("one")
    assert claimed is not None
    directory, lock = claimed
    assert runtime_dir.claim("one") is None
    assert runtime_dir.running() == ["one"]
    os.close(lock)
    assert runtime_dir.running() == []
    assert not directory.exists()


def test_what_a_dead_lab_left_is_taken_away_by_the_next() -> None:
    claimed = runtime_dir.claim("one")
    assert claimed is not None
    directory, lock = claimed
    (directory / "control.sock").touch()
    os.close(lock)
    again = runtime_dir.claim("one")
    assert again is not None
    assert [path.name for path in again[0].iterdir()] == ["lock"]
    os.close(again[1])


def test_a_running_lab_is_not_cleared() -> None:
    claimed = runtime_dir.claim("one")
    assert claimed is not None
    assert not runtime_dir.clear("one")
    assert claimed[0].exists()
    os.close(claimed[1])
    assert runtime_dir.clear("one")
    assert runtime_dir.clear("never-there")
    assert not claimed[0].exists()


def test_a_path_too_long_for_sockets_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETEMU_RUNTIME_DIR", str(tmp_path / ("x" * 100)))
    with pytest.raises(MachineCannot, match="NETEMU_RUNTIME_DIR"):
        runtime_dir.claim("one")


def test_somebody_elses_directory_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETEMU_RUNTIME_DIR", "/proc/1")
    if os.geteuid() == 0:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(MachineCannot):
        runtime_dir.root()
