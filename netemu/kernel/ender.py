"""Ends the programs of a guest that shuts down, as an init does: a signal, and a grace period.

Runs in a process of its own for each guest that shuts down: a fork of the factory, in the sandbox.
It leaves the guest's first process alone, with which the kernel ends what is left.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from netemu.kernel.guest_processes import GuestProcesses

# How many programs the report names of those that ended, and of those that did not.
NAMED: Final = 20
# Looks for programs that others have started before they were stopped.
_ROUNDS: Final = 3
_LOOK_AFTER: Final = 0.005
_LOOK_AT_LEAST_EVERY: Final = 0.1


class _Seen(NamedTuple):
    name: str
    began: str  # since the machine's boot, in ticks: it tells processes of one number apart
    has_terminal: bool


class Ender:
    """`first` is the number of the guest's first process."""

    def __init__(self, guest: GuestProcesses, first: int) -> None:
        self._guest = guest
        self._first = first
        self._left: dict[int, _Seen] = {}
        self._ended: list[tuple[str, float]] = []
        self._begun = time.monotonic()

    @classmethod
    def of(cls, pid_namespace: int, first: int) -> "Ender":
        """The ender of a guest, by descriptors of its PID namespace and its first process."""
        return cls(GuestProcesses.of(pid_namespace), _number_of(first))

    def ask(self) -> None:
        """Ask all programs to end: SIGTERM, and what has a terminal by SIGHUP, as shells expect.

        They are stopped before, as inits stop them: so none is missed, and what a program starts
        because it is asked to end is not asked. What is started faster than it can be stopped is
        killed when the grace is over. What has a terminal is not stopped: its shell, or the user's,
        would take it for suspended.
        """
        for _ in range(_ROUNDS):
            fresh = {one: seen for one, seen in self._living() if one not in self._left}
            for process, seen in fresh.items():
                if not seen.has_terminal:
                    _kill(process, signal.SIGSTOP)
            self._left |= fresh
        for process, seen in self._left.items():
            _kill(process, signal.SIGTERM)
            if seen.has_terminal:
                _kill(process, signal.SIGHUP)
        for process in self._left:
            _kill(process, signal.SIGCONT)

    def wait(self, grace: float) -> bytes:
        """Wait until all have ended, or the grace is over; reports what each has done, as JSON."""
        pause = _LOOK_AFTER
        while not self._over() and (left := self._begun + grace - time.monotonic()) > 0:
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LOOK_AT_LEAST_EVERY)
        report: dict[str, Any] = {
            "ended": sorted(self._ended, key=lambda one: one[1])[-NAMED:],
            "killed": sorted(one.name for one in self._left.values())[:NAMED],
            "after": self._now(),
        }
        return json.dumps(report).encode()

    def _over(self) -> bool:
        for process, seen in list(self._left.items()):
            now = self._look(process)
            if now is None or now.began != seen.began:
                del self._left[process]
                self._ended.append((seen.name, self._now()))
        if not self._left:  # some may have been started by the others, as they ended
            self._left.update(self._living())
        return not self._left

    def _now(self) -> float:
        return round(time.monotonic() - self._begun, 3)

    def _living(self) -> Iterator[tuple[int, _Seen]]:
        for process in self._guest:
            if process != self._first and (seen := self._look(process)) is not None:
                yield process, seen

    def _look(self, process: int) -> _Seen | None:
        """What the kernel says of a process that has not ended, or whose end the guest's first
        process has still to tell.
        """
        try:
            text = Path(f"/proc/{process}/stat").read_text(errors="replace")
        except OSError:
            return None
        name, _, rest = text.partition("(")[2].rpartition(")")
        state, parent, _, _, terminal, *more = rest.split()
        if state == "X" or (state == "Z" and int(parent) != self._first):
            return None
        return _Seen(name, more[14], terminal != "0")


def _number_of(pidfd: int) -> int:
    told = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    return int(told.split("Pid:")[1].split()[0])


def _kill(process: int, number: signal.Signals) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        pass
