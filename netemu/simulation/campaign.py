"""Many seeds, in several processes; and mutants, each until its checker has caught it.

Runs in the user's process. Children get the same hash seed, so that a seed gives the same run on
every machine.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from netemu.simulation.mutants import Mutant
from netemu.wire.source import python_path

Outcome = dict[str, Any]
"""What a child prints: `run.Outcome` as a map."""

# The modules that run a story: a lab on one machine, and one on several.
LAB: Final = "netemu.simulation"
MACHINES: Final = "netemu.simulation.machine_run"
# Seeds that a child runs: few enough for the children to end at about the same time.
_SHARE: Final = 10


def outcomes(
    first: int,
    count: int,
    mutant: str | None = None,
    jobs: int | None = None,
    *,
    story: str = LAB,
) -> Iterator[Outcome]:
    """Run `count` seeds of a story from `first` on. Yields them as they end.

    `jobs` processes run at once, one for each core by default.
    """
    pending = [
        (start, min(_SHARE, first + count - start)) for start in range(first, first + count, _SHARE)
    ]
    jobs = jobs or len(os.sched_getaffinity(0))
    running: list[subprocess.Popen[str]] = []
    try:
        while pending or running:
            while pending and len(running) < jobs:
                running.append(_child(*pending.pop(0), mutant, story))
            child = running.pop(0)
            assert child.stdout is not None
            with child:
                for line in child.stdout:
                    yield json.loads(line)
    finally:
        for child in running:
            child.kill()
            child.wait()


class Caught(NamedTuple):
    """How a mutant was caught: the seed, the seeds that it took, and the checkers that saw it."""

    seed: int | None
    seeds: int
    checkers: tuple[str, ...]


def hunt(
    mutant: Mutant, first: int, count: int, jobs: int | None = None, *, story: str = LAB
) -> Caught:
    """Run seeds until one of the mutant's own checkers sees it. `seed` is None if none did."""
    tried = 0
    with _closing(outcomes(first, count, mutant.name, jobs, story=story)) as results:
        for outcome in results:
            tried += 1
            seen = {checker for checker, _ in outcome["breaches"]}
            if seen & set(mutant.caught_by):
                return Caught(outcome["seed"], tried, tuple(sorted(seen)))
    return Caught(None, tried, ())


@contextmanager
def _closing(results: Iterator[Outcome]) -> Iterator[Iterator[Outcome]]:
    try:
        yield results
    finally:
        results.close()  # type: ignore[attr-defined]


def _child(first: int, count: int, mutant: str | None, story: str) -> "subprocess.Popen[str]":
    words = [sys.executable, "-P", "-m", story, str(first), str(count)]
    return subprocess.Popen(
        [*words, *([mutant] if mutant else [])],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": python_path(), "PYTHONHASHSEED": "0"},
    )
