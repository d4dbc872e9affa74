"""The commands, small and short: that they measure and tell, not what."""

import json
import subprocess
import sys

import pytest

QUICK = ("--quick", "--rounds", "1")


def test_simulate_prints_measured_beside_the_formula_and_writes_json(person, tmp_path):
    file = tmp_path / "found.json"
    arguments = ("--hosts", "1300", "--newcomers", "500", "--seed", "1", "-o", str(file))
    if person.kind != "root":
        pytest.skip("needs no privilege: as root is as good")
    said = person.netemu("simulate", "claims", *arguments).stdout
    assert "98.001 %" in said
    assert "99.96 %" in said
    assert json.loads(file.read_text())["holds"] is True


def test_simulate_refuses_what_cannot_be(person):
    done = person.netemu("simulate", "claims", "--hosts", "65001", check=2)
    assert "65000" in done.stderr


def test_help_imports_nothing_to_plot_or_to_measure_with():
    script = "import sys, netemu.cli.bench, netemu.cli.simulate; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint({"matplotlib", "pyroute2", "rich", "asyncio", "netemu.bench"})


@pytest.mark.lab
def test_build_is_held_against_the_kernel_alone(person):
    said = person.netemu("bench", "build", "--guests", "8", *QUICK, timeout=120).stdout
    assert "the kernel alone" in said
    assert "up, over the kernel alone" in said
    assert ("Mininet, up and down" in said) != ("not measured: Mininet" in said)
    assert person.netemu("list").stdout.count("bench-") == 0


@pytest.mark.lab
def test_growth_is_told_by_size(person):
    arguments = ("bench", "build", "--growth", "--guests", "60", *QUICK)
    said = person.netemu(*arguments, timeout=120).stdout
    assert "a guest of 60 over a guest of 30" in said


@pytest.mark.lab
def test_claims_under_both_policies(person):
    arguments = ("bench", "claim", "--guests", "20", "--time-scale", "0.05", *QUICK)
    said = person.netemu(*arguments, timeout=120).stdout
    assert "responder-only, 20 a bridge" in said
    assert "same-node, 10 a bridge" in said


@pytest.mark.lab
def test_a_whole_lab_is_answered(person):
    arguments = ("bench", "claim", "--whole", "--guests", "6", "--nodes", "2")
    said = person.netemu(*arguments, "--time-scale", "0.05", timeout=120).stdout
    assert "answered after, s" in said


@pytest.mark.lab
def test_events_reach_those_who_wait(person):
    said = person.netemu("bench", "events", "--guests", "5", *QUICK, timeout=120).stdout
    assert "acknowledged to the last of 5" in said
    lost = next(line for line in said.splitlines() if "lost by kill -9" in line)
    assert lost.endswith(" reached")
    assert "NOT" not in lost
