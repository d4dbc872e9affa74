"""Measures labs going up and down, beside the kernel's own part and Mininet.

"Up" ends when every guest is wired, guarded and ready to claim; for the claims themselves see
`netemu.bench.claim`. "Down" ends when the kernel has freed everything.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

from netemu.bench import processes
from netemu.bench.report import Goal, Report
from netemu.bench.rounds import Sample, Spread, in_turn, ratio
from netemu.client import labs
from netemu.errors import NotSo
from netemu.topology import Lab, parse
from netemu.wire.progress import Step
from netemu.wire.source import python_path

WIRED: Final = "wired, ms/guest"
UP: Final = "up, ms/guest"
UP_CPU: Final = "up, CPU ms/guest"
DOWN: Final = "down, ms/guest"
BOTH: Final = "up and down, ms/guest"
BOTH_CPU: Final = "up and down, CPU ms/guest"

GROWTH: Final = (100, 300, 1_000, 3_000, 10_000)
"""Guests of the labs that show the cost of one more guest."""

PER_NODE: Final = 500
"""Guests of one node, where only the total is given."""

MININET_GUESTS: Final = 100
"""It takes some 60 ms for each guest."""

_MININET: Final = ("mn", "--switch", "lxbr", "--controller", "none", "--test", "none", "--topo")


def lab_of(nodes: int, guests: int, name: str) -> Lab:
    """Return a lab with its guests spread evenly over its nodes."""
    each, more = divmod(guests, nodes)
    text = {
        "name": name,
        "nodes": {f"n{n}": {"guests": each + (n < more)} for n in range(nodes)},
    }
    return parse(json.dumps(text), source=name)  # JSON is YAML too


class _Enough(Exception):
    """The lab has come as far as is measured."""


def build(lab: Lab) -> Sample:
    """Measure a lab: up until its guests are ready to claim, and down."""
    guests = len(lab.guests)
    at: dict[str, float] = {}
    start = time.monotonic()

    def on_step(step: Step) -> None:
        if step.phase == "wiring guests":
            at["wired"] = time.monotonic()
        else:
            at["up"] = time.monotonic()
            at["cpu"] = processes.cpu_of_tree(labs.supervisor(lab.name))
            raise _Enough

    try:
        labs.bring_up(lab, on_step=on_step, owned=True)
    except _Enough:
        processes.await_reclaim()
    end = time.monotonic()
    return {
        WIRED: 1000 * (at["wired"] - start) / guests,
        UP: 1000 * (at["up"] - start) / guests,
        UP_CPU: 1000 * at["cpu"] / guests,
        DOWN: 1000 * (end - at["up"]) / guests,
        BOTH: 1000 * (end - start) / guests,
    }


def floor(nodes: int, guests: int) -> Sample:
    """Measure the kernel alone for the same shape."""
    start = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "netemu.bench.kernel_baseline", str(nodes), str(guests)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": python_path()},
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        line = child.stdout.readline()
        up = time.monotonic()
        child.stdin.close()
        if child.wait() != 0 or not line:
            raise NotSo("the bare loop could not build the shape; see above")
    processes.await_reclaim()
    end = time.monotonic()
    took = json.loads(line)
    return {
        WIRED: 1000 * took["wall"] / guests,
        UP: 1000 * took["wall"] / guests,
        UP_CPU: 1000 * took["cpu"] / guests,
        DOWN: 1000 * (end - up) / guests,
        BOTH: 1000 * (end - start) / guests,
    }


def mininet(guests: int) -> Sample:
    """Measure Mininet with a Linux bridge, up and down, in namespaces of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    apart = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    done = subprocess.run(
        [*apart, *_MININET, f"single,{guests}"], capture_output=True, text=True, check=False
    )
    processes.await_reclaim()
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise NotSo(f"mn failed: {done.stderr.strip()[-300:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {BOTH: 1000 * wall / guests, BOTH_CPU: 1000 * cpu / guests}


def why_no_mininet() -> str | None:
    """Return why Mininet cannot be measured, or None."""
    if os.geteuid() != 0:
        return "Mininet: it runs as root only"
    for program in ("mn", "brctl"):
        if shutil.which(program) is None:
            return f"Mininet: {program} is not installed; run netns-scripts/bench-peers"
    return None


def run(
    *,
    guests: int,
    nodes: int,
    peer_guests: int,
    rounds: int,
    on_turn: Callable[[str], None],
) -> Report:
    """Build the same shape with each contestant in turn."""
    lab = lab_of(nodes, guests, f"bench-build-{os.getpid()}")
    ours, bare = f"netemu, {nodes} × {guests // nodes}", "the kernel alone"
    contestants: dict[str, Callable[[], Sample]] = {
        ours: lambda: build(lab),
        bare: lambda: floor(nodes, guests),
    }
    report = Report("build", {})
    missing = why_no_mininet()
    peer = f"Mininet, 1 × {peer_guests}"
    if missing is None:
        contestants[peer] = lambda: mininet(peer_guests)
    else:
        report.not_measured.append(missing)
    samples = report.samples = in_turn(contestants, rounds=rounds, on_turn=on_turn)
    report.goals += [
        Goal("up, over the kernel alone", ratio(samples[ours], samples[bare], UP), "at most", 1.5),
    ]
    if missing is None:
        times = ratio(samples[peer], samples[ours], BOTH)
        report.goals.append(Goal("Mininet, up and down, over netemu", times, "at least", 10))
    return report


def grow(
    sizes: tuple[int, ...], *, rounds: int, warm_up: int, on_turn: Callable[[str], None]
) -> tuple[Report, Mapping[str, dict[float, list[Sample]]]]:
    """Build ever larger labs; returns the report, and for each series the samples by guests."""
    pid = os.getpid()
    labs = {size: lab_of(-(-size // PER_NODE), size, f"bench-grow-{pid}") for size in sizes}
    contestants: dict[str, Callable[[], Sample]] = {}
    for size, lab in labs.items():
        contestants[f"netemu, {size:,} guests"] = lambda lab=lab: build(lab)  # type: ignore[misc]
        contestants[f"the kernel alone, {size:,}"] = lambda lab=lab: floor(  # type: ignore[misc]
            len(lab.nodes), len(lab.guests)
        )
    samples = in_turn(contestants, rounds=rounds, warm_up=warm_up, on_turn=on_turn)
    report = Report("build, growing", samples)
    ours = [samples[f"netemu, {size:,} guests"] for size in sizes]
    flat = Spread.of([b[UP] / a[UP] for a, b in zip(ours[0], ours[-1], strict=True)])
    what = f"a guest of {sizes[-1]:,} over a guest of {sizes[0]:,}, up"
    report.goals.append(Goal(what, flat, "at most", 1.5))
    series: dict[str, dict[float, list[Sample]]] = {
        "netemu": dict(zip(sizes, ours, strict=True)),
        "the kernel alone": {size: samples[f"the kernel alone, {size:,}"] for size in sizes},
    }
    return report, series
