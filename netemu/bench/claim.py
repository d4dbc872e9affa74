"""Measures claims at RFC 3927's own pace: the time until all are bound, and the CPU time.

`stage.measure` runs it as `python -m netemu.bench.claim`. It wires a lab and runs its claims, and
no services. `whole` brings up a complete lab, for the largest ones.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping
from resource import RUSAGE_SELF, getrusage
from typing import Final

import msgspec
from msgspec import Struct

from netemu.bench import processes, stage
from netemu.bench.build import lab_of
from netemu.bench.report import Goal, Report
from netemu.bench.rounds import Sample, Spread, in_turn, ratio
from netemu.client import labs
from netemu.kernel.factory_client import Factory
from netemu.linklocal.timing import Timing
from netemu.supervisor.nodes.claims import Claims
from netemu.supervisor.nodes.wiring import Manner, wire
from netemu.topology import Lab, Policy
from netemu.wire.progress import Step

BOUND: Final = "wired to all bound, s"
USER: Final = "user CPU, ms/claim"
SYSTEM: Final = "kernel CPU, ms/claim"

SIZES: Final = (10, 100, 1_000)
"""Guests on one bridge; the number of bridges makes the total the same."""


class Job(Struct):
    """The lab to measure: guests in total and on each bridge."""

    guests: int
    per_bridge: int
    policy: Policy
    time_scale: float


def run(job: Job) -> Report:
    """Wire a lab, run its claims, and return the one sample."""
    lab = lab_of(-(-job.guests // job.per_bridge), job.guests, "bench")
    lab = msgspec.structs.replace(lab, policy=job.policy)
    return Report("claim", {"": [asyncio.run(_claim(lab, job.time_scale))]})


async def _claim(lab: Lab, time_scale: float) -> Sample:
    progress = stage.Silent(os.dup(2))
    factory = Factory()
    nodes = await wire(lab, factory, Manner(lab.policy, time_scale), progress=progress)
    start, before = time.monotonic(), getrusage(RUSAGE_SELF)
    claims = Claims(Timing().scaled(time_scale)).begin(nodes)
    await claims.hold(factory)
    await claims.all_bound(lab.guests, progress)
    end, after = time.monotonic(), getrusage(RUSAGE_SELF)
    count = len(lab.guests)
    return {
        BOUND: end - start,
        USER: 1000 * (after.ru_utime - before.ru_utime) / count,
        SYSTEM: 1000 * (after.ru_stime - before.ru_stime) / count,
    }


def compare(
    *,
    guests: int,
    sizes: tuple[int, ...],
    time_scale: float,
    rounds: int,
    warm_up: int,
    on_turn: Callable[[str], None],
) -> tuple[Report, Mapping[str, dict[float, list[Sample]]]]:
    """Claim with more and more guests on one bridge, under both policies.

    Returns the report, and for each policy the samples by guests on a bridge.
    """
    names = {(policy, size): f"{policy}, {size:,} a bridge" for policy in Policy for size in sizes}
    contestants = {
        name: _measure(Job(guests, size, policy, time_scale))
        for (policy, size), name in names.items()
    }
    samples = in_turn(contestants, rounds=rounds, warm_up=warm_up, on_turn=on_turn)
    report = Report("claim", samples)
    series: dict[str, dict[float, list[Sample]]] = {
        policy: {size: samples[names[policy, size]] for size in sizes} for policy in Policy
    }
    if time_scale == 1:
        wall = Spread.of([sample[BOUND] for sample in series[Policy.RESPONDER_ONLY][sizes[-1]]])
        report.goals.append(Goal(f"{guests:,} guests: wired to all bound, s", wall, "at most", 8))
    for policy, by_size in series.items():
        flat = ratio(by_size[sizes[-1]], by_size[sizes[0]], USER)
        what = f"{policy}: user CPU per claim, {sizes[-1]:,} on a bridge over {sizes[0]:,}"
        report.goals.append(Goal(what, flat, "at most", 1.25))
    return report, series


def _measure(job: Job) -> Callable[[], Sample]:
    return lambda: stage.measure("netemu.bench.claim", job).samples[""][0]


def whole(*, guests: int, nodes: int, time_scale: float) -> Report:
    """Bring a complete lab up once: every guest bound, and answered by its node's responder."""
    lab = lab_of(nodes, guests, f"bench-whole-{os.getpid()}")
    at: dict[str, float] = {}
    least = start_memory = processes.available_memory()
    start = time.monotonic()

    def on_step(step: Step) -> None:
        nonlocal least
        at[step.phase] = time.monotonic()
        least = min(least, processes.available_memory())

    try:
        labs.bring_up(lab, time_scale=time_scale, on_step=on_step, owned=True)
        up = time.monotonic()
        least = min(least, processes.available_memory())
        cpu = processes.cpu_of_tree(labs.supervisor(lab.name))
    finally:
        down = time.monotonic()
        labs.take_down(lab.name)
        processes.await_reclaim()
    used = (start_memory - least) / 2**30
    sample = {
        "wired after, s": at["wiring guests"] - start,
        "bound after, s": at["claiming addresses"] - start,
        "answered after, s": up - start,
        "down, s": time.monotonic() - down,
        "memory, GiB": used,
        "CPU, ms/guest": 1000 * cpu / guests,
    }
    name = f"{nodes} × {guests // nodes}"
    report = Report("claim, whole lab", {name: [sample]})
    report.goals.append(Goal("memory, GiB", Spread.of([used]), "at most", 6))
    return report


if __name__ == "__main__":
    sys.exit(stage.main(Job, run))
