"""Programs that are asked to end, as an init asks: our own children stand for a guest's."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netemu.kernel import ender
from netemu.kernel.ender import NAMED, Ender

WAIT = """
import signal, sys, time
def end(*_):
    time.sleep(0.1)
    sys.exit()
signal.signal(signal.SIGTERM, end if sys.argv[1] == 'polite' else signal.SIG_IGN)
print('ready', flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """A first process, a polite one and a rude one."""
    made = {}
    for name in ("first", "polite", "rude"):
        words = [sys.executable, "-c", WAIT, name]
        made[name] = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    for one in made.values():
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    monkeypatch.setattr(ender.GuestProcesses, "of", lambda _: [one.pid for one in made.values()])
    monkeypatch.setattr(ender, "_number_of", lambda _: made["first"].pid)
    yield made
    for one in made.values():
        one.kill()
        one.communicate()


def test_who_ends_by_itself_and_who_does_not_is_reported(
    children: dict[str, subprocess.Popen[str]],
) -> None:
    asking = Ender.of(-1, -1)
    asking.ask()
    told: dict[str, Any] = json.loads(asking.wait(3.0))
    ((_, seconds),) = told["ended"]
    assert seconds >= 0.1
    assert len(told["killed"]) == 1
    assert told["after"] >= 3.0
    assert children["polite"].wait(10) == 0
    assert [children[one].poll() for one in ("first", "rude")] == [None, None]


def test_it_is_over_as_soon_as_all_have_ended(children: dict[str, subprocess.Popen[str]]) -> None:
    rude = children.pop("rude")
    rude.kill()
    rude.communicate()
    asking = Ender.of(-1, -1)
    asking.ask()
    told = json.loads(asking.wait(60.0))
    assert told["killed"] == []
    assert told["after"] < 50.0


def test_a_guest_that_starts_ever_more_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count(1 << 23)  # beyond any process's

    def more(_: int) -> Any:
        return type("", (), {"__iter__": lambda _: iter([next(numbers) for _ in range(50)])})()

    asked: list[int] = []
    monkeypatch.setattr(ender.GuestProcesses, "of", more)
    monkeypatch.setattr(ender, "_number_of", lambda _: 1)
    monkeypatch.setattr(Ender, "_look", lambda *_: ender._Seen("bomb", "0", False))
    monkeypatch.setattr(ender, "_kill", lambda process, _: asked.append(process))
    asking = Ender.of(-1, -1)
    asking.ask()
    assert len(asked) == 450  # 150 of them: stopped, asked, and told to go on
    told = json.loads(asking.wait(0.05))
    assert (told["ended"], told["killed"]) == ([], ["bomb"] * NAMED)


def test_what_a_program_starts_because_it_is_asked_to_end_may_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A user's program drains by a command, as in `trap 'kubectl drain …' TERM`."""
    script = "trap 'sleep 0.2 && echo drained; exit' TERM; echo ready; while :; do sleep 0.01; done"
    words = ["sh", "-c", script]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def look(_: int) -> Any:
        time.sleep(0.05)  # another look comes when the command has been started
        below = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text()
        return [child.pid, *map(int, below.split())]

    monkeypatch.setattr(
        ender.GuestProcesses,
        "of",
        lambda of: type("", (), {"__iter__": lambda _: iter(look(of))})(),
    )
    monkeypatch.setattr(ender, "_number_of", lambda _: os.getpid())
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    Ender.of(-1, -1).ask()
    assert child.communicate(timeout=30)[0] == "drained\n"


def test_what_has_a_terminal_is_asked_and_not_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's `netemu shell` in a guest that reboots ends: it does not go to the background."""
    sent: list[signal.Signals] = []
    monkeypatch.setattr(ender.GuestProcesses, "of", lambda _: [7])
    monkeypatch.setattr(ender, "_number_of", lambda _: 1)
    monkeypatch.setattr(Ender, "_look", lambda *_: ender._Seen("bash", "0", True))
    monkeypatch.setattr(ender, "_kill", lambda _, number: sent.append(number))
    Ender.of(-1, -1).ask()
    assert sent == [signal.SIGTERM, signal.SIGHUP, signal.SIGCONT]


def test_a_program_has_ended_once_its_first_process_has_told_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the guest's first process writes of an end is written before the guest is cut off."""
    monkeypatch.setattr(ender.GuestProcesses, "of", lambda _: [])
    monkeypatch.setattr(ender, "_number_of", lambda _: os.getpid())
    asking = Ender.of(-1, -1)
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert asking._look(child.pid) is not None
    child.wait()
    assert asking._look(child.pid) is None
