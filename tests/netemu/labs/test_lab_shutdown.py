"""How a guest's programs end: asked first, as by an init, or by a power cut."""

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import RunningLab
from tests.netemu.labs.following import Story
from tests.netemu.labs.test_lab_isolation import wait_until

pytestmark = pytest.mark.lab

TRAPPING = """
import os, signal, sys, time
def end(*_):
    os.write(1, b'asked to end\\n')
    time.sleep(0.3)
    os._exit(0)
signal.signal(signal.SIGTERM, end if sys.argv[1] == 'polite' else signal.SIG_IGN)
os.write(1, b'begins\\n')
while True:
    signal.pause()
"""
# Bash with a terminal takes no SIGTERM; sleep is stopped when it is asked.
TYPED = """
import os, pty, subprocess
subprocess.Popen(['sh', '-c', 'kill -STOP $$'])
os.write(1, b'begins\\n')
pty.spawn(['bash', '--norc', '-i'])
"""


def _program(script: str, *arguments: str, **more: Any) -> dict[str, Any]:
    return {"run": [sys.executable, "-c", script, *arguments], **more}


GUESTS = {
    "polite": _program(TRAPPING, "polite"),
    "rude": _program(TRAPPING, "rude", shutdown=1),
    "typed": _program(TYPED),
    "hard": _program(TRAPPING, "polite", shutdown="hard"),
    "preempted": _program(TRAPPING, "polite"),
    "idle": {},
}
# Azure's API is the first that the node speaks.
LAB = {"nodes": {"n": {"guests": [{"name": name, **more} for name, more in GUESTS.items()]}}}


def test_programs_end_as_in_their_cloud(fresh_lab: Callable[..., RunningLab]) -> None:
    """A user reboots guests, and Azure preempts one: `events` and `logs` say who ended how."""
    lab = fresh_lab(json.dumps(LAB))

    def said(guest: str, what: str, times: int) -> bool:
        return lab.netemu("logs", guest).stdout.count(what) == times

    with Story(lab) as story:

        def ending(guest: str) -> dict[str, Any]:
            story.until(lambda: len(story.powers(guest)) > 0)
            (told,) = [one["ending"] for one in story.of(guest) if "ending" in one]
            return dict(told)

        running = ("polite", "rude", "typed", "hard", "preempted")
        wait_until(lambda: all(said(one, "begins", 1) for one in running), 20)
        lab.maintenance("schedule", "preempted", "--type", "preempt", "--in", "1s")
        lab.netemu("reboot", "polite", "rude", "typed", "idle", "hard")
        wait_until(lambda: all(said(one, "begins", 2) for one in running[:4]), 20)
        polite, rude, typed = ending("polite"), ending("rude"), ending("typed")
        assert said("polite", "asked to end", 1)
        assert polite["killed"] == []
        assert [seconds >= 0.3 for _, seconds in polite["ended"]] == [True]
        assert (rude["ended"], len(rude["killed"])) == ([], 1)
        assert rude["after"] >= 1.0
        assert typed["killed"] == []
        ended = {name for name, _ in typed["ended"]}
        assert "sh" in ended
        assert ended & {"bash", "python", "python3"}  # on a busy machine, what has yet to become it
        story.until(lambda: story.powers("preempted")[-1:] == ["gone"])
        for guest in ("hard", "preempted"):
            assert said(guest, "asked to end", 0)
        assert [one for one in story.of("idle") if "ending" in one] == []
        lab.netemu("reboot", "--hard", "polite")
        wait_until(lambda: said("polite", "begins", 3), 20)
        assert said("polite", "asked to end", 1)
    words = lab.netemu("events").stdout
    assert "polite on n: ended by itself: " in words
    assert "rude on n: killed after 1" in words
