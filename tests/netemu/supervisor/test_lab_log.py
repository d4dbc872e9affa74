"""The lab's log stays within its bound, and nobody who writes to it notices."""

import os
from pathlib import Path

import pytest

from netemu.supervisor.boot.lab_log import shorten


def test_a_short_log_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "lab.log"
    path.write_text("one\ntwo\n")
    shorten(path, 8)
    assert path.read_text() == "one\ntwo\n"


@pytest.mark.parametrize("size", [1001, 1500, 9999])
def test_of_a_long_log_the_newest_lines_stay(tmp_path: Path, size: int) -> None:
    path = tmp_path / "lab.log"
    lines = [f"line {number}\n" for number in range(2000)]
    text = "".join(lines)[-size:]
    path.write_text(text)
    shorten(path, 1000)
    kept = path.read_text()
    assert text.endswith(kept)
    assert kept.startswith("line ")
    assert 480 <= len(kept) <= 500


def test_who_appends_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "lab.log"
    with path.open("ab", buffering=0) as writer:
        for number in range(300):
            writer.write(b"line %d\n" % number)
            shorten(path, 200)
    text = path.read_text().splitlines()
    assert path.stat().st_size <= 210
    assert text == [f"line {number}" for number in range(300 - len(text), 300)]


def test_a_single_endless_line_is_bounded_too(tmp_path: Path) -> None:
    path = tmp_path / "lab.log"
    path.write_bytes(b"x" * 5000)
    shorten(path, 1000)
    assert path.stat().st_size == 500
    assert not [one for one in os.listdir("/proc/self/fd") if "lab.log" in one]
