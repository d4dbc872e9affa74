"""One run with hostile guests: they attack while the lab moves them, and their neighbours ask.

Runs in the user's process, outside the sandbox. Of each node the first guest attacks. It is frozen,
rebooted and redeployed at any moment as well. Judged is what the others have of it: nothing.
"""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

from hostagent.model import EventType
from netemu.chaos import invariants, kit
from netemu.chaos.faults import Processes
from netemu.chaos.invariants import Judge, prompt, slowest
from netemu.chaos.kit import Attack
from netemu.chaos.load import Asking
from netemu.chaos.run import CALM, calm, new_dialler
from netemu.client import labs
from netemu.client.attached import AttachedLab
from netemu.client.dialler import Dialler
from netemu.client.maintenance import Maintenance
from netemu.errors import BadInput, NetemuError, NotSo

# Seconds: how long neighbours ask before anybody attacks, and how often then and later.
_QUIET, _QUIET_PAUSE, _POLL = 3.0, 0.1, 1.0
# How long a neighbour waits for an answer.
_LAST_ANSWER: Final = 30.0
_PAUSE: Final = 0.3
_BETWEEN_EVENTS: Final = (0.5, 2.0)
_TYPES: Final = (EventType.FREEZE, EventType.REBOOT, EventType.REDEPLOY)
# An attack lasts two seconds; one whose guest was frozen meanwhile is ended after so many.
_PATIENCE: Final = 10.0


@dataclass(frozen=True)
class Report:
    """What was tried, and what the neighbours had of it; times are in seconds."""

    lab: str
    seed: int
    duration: float
    attackers: Sequence[str]
    attacks: dict[str, int]
    moved: dict[str, int]
    answered: int
    unanswered: int
    quiet: float
    """The 99th percentile of an answer's time before the attacks, and while they went on."""
    attacked: float
    crossed: int
    calm_after: float | None
    breaches: Sequence[tuple[str, str]]

    @property
    def held(self) -> bool:
        """Whether every invariant held."""
        return not self.breaches

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "held": self.held}


class _Asked(NamedTuple):
    """What neighbours were answered for a while: the seconds of each answer, and who got none."""

    times: list[float]
    unanswered: list[tuple[str, str]]


class _Moves(threading.Thread):
    """Freezes, reboots and redeploys the attackers."""

    def __init__(
        self, lab: str, attackers: Sequence[str], seed: int, ending: threading.Event
    ) -> None:
        super().__init__(daemon=True)
        self._lab = lab
        self._attackers = attackers
        self._chance = random.Random(seed)
        self._ending = ending
        self.done: Counter[str] = Counter()

    def run(self) -> None:
        """Schedule events until the end."""
        while not self._ending.wait(self._chance.uniform(*_BETWEEN_EVENTS)):
            kind = self._chance.choice(_TYPES)
            guests, length = [self._chance.choice(self._attackers)], self._chance.uniform(0.2, 1)
            with suppress(NetemuError):
                Maintenance(self._lab).schedule(guests, kind, notice=0, duration=length)
                self.done[kind.value.lower()] += 1


def run(
    lab: str, *, seed: int, duration: float, on_attack: Callable[[Attack], None] = lambda _: None
) -> Report:
    """Have guests of a running lab attack for `duration` seconds, and judge what others have of it.

    Raises BadInput for a lab with no node of two guests.
    """
    told = labs.status(lab)
    attackers = [node["guests"][0]["name"] for node in told["nodes"] if len(node["guests"]) > 1]
    neighbours = [one["name"] for node in told["nodes"] for one in node["guests"]]
    neighbours = [one for one in neighbours if one not in attackers]
    if not attackers:
        raise BadInput(f"{lab}: a node with two guests is needed, an attacker and a neighbour")
    judge, processes = Judge(), Processes(lab)
    apart = told["policy"] == "responder-only"  # else neighbours may hear each other
    with ExitStack() as stack, AttachedLab(lab) as place:
        listen = [sys.executable, "-c", kit.LISTEN]
        ears = [place.popen(one, listen, **_PIPES) for one in neighbours]
        for ear in ears:
            assert ear.stdout is not None
            ear.stdout.readline()
        quiet = _asked(place, neighbours, judge, _QUIET_PAUSE, lambda: time.sleep(_QUIET))
        before = processes.footprint()
        moves = _Moves(lab, attackers, seed, ending := threading.Event())
        stack.callback(moves.join)
        stack.callback(ending.set)
        moves.start()
        attacks = kit.draw(attackers, seed=seed, duration=duration)
        attacked = _asked(
            place, neighbours, judge, _POLL, lambda: _attack(place, attacks, duration, on_attack)
        )
        stack.close()
        crossed = sum(_heard(ear) for ear in ears)
    for guest, said in attacked.unanswered + quiet.unanswered:
        judge.breach(invariants.NEIGHBOURS, f"{guest} was not answered: {said}")
    if crossed and apart:
        judge.breach(invariants.APART, f"neighbours heard {crossed} of the attackers' frames")
    if not prompt(quiet.times, attacked.times):
        witness = f"p99 {slowest(attacked.times):.2f} s, in quiet {slowest(quiet.times):.2f} s"
        judge.breach(invariants.PROMPT, witness)
    calm_after = _after(lab, attackers, processes, before, judge)
    return Report(
        lab=lab,
        seed=seed,
        duration=duration,
        attackers=attackers,
        attacks=dict(Counter(one.name for one in attacks)),
        moved=dict(moves.done),
        answered=len(quiet.times) + len(attacked.times),
        unanswered=len(quiet.unanswered) + len(attacked.unanswered),
        quiet=slowest(quiet.times),
        attacked=slowest(attacked.times),
        crossed=crossed,
        calm_after=calm_after,
        breaches=judge.breaches,
    )


_PIPES: Final[dict[str, Any]] = {
    "stdin": subprocess.PIPE,
    "stdout": subprocess.PIPE,
    "stderr": subprocess.DEVNULL,
    "text": True,
}


def _asked(
    place: AttachedLab,
    guests: Sequence[str],
    judge: Judge,
    pause: float,
    meanwhile: Callable[[], None],
) -> _Asked:
    """Have each of these guests ask who it is, meanwhile, once in `pause` seconds."""
    command = [sys.executable, "-c", kit.POLL, str(pause)]
    asking = {one: place.popen(one, command, **_PIPES) for one in guests}
    for process in asking.values():
        assert process.stdout is not None
        process.stdout.readline()
    meanwhile()
    asked = _Asked([], [])
    for guest, process in asking.items():
        out, _ = process.communicate(timeout=_LAST_ANSWER)
        for said, seconds in map(json.loads, out.splitlines()):
            if said.startswith("_"):
                judge.answered(guest, said)
                asked.times.append(seconds)
            else:
                asked.unanswered.append((guest, said))
    return asked


def _attack(
    place: AttachedLab,
    attacks: Sequence[Attack],
    duration: float,
    on_attack: Callable[[Attack], None],
) -> None:
    began = time.monotonic()
    running: list[tuple[float, subprocess.Popen[Any]]] = []
    for one in attacks:
        time.sleep(max(0.0, began + one.at - time.monotonic()))
        running = _still(running)
        on_attack(one)
        with suppress(NetemuError):  # it is booting, or on its way to another node
            script = kit.ATTACKS[one.name]
            process = place.popen(one.guest, [sys.executable, "-c", script], **_NOWHERE)
            running.append((time.monotonic() + _PATIENCE, process))
    time.sleep(max(0.0, began + duration - time.monotonic()))
    for _, process in running:
        process.kill()
        process.wait()


_NOWHERE: Final[dict[str, Any]] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)


def _still(
    running: list[tuple[float, "subprocess.Popen[Any]"]],
) -> list[tuple[float, "subprocess.Popen[Any]"]]:
    """Those that run, without those that have run for too long."""
    for end, process in running:
        if time.monotonic() > end:
            process.kill()
    return [one for one in running if one[1].poll() is None]


def _heard(ear: "subprocess.Popen[str]") -> int:
    out, _ = ear.communicate(timeout=_PATIENCE)
    return int(out or 0)


def _reboot(lab: str, guest: str) -> None:
    """Reboot a guest, once the last event lets it."""
    end = time.monotonic() + CALM
    while True:
        try:
            return labs.reboot(lab, guest, hard=True)
        except NotSo:
            if time.monotonic() > end:
                raise
        time.sleep(_PAUSE)


def _after(
    lab: str,
    attackers: Sequence[str],
    processes: Processes,
    before: tuple[int, int],
    judge: Judge,
) -> float | None:
    """Whether all is well again, and the supervisor as large as before.

    What an attacker did to its own wire stays until it boots, so each is rebooted.
    """
    guests = [one["name"] for node in labs.status(lab)["nodes"] for one in node["guests"]]
    dialler: Dialler = new_dialler(lab)
    try:
        for guest in attackers:
            _reboot(lab, guest)
        calm_after = calm(lab, guests, Asking(lab, dialler), judge)
    except NetemuError as error:
        judge.breach(invariants.STANDING, str(error))
        return None
    finally:
        dialler.close()
    judge.grown(before, processes.footprint())
    log = os.stat(labs.log_file(lab)).st_size
    if log > invariants.LONGEST_LOG:
        judge.breach(invariants.FLAT, f"the lab's log has {log:,} bytes")
    return calm_after
