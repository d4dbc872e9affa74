"""Strikes a lab on three machines, and prints what came of it."""

import argparse
import ctypes
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from hostagent.terminal.output import say
from tests.machines.judge import Line, again_after, judge
from tests.machines.stage import Machine, Stage
from tests.machines.user import LAB

_PACE = ("--time-scale", "0.02")
# Until the guests of a lost machine are answered: its lease, what others wait, a boot.
_HEALED_WITHIN = 45.0
# Until every machine knows what was acknowledged on another.
_KNOWN_WITHIN = 20.0
# Seconds that a struck machine is left so once its guests are answered elsewhere: if it answered
# them still, it would be seen.
_BOTH = 3.0
_PR_SET_CHILD_SUBREAPER = 36


class Fault(NamedTuple):
    """What is struck, and how it is mended; `heals`: guests go elsewhere meanwhile."""

    name: str
    strike: Callable[["Play"], Callable[[], None]]
    heals: bool


class Play:
    def __init__(self, stage: Stage, directory: Path, guests: int, seed: int) -> None:
        self.stage, self._directory = stage, directory
        self.draw = random.Random(seed)
        nodes = (f"  n{m}: {{machine: {m}, guests: {guests}}}\n" for m in stage.machines)
        self._file = "nodes:\n" + "".join(nodes)
        self.guests: list[str] = []
        self._users: list[subprocess.Popen[bytes]] = []
        self._lines: list[Line] = []
        self._read: dict[Path, int] = {}
        self.struck: tuple[str, ...] = ()

    def up(self) -> None:
        first, *others = self.stage.machines.values()
        self._up(first, "up", "-", "--name", LAB, *_PACE, told=self._file)
        for one in others:
            self._up(one, "join", LAB)
        for one in self.stage.machines.values():
            told = json.loads(one.netemu("status", "--json"))
            self.guests += [g["name"] for node in told["nodes"] for g in node["guests"]]
        for one in self.stage.machines.values():
            self._users.append(one.user(self._directory / f"{one.name}.lines"))

    def _up(self, one: Machine, *words: str, told: str | None = None) -> None:
        one.netemu(*words, "--store", self.stage.store, "--machine", one.name, told=told)

    def join(self, one: Machine) -> None:
        self._up(one, "join", LAB)

    def lines(self) -> list[Line]:
        """All that users have written so far."""
        for path in self._directory.glob("*.lines"):
            with path.open() as file:
                file.seek(self._read.get(path, 0))
                while (line := file.readline()).endswith("\n"):
                    self._lines.append(json.loads(line))
                    self._read[path] = file.tell()
        return self._lines

    def until_answered(self, since: float, within: float) -> float | None:
        """Wait until every guest has been answered after a moment; see `again_after`."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            time.sleep(0.5)
            now = time.monotonic() - 1.5
            recent = {one["guest"] for one in self.lines() if one.get("told", 0) > max(since, now)}
            if recent >= set(self.guests):
                return again_after(since, self.guests, self.lines())
        return None

    def play(self, fault: Fault, struck_for: float) -> float | None:
        """Strike and mend. Seconds that a guest was not answered at most; None: one is no more."""
        begun = time.monotonic()
        mend = fault.strike(self)
        if fault.heals:
            self._until_moved(begun)
            struck_for = _BOTH
        time.sleep(struck_for)
        mend()
        self.until_answered(time.monotonic(), _HEALED_WITHIN)
        return again_after(begun, self.guests, self.lines())

    def homes(self) -> dict[str, str]:
        """The machine that each guest was answered on last."""
        return {one["guest"]: one["machine"] for one in self.lines() if one["what"] == "answered"}

    def _until_moved(self, since: float) -> None:
        """Wait until guests of the struck machine have been answered on others."""
        (struck,) = self.struck
        victims = {guest for guest, machine in self.homes().items() if machine == struck}
        while time.monotonic() < since + _HEALED_WITHIN:
            victims -= {
                one["guest"]
                for one in self.lines()
                if one["what"] == "answered" and one["told"] > since and one["machine"] != struck
            }
            if not victims:
                return
            time.sleep(0.5)

    def down(self) -> None:
        for user in self._users:
            user.kill()
            user.wait()
        for one in self.stage.machines.values():
            one.netemu("down", "--all", check=False)

    def end(self) -> None:
        for user in self._users:
            user.kill()
            user.wait()
        self._users.clear()

    def events_in_the_end(self) -> list[dict[str, object]]:
        """All events, once those that were acknowledged are among them, or some time later.

        A machine that follows the store at a server which was lost knows of them after seconds.
        """
        wanted = {one["id"] for one in self.lines() if one["what"] == "acknowledged"}
        end = time.monotonic() + _KNOWN_WITHIN
        while time.monotonic() < end:
            found = self.events()
            if wanted <= {one["id"] for one in found}:
                break
            time.sleep(1.0)
        return found

    def events(self) -> list[dict[str, object]]:
        told = self.stage.machines["a"].netemu("maintenance", "list", "--history", "--json")
        found: list[dict[str, object]] = json.loads(told)
        return found


def _machine(play: Play) -> Machine:
    """The one that has most of the guests, and of several any: guests do not go back."""
    counted = Counter(play.homes().values())
    most = max(counted.values())
    name = play.draw.choice(sorted(m for m in counted if counted[m] == most))
    play.struck = (name,)
    return play.stage.machines[name]


def _kill(play: Play) -> Callable[[], None]:
    one = _machine(play)
    os.kill(one.supervisor(), signal.SIGKILL)
    return lambda: play.join(one)


def _stop(play: Play) -> Callable[[], None]:
    pid = _machine(play).supervisor()
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


def _cut(*directions: str) -> Callable[[Play], Callable[[], None]]:
    def strike(play: Play) -> Callable[[], None]:
        one = _machine(play)
        one.net.cut(*directions)
        return one.net.whole

    return strike


def _leader(how: str) -> Callable[[Play], Callable[[], None]]:
    def strike(play: Play) -> Callable[[], None]:
        one = play.stage.leader()
        if how == "kill":
            one.process.kill()
            one.process.wait()
            return one.start
        if how == "stop":
            one.process.send_signal(signal.SIGSTOP)
            return lambda: one.process.send_signal(signal.SIGCONT)
        one.net.cut(*how.split())
        return one.net.whole

    return strike


FAULTS = (
    Fault("a machine is cut off", _cut("input", "output"), True),
    Fault("the store's leader is stopped", _leader("stop"), False),
    Fault("a machine's supervisor is stopped", _stop, True),
    Fault("the store's leader is killed", _leader("kill"), False),
    Fault("a machine is killed", _kill, True),
    Fault("the store's leader is cut off", _leader("input output"), False),
    Fault("a machine hears nothing", _cut("input"), True),
    Fault("the store's leader hears nothing", _leader("input"), False),
)
QUICK = (FAULTS[2], FAULTS[1])


def _reap() -> None:
    """Wait for what labs have left to this process, so that its CPU time is counted."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def main() -> int:
    asked = argparse.ArgumentParser(prog="test-machines")
    asked.add_argument("--etcd", required=True, help=argparse.SUPPRESS)
    asked.add_argument("--quick", action="store_true")
    asked.add_argument("--guests", type=int)
    asked.add_argument("--times", type=int)
    asked.add_argument("--seed", type=int, default=1)
    given = asked.parse_args()
    if os.geteuid() != 0:
        say("test-machines: needs root, to make namespaces as machines", err=True)
        return 3
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    guests = given.guests or (3 if given.quick else 300)
    times = given.times or (1 if given.quick else 10)
    directory = Path(tempfile.mkdtemp(prefix="netemu-machines-"))
    stage = Stage(given.etcd, directory)
    play = Play(stage, directory, guests, given.seed)
    failed = False
    try:
        begun = time.monotonic()
        play.up()
        took = time.monotonic() - begun
        say(f"3 machines of {guests} guests are up after {took:.1f} s")
        play.until_answered(time.monotonic(), _HEALED_WITHIN)
        for _ in range(times):
            for fault in QUICK if given.quick else FAULTS:
                gap = play.play(fault, 4.0)
                failed = failed or gap is None
                told = "NEVER" if gap is None else f"{gap:.1f} s"
                say(f"{fault.name}: every guest is answered again within {told}")
        play.end()
        outcome = judge(play.lines(), play.events_in_the_end())
    finally:
        play.down()
        stage.close()
        shutil.rmtree(directory, ignore_errors=True)
    for name in ("lost", "doubled", "twice"):
        for one in getattr(outcome, name)[:10]:
            say(f"{name}: {one}")
            failed = True
    _reap()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    say(
        f"acknowledged {outcome.acknowledged}, refused {outcome.refused}, "
        f"lost {len(outcome.lost)}, doubled {len(outcome.doubled)}; {outcome.answers:,} answers, "
        f"guests answered twice at once {len(outcome.twice)}; "
        f"{used.ru_utime + used.ru_stime:.0f} s of CPU"
    )
    return 1 if failed or not outcome.acknowledged else 0
