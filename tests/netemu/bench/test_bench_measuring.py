"""Rounds, reports and what is made of what wrk says."""

import json
import math
import subprocess
import sys

import pytest

from netemu.bench import load, processes
from netemu.bench.build import lab_of
from netemu.bench.report import Goal, Report
from netemu.bench.rounds import Spread, gathered, in_turn, ratio
from netemu.errors import NotSo


def test_everybody_is_measured_in_turn_and_the_warm_up_does_not_count():
    order = []

    def contestant(name):
        def run():
            order.append(name)
            return {"at": float(len(order))}

        return run

    samples = in_turn({name: contestant(name) for name in "ab"}, rounds=2)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert samples == {"a": [{"at": 3.0}, {"at": 5.0}], "b": [{"at": 4.0}, {"at": 6.0}]}
    samples = in_turn({"a": contestant("a")}, rounds=1, warm_up=3)
    assert samples == {"a": [{"at": 10.0}]}


def test_without_a_warm_up_the_first_round_counts():
    assert in_turn({"a": lambda: {"x": 1.0}}, rounds=1, warm_up=0) == {"a": [{"x": 1.0}]}


def test_turns_make_rounds_by_their_medians():
    turns = [{"ms": value, "s": 1.0} for value in (1.0, 9.0, 2.0, 4.0, 5.0, 300.0)]
    assert gathered(turns, 3) == [{"ms": 2.0, "s": 1.0}, {"ms": 5.0, "s": 1.0}]
    assert gathered(turns[:1], 1) == turns[:1]


def test_a_ratio_is_of_what_was_measured_side_by_side():
    over = [{"x": 10.0}, {"x": 30.0}, {"x": 4.0}]
    under = [{"x": 5.0}, {"x": 10.0}, {"x": 4.0}]
    assert ratio(over, under, "x") == Spread(2.0, 1.0, 3.0)
    assert ratio(over, [{"x": 5.0}, {"x": 0.0}, {"x": 4.0}], "x") == Spread(2.0, 1.0, math.inf)


@pytest.mark.parametrize(
    ("bound", "limit", "reached"),
    [
        ("at most", 2.0, True),
        ("at most", 1.9, False),
        ("at least", 2.0, True),
        ("at least", 3, False),
    ],
)
def test_a_goal_is_reached_by_its_median(bound, limit, reached):
    assert Goal("g", Spread(2.0, 0.0, 9.0), bound, limit).reached is reached


def test_a_report_says_what_where_and_when(tmp_path, capsys):
    report = Report("build", {"ours": [{"ms": 1.0}, {"ms": 3.0}], "theirs": [{"s": 2.0}] * 2})
    report.goals.append(Goal("ours over theirs", Spread(2.0, 1.0, 3.0), "at most", 1.5))
    report.not_measured.append("Mininet: mn is not installed")
    report.print()
    said = capsys.readouterr().out
    assert "2 (1…3)" in said
    assert "NOT reached" in said
    assert "not measured: Mininet" in said
    report.write(tmp_path / "report.json")
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["results"]["ours"] == {"ms": {"median": 2.0, "min": 1.0, "max": 3.0}}
    assert told["results"]["theirs"] == {"s": {"median": 2.0, "min": 2.0, "max": 2.0}}
    assert told["goals"][0]["reached"] is False
    assert told["not_measured"] == ["Mininet: mn is not installed"]
    assert told["command"].startswith("netemu")
    assert {"cpu", "cores", "kernel", "python", "memory_mib"} <= told["machine"].keys()


def test_a_lab_deals_its_guests_out_evenly():
    lab = lab_of(3, 10, "bench-x")
    assert [len(node.guests) for node in lab.nodes] == [4, 3, 3]


def test_cpu_of_this_process_grows_with_work():
    import os

    before = processes.cpu_of([os.getpid()])
    sum(n * n for n in range(300_000))
    assert processes.cpu_of([os.getpid()]) > before
    assert os.getpid() in processes.descendants(os.getppid())


def test_those_who_serve_have_cores_of_their_own_where_there_are_enough(monkeypatch):
    import os

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 0, 3})
    assert processes.apart(1) == ({0, 3}, {5})
    assert processes.apart(2) == ({0}, {3, 5})
    assert processes.apart(3) == ({0, 3, 5}, {0, 3, 5})


def test_a_process_keeps_to_its_cores_with_all_its_threads():
    import os

    core = {max(os.sched_getaffinity(0))}
    script = "import threading, time; threading.Thread(target=time.sleep, args=(9,)).start()"
    child = subprocess.Popen(
        [sys.executable, "-c", f"{script}; print(flush=True); time.sleep(9)"],
        stdout=subprocess.PIPE,
    )
    try:
        child.stdout.readline()
        processes.keep_to(core, [child.pid])
        tasks = [int(task) for task in os.listdir(f"/proc/{child.pid}/task")]
        assert len(tasks) == 2
        assert all(os.sched_getaffinity(task) == core for task in tasks)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


# What wrk says.

WRK = """Running 1s test @ http://169.254.169.254/
  1 threads and 24 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   240.01us  100.00us   4.00ms   90.00%
    Req/Sec   100.00k     1.00k  101.00k    80.00%
  {} requests in {}, 18.00MB read
{}Requests/sec: 100000.00
"""


@pytest.mark.parametrize(("took", "seconds"), [("1.10s", 1.1), ("900.00ms", 0.9), ("1.50m", 90.0)])
def test_wrk_is_understood(took, seconds):
    got = load.wrk_said(WRK.format(110_000, took, ""))
    assert (got.requests, got.seconds) == (110_000, pytest.approx(seconds))


@pytest.mark.parametrize(
    "wrong", ["  Non-2xx or 3xx responses: 7\n", "  Socket errors: connect 0, read 9, timeout 0\n"]
)
def test_what_wrk_did_not_get_answered_is_no_measurement(wrong):
    with pytest.raises(NotSo, match=r"responses: 7|read 9"):
        load.wrk_said(WRK.format(110_000, "1.10s", wrong))
    with pytest.raises(NotSo, match="unable to connect"):
        load.wrk_said("unable to connect to 169.254.169.254:80")


def test_percentiles():
    values = [float(n) for n in range(100, 0, -1)]
    assert load.percentile(values, 0.5) == 51.0
    assert load.percentile(values, 0.99) == 100.0
    assert load.percentile([3.0], 0.99) == 3.0


def test_a_request_says_what_it_is_to_say():
    assert load.request("/x", close=True, headers=("Metadata: true",)) == (
        b"GET /x HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\nConnection: close\r\n\r\n"
    )
