"""One seed's run, and many of them, each in a process of its own."""

import asyncio
import gc
import hashlib
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from netemu.simulation import checkers, disks
from netemu.simulation.cluster import Cluster
from netemu.simulation.faults import Faults
from netemu.simulation.loop import Loop
from netemu.simulation.workload import Workload
from netemu.supervisor.control.agent_feeds import AgentFeeds

FAULTS: Final = 60.0
"""Virtual seconds under faults; then checkers.LIVELY_WITHIN without."""
_QUIET: Final = 5.0
_kept: Final[list[Loop]] = []


@dataclass(frozen=True)
class Outcome:
    """The outcome of one seed. `breaches` are pairs: a checker's name, and what it saw."""

    seed: int
    breaches: list[tuple[str, str]]
    virtual: float
    real: float
    commands: int = 0
    polls: int = 0
    faults: list[str] = field(default_factory=list)
    digest: str = ""


class _Errors(logging.Handler):
    """Hears of each error that the code under test logs and goes on after."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(logging.ERROR)
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None:
            problem = {"message": record.getMessage(), "exception": record.exc_info[1]}
            self._loop.problems.append(problem)


Story = Callable[[Loop, int, Path, float], Awaitable[Outcome]]


def simulate(seed: int, story: Story | None = None) -> Outcome:
    """Run one seed in this process, which cannot be used for anything else then."""
    began = time.process_time()
    loop = Loop()
    logging.disable(logging.WARNING)
    logging.getLogger().addHandler(_Errors(loop))
    # Collected, what dead processes have left would run its `finally`.
    gc.disable()
    _kept.append(loop)
    with disks.directory() as directory:
        told = (story or _story)(loop, seed, directory, began)
        outcome: Outcome = loop.run_until_complete(told)
        return outcome


async def _story(loop: Loop, seed: int, directory: Path, began: float) -> Outcome:
    cluster = Cluster(loop, seed, directory)
    judges = [kind(cluster) for kind in checkers.ALL]
    first = loop.time()
    lively = next(one for one in judges if isinstance(one, checkers.Lively))
    try:
        async with asyncio.timeout(checkers.LIVELY_WITHIN):
            await cluster.come_up()
    except TimeoutError:
        lively.breach("the lab does not come up")
    await asyncio.sleep(_QUIET)
    workload, faults = Workload(cluster, judges, seed), Faults(cluster, judges, seed)
    tasks = [*workload.begin(), *faults.begin()]
    whole = await _sleep_unless_broken(FAULTS, judges)
    workload.ending = True
    try:
        async with asyncio.timeout(checkers.LIVELY_WITHIN if whole else 0.0):
            await faults.stop()
    except TimeoutError:
        if whole:
            next(one for one in judges if isinstance(one, checkers.Lively)).breach(
                "a node stays away"
            )
    if whole and await _sleep_unless_broken(checkers.LIVELY_WITHIN, judges):
        await events_over(cluster.feeds)
        for judge in judges:
            judge.end()
    for task in tasks:
        if task.done():
            task.result()  # a defect in the simulation itself, which must not pass for health
    trace = json.dumps([cluster.event_log.entries(), faults.done], default=str)
    return Outcome(
        seed=seed,
        breaches=[(type(judge).__name__, one) for judge in judges for one in judge.breaches[:5]],
        virtual=loop.time() - first,
        real=time.process_time() - began,
        commands=workload.commands,
        polls=workload.polls,
        faults=faults.done,
        digest=hashlib.sha256(trace.encode()).hexdigest(),
    )


async def _sleep_unless_broken(seconds: float, judges: Sequence[checkers.Checker]) -> bool:
    """Let time pass until an invariant is broken. Returns whether none was."""
    for _ in range(round(seconds)):
        await asyncio.sleep(1.0)
        if any(judge.breaches for judge in judges):
            return False
    return True


async def events_over(feeds: AgentFeeds) -> None:
    """Wait until no event is in effect: a guest that has just booted has no address yet.

    Events start for as long as the longest notice after the last command.
    """
    for _ in range(round(checkers.LIVELY_WITHIN)):
        now = feeds.now()
        if not any(checkers.in_effect(event, now) for event in feeds.events().values()):
            return
        await asyncio.sleep(1.0)


def forked(seed: int, story: Story | None = None) -> Outcome:
    """Run one seed in a child, which leaves nothing behind and cannot disturb another seed."""
    hear, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(hear)
            outcome = asdict(simulate(seed, story))
        except BaseException as error:
            outcome = {"seed": seed, "breaches": [["Simulation", repr(error)]]}
            outcome |= {"virtual": 0.0, "real": 0.0}
        with open(tell, "w") as out:
            json.dump(outcome, out)
        os._exit(0)
    os.close(tell)
    with open(hear) as told:
        text = told.read()
    os.waitpid(child, 0)
    found: dict[str, Any] = json.loads(text)
    found["breaches"] = [(checker, witness) for checker, witness in found["breaches"]]
    return Outcome(**found)
