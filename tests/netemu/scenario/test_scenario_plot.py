"""The picture of two runs."""

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from netemu import plotting
from netemu.errors import MachineCannot
from netemu.scenario import plot
from netemu.scenario.requests import Reboot, Request, Run


def _run(*, drained: bool) -> Run:
    failing = () if drained else (13, 14)
    requests = (Request(t, 0.1, "a", "web1", t not in failing, None) for t in range(10, 20))
    return Run(drained, tuple(requests), (Reboot("web1", 11.0, 12.0, 15.0),))


def _texts(file: Path) -> list[str]:
    return [text.strip() for text in ET.parse(file).getroot().itertext() if text.strip()]


def test_both_runs_are_side_by_side_and_the_same_numbers_are_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    runs = [_run(drained=True), _run(drained=False)]
    plot.draw(runs, tmp_path / "one.svg")
    plot.draw(runs, tmp_path / "two.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    texts = _texts(tmp_path / "one.svg")
    assert "with drain agents: 0 of 10 failed" in texts
    assert "without drain agents: 2 of 10 failed" in texts
    assert texts.count("web1 away") == 2
    assert {"requests", "failed", "seconds", "requests a second"} <= set(texts)
    plot.draw(runs[:1], tmp_path / "three.svg")
    assert "without drain agents" not in " ".join(_texts(tmp_path / "three.svg"))


def test_without_matplotlib_it_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MachineCannot, match="bench-peers"):
        plotting.pyplot()
