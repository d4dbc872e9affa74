"""One run: faults by a plan, under load, and the verdict. Runs in the user's process."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from netemu.chaos import invariants
from netemu.chaos.faults import REFUSALS, Processes, strike
from netemu.chaos.invariants import Judge
from netemu.chaos.load import Asking, Commands, Polls
from netemu.chaos.plan import LONGEST_AWAY, Fault, Kind, Shape, plan
from netemu.client import labs
from netemu.client.dialler import Dialler
from netemu.client.maintenance import Maintenance
from netemu.errors import NetemuError

# reliability.md's ninth invariant: within a minute of the last fault everything is well again.
CALM: Final = 60.0
_LOOK: Final = 0.25
_SAMPLE: Final = 1.0
_POLLERS: Final = 3


@dataclass(frozen=True)
class Struck:
    """A fault that was carried out, or why it was not."""

    fault: Fault
    problem: str | None


@dataclass(frozen=True)
class Sample:
    """The supervisor's size at a moment: seconds from the beginning, KiB, open files."""

    at: float
    memory: int
    files: int


@dataclass(frozen=True)
class Report:
    """What was done, and what held; `breaches` are pairs of invariant and witness."""

    lab: str
    seed: int
    duration: float
    struck: Sequence[Struck]
    acknowledged: int
    refused: int
    answered: int
    unanswered: int
    calm_after: float | None
    breaches: Sequence[tuple[str, str]]
    samples: Sequence[Sample]

    @property
    def held(self) -> bool:
        """Whether every invariant held."""
        return not self.breaches

    def done(self) -> Counter[Kind]:
        """How many faults of each kind were carried out."""
        return Counter(one.fault.kind for one in self.struck if one.problem is None)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "held": self.held, "faults": dict(self.done())}


def run(
    lab: str,
    *,
    seed: int,
    duration: float,
    kinds: Collection[Kind] = tuple(Kind),
    on_fault: Callable[[Struck], None] = lambda _: None,
) -> Report:
    """Strike a running lab for `duration` seconds, and judge it. Raises NetemuError if it is gone
    before the first fault.
    """
    told = labs.status(lab)
    guests = [guest["name"] for node in told["nodes"] for guest in node["guests"]]
    shape = Shape([node["name"] for node in told["nodes"]], guests)
    processes = Processes(lab)
    judge, ending = Judge(), threading.Event()
    shares = [guests[start::_POLLERS] for start in range(min(_POLLERS, len(guests)))]
    diallers = [new_dialler(lab) for _ in shares]
    polls = [
        Polls(lab, share, dialler, judge, ending)
        for share, dialler in zip(shares, diallers, strict=True)
    ]
    commands = Commands(lab, guests, seed, ending)
    samples: list[Sample] = []
    began = time.monotonic()
    watch = threading.Thread(target=_measure, args=(processes, began, samples, ending), daemon=True)
    judged = threading.Event()
    operator = threading.Thread(target=_bring_back, args=(lab, judged), daemon=True)
    operator.start()
    threads = [*polls, commands, watch]
    try:
        for thread in threads:
            thread.start()
        struck = _strike_all(
            processes, plan(shape, seed=seed, duration=duration, kinds=kinds), began, on_fault
        )
        time.sleep(max(0.0, duration - (time.monotonic() - began)))
    finally:
        ending.set()
        for thread in threads:
            thread.join()
    try:
        calm_after = calm(lab, guests, Asking(lab, diallers[0]), judge)
        _settle(lab, commands, judge, Asking(lab, diallers[0]))
    except NetemuError as error:
        calm_after = None
        judge.breach(invariants.STANDING, str(error))
    finally:
        judged.set()
        operator.join()
        for dialler in diallers:
            dialler.close()
    judge.sizes([(one.memory, one.files) for one in samples])
    return Report(
        lab=lab,
        seed=seed,
        duration=duration,
        struck=struck,
        acknowledged=commands.acknowledged,
        refused=commands.refused,
        answered=sum(one.answered for one in polls),
        unanswered=sum(one.unanswered for one in polls),
        calm_after=calm_after,
        breaches=judge.breaches,
        samples=samples,
    )


def _strike_all(
    processes: Processes, faults: Sequence[Fault], began: float, on_fault: Callable[[Struck], None]
) -> list[Struck]:
    """Carry the plan out; each fault is ended at its time, also if this is interrupted."""
    struck: list[Struck] = []
    endings: list[tuple[float, Callable[[], None]]] = []

    def until(moment: float) -> None:
        while endings and min(endings, key=lambda one: one[0])[0] <= moment:
            ends = min(endings, key=lambda one: one[0])
            endings.remove(ends)
            _sleep_until(began + ends[0])
            _end(ends[1])
        _sleep_until(began + moment)

    try:
        for fault in faults:
            until(fault.at)
            problem = None
            try:
                endings.append((fault.ends, strike(processes, fault)))
            except REFUSALS as error:
                problem = str(error)
            struck.append(Struck(fault, problem))
            on_fault(struck[-1])
        if endings:
            until(max(ends for ends, _ in endings))
    finally:
        for _, end in endings:
            _end(end)
    return struck


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def _end(end: Callable[[], None]) -> None:
    try:
        end()
    except REFUSALS:
        pass  # what it struck is gone: nothing is left to be ended


def new_dialler(lab: str) -> Dialler:
    """Return what makes sockets in the lab's guests; it is to be closed."""
    namespaces = labs.enter(lab, None)
    try:
        return Dialler().start(namespaces["user"])
    finally:
        for descriptor in namespaces.values():
            os.close(descriptor)


def _measure(
    processes: Processes, began: float, samples: list[Sample], ending: threading.Event
) -> None:
    while not ending.wait(_SAMPLE):
        try:
            memory, files = processes.footprint()
        except OSError:
            return
        samples.append(Sample(round(time.monotonic() - began, 1), memory, files))


def _bring_back(lab: str, judged: threading.Event) -> None:
    """As an operator does, bring back nodes that no fault brings back: the lab has fenced them,
    for they were silent. It would have no node left in the end.
    """
    since: dict[str, float] = {}
    while not judged.wait(_SAMPLE):
        try:
            nodes, now = labs.status(lab)["nodes"], time.monotonic()
            away = [node["name"] for node in nodes if node.get("state") == "failed"]
            since = {node: since.get(node, now) for node in away}
            for node, noticed in since.items():
                if now - noticed > LONGEST_AWAY:
                    labs.restore_node(lab, node)
        except REFUSALS:
            pass  # a fault is at it


def calm(lab: str, guests: Sequence[str], asking: Asking, judge: Judge) -> float | None:
    """Wait until all is well; the seconds that took, or None if it was not within CALM."""
    began = time.monotonic()
    while True:
        told = labs.status(lab)
        services, unwell = _services_unwell(told), _guests_unwell(told)
        silent = [] if unwell else [one for one in guests if not asking.look(one, judge)]
        if not services and not unwell and not silent:
            return round(time.monotonic() - began, 1)
        if time.monotonic() - began > CALM:
            break
        time.sleep(_LOOK)
    for what in services:
        judge.breach(invariants.SERVICES, what)
    for what in unwell:
        judge.breach(invariants.LIVENESS, what)
    for guest in silent:
        judge.breach(invariants.LIVENESS, f"{guest} is not answered")
    return None


def _services_unwell(told: dict[str, Any]) -> list[str]:
    """The services that do not run, but for those of failed nodes."""
    failed = {node["name"] for node in told["nodes"] if node.get("state") == "failed"}
    return [
        f"{one['name']} is {one['state']}"
        for one in told["services"]
        if one["state"] != "running" and one["name"].split("/")[0] not in failed
    ]


def _guests_unwell(told: dict[str, Any]) -> list[str]:
    """The guests that do not run, or have no address."""
    return [
        f"{guest['name']} is {guest['power']} and {guest['state']}"
        for node in told["nodes"]
        for guest in node["guests"]
        if guest["power"] != "running" or guest["state"] != "bound"
    ]


def _settle(lab: str, commands: Commands, judge: Judge, asking: Asking) -> None:
    """Judge what the lab has at the end."""
    known = Maintenance(lab).events(history=True)
    there = {one.id: sorted(one.guests) for one in known}
    judge.events(commands.events, there)
    judge.log(labs.happened(lab))
    for guest, possible in commands.settings.items():
        judge.settings(guest, possible, asking.setting(guest))
