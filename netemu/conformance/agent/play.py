"""Plays rows with an agent: in labs of its own, each row in guests of its own.

Runs in the user's process. Rows of one lab are played side by side: events, faults and silence
concern one row's guests alone. A lab goes down with its rows, and with the process that made it.
"""

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from netemu.client.api import Lab
from netemu.client.async_maintenance import AsyncMaintenance
from netemu.client.recording import Recording
from netemu.conformance.agent import in_guest
from netemu.conformance.agent.judge import asks_at_all, judge
from netemu.conformance.agent.records import Record
from netemu.conformance.agent.row import COMMON, Row
from netemu.conformance.agent.spec import Agent
from netemu.conformance.agent.story import Story
from netemu.conformance.agent.watch import Watch
from netemu.errors import NetemuError

AT_ONCE: Final = 16
"""Rows played at a time. The agents of all run from the lab's start on."""

FAILED: Final = "not played"
"""The verdict where the lab, not the agent, is not as it should be."""

TIME_SCALE: Final = 0.05
"""Of RFC 3927's durations: a claim takes a quarter of a second."""

_OTHERS: Final[dict[str, dict[str, bool]]] = {
    "azure": {"ec2": False, "gce": False},
    "ec2": {"azure": False, "azure-v1": False, "gce": False},
    "gce": {"azure": False, "azure-v1": False, "ec2": False},
}
_LABS: Final[dict[str, dict[str, Any]]] = {
    COMMON: {},
    "host failure": {},
    "incarnation": {"azure": {"incarnation_restarts": True}},
    "tokens": {"ec2": {"imdsv1": False}},
}
"""What is special about the labs that rows name."""

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row that was played."""

    row: Row
    verdict: str
    evidence: tuple[str, ...]
    record: Record | None
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the agent did what the row asks."""
        return self.verdict == self.row.expected


def play(
    agent: Agent,
    rows: Sequence[Row],
    *,
    on_done: Callable[[Outcome], None] = lambda _: None,
    captures: Path | None = None,
) -> list[Outcome]:
    """Play the rows; those that are not about such an agent are left out.

    With `captures` each lab's nodes are captured into a folder there. Raises NetemuError if a lab
    cannot be brought up.
    """
    played = [row for row in rows if not row.not_played(agent)]
    outcomes: dict[str, Outcome] = {}
    for name in dict.fromkeys(row.lab for row in played):
        of_lab = [row for row in played if row.lab == name]
        with _up(agent, of_lab, name, captures) as (lab, work):
            for outcome in asyncio.run(_play_in(lab, agent, of_lab, work, on_done)):
                outcomes[outcome.row.id] = outcome
    return [outcomes[row.id] for row in played]


@contextmanager
def _up(
    agent: Agent, rows: Sequence[Row], lab_kind: str, captures: Path | None
) -> Iterator[tuple[str, Path]]:
    """A lab with guests for the rows, and the directory of their journals."""
    work = Path(tempfile.mkdtemp(prefix="netemu-agent-"))
    try:
        work.chmod(0o777)  # a guest's root is nobody outside
        (work / "agent.json").write_text(json.dumps({
            "run": agent.run.run,
            "restart": agent.run.restart,
            "directory": agent.directory,
            "drained": agent.drained,
            "returned": agent.returned,
        }))  # fmt: skip
        name = f"agent-{os.getpid()}-{next(_numbers)}"
        shape = shape_of(agent, rows, lab_kind, work)
        with ExitStack() as stack:
            seen: dict[str, list[str | Path]] = {"shared": [work], "readable": [agent.directory]}
            lab = Lab(shape, name=name, time_scale=TIME_SCALE, access_log=True, **seen)
            stack.enter_context(lab)
            if captures is not None:
                folder = captures / (lab_kind.replace(" ", "-") or agent.run.cloud)
                folder.mkdir(parents=True, exist_ok=True)
                stack.callback(Recording.start(lab.name, lab.nodes, folder).stop)
            yield lab.name, work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def shape_of(agent: Agent, rows: Sequence[Row], lab_kind: str, work: Path) -> dict[str, Any]:
    """The lab file of the rows, as a mapping. Pure."""
    shared_node: list[Any] = []
    nodes: dict[str, Any] = {"host": {"guests": shared_node}, "spare": {"guests": 0}}
    for row in rows:
        guests = [_guest(row, letter, work) for letter in row.members]
        if row.own_node:
            nodes[f"host-{row.id.lower()}"] = {"guests": guests}
        else:
            shared_node += guests
    cloud = agent.run.cloud
    shape = {"nodes": nodes, "dialects": {**_OTHERS[cloud], **_LABS[lab_kind]}}
    if cloud == "ec2":
        shape["properties"] = {"lifecycle": "spot"}
    if not shared_node:
        del nodes["host"]
    return shape


def _guest(row: Row, letter: str, work: Path) -> dict[str, Any]:
    name = f"{row.id.lower()}{letter}"
    entry: dict[str, Any] = {"name": name}
    if len(row.members) > 1:
        entry["availability_set"] = row.id.lower()
    if letter in row.run_in:
        entry["run"] = [sys.executable, "-I", "-S", in_guest.__file__, "run", str(work), name]
    return entry


async def _play_in(
    lab: str, agent: Agent, rows: Sequence[Row], work: Path, on_done: Callable[[Outcome], None]
) -> list[Outcome]:
    places = asyncio.Semaphore(AT_ONCE)
    guests = [f"{row.id.lower()}{letter}" for row in rows for letter in row.members]
    watch = Watch(lab, work, guests)
    try:
        async with AsyncMaintenance(lab) as plan, asyncio.TaskGroup() as tasks:

            async def one(row: Row) -> Outcome:
                async with places:
                    story = Story(lab, plan, watch, agent, work, row.id)
                    outcome = await _play_row(story, row, agent)
                    on_done(outcome)
                    return outcome

            watching = tasks.create_task(watch.run())
            played = [tasks.create_task(one(row)) for row in rows]
            await asyncio.wait(played)
            watching.cancel()
    except ExceptionGroup as errors:
        # Without a watch no row can be judged.
        raise errors.exceptions[0] from None
    finally:
        watch.close()
    return [task.result() for task in played]


async def _play_row(story: Story, row: Row, agent: Agent) -> Outcome:
    begun = time.monotonic()
    try:
        asks = await story.begin(row.run_in)
        if asks:
            await row.play(story)
        record = await story.close(row.members)
    except NetemuError as error:
        told = (str(error), *story.last_words(row.members))
        return Outcome(row, FAILED, told, None, time.monotonic() - begun)
    demands = row.demands_of(agent) if asks else (asks_at_all(row.run_in[0]),)
    verdict, evidence = judge(record, demands, row.expected)
    if not asks:
        evidence += story.last_words(row.members)
    return Outcome(row, verdict, tuple(evidence), record, time.monotonic() - begun)
