"""The pictures of what a bench found: every number of the tables has its place in them."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from netemu.bench.report import Report

pytest.importorskip("matplotlib")

from netemu.bench import plot


def texts(file: Path) -> list[str]:
    return [text.strip() for text in ET.parse(file).getroot().itertext() if text.strip()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "plot.svg"


def test_bars_have_a_panel_for_each_metric_and_those_only_who_have_it(file: Path) -> None:
    samples = {"ours": [{"ms": 1.0, "MB": 2.0}, {"ms": 3.0, "MB": 2.0}], "theirs": [{"ms": 2.0}]}
    plot.bars(Report("test", samples), file)
    assert {"ms", "MB"} <= set(texts(file))
    assert (texts(file).count("ours"), texts(file).count("theirs")) == (2, 1)


def test_lines_go_over_what_was_varied_with_its_values_at_the_axis(file: Path) -> None:
    points = {10: [{"ms": 1.0}], 1_000: [{"ms": 1.0}, {"ms": 2.0}]}
    plot.lines({"ours": points, "theirs": points}, ["ms"], "guests", file)
    assert {"ms", "guests", "ours", "theirs", "10", "1,000"} <= set(texts(file))
    assert "100" not in texts(file)


def test_shares_are_held_against_what_is_wanted(file: Path) -> None:
    samples = {"one": [{"ms": 1.0}, {"ms": 3.0}], "all": [{"ms": 9.0}], "others": [{"MB": 1.0}]}
    plot.shares(Report("test", samples), "ms", (2.0, 50.0), file)
    assert {"one", "all", "wanted: 99 % by 2", "wanted: 99 % by 50", "% within"} <= set(texts(file))
    assert "others" not in texts(file)


def test_the_same_numbers_are_the_same_picture(file: Path, tmp_path: Path) -> None:
    report = Report("test", {"ours": [{"ms": 1.0}]})
    plot.bars(report, file)
    plot.bars(report, tmp_path / "again.svg")
    assert file.read_bytes() == (tmp_path / "again.svg").read_bytes()
