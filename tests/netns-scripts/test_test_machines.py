"""How a lab on several machines is judged: what is lost, doubled, and answered twice at once."""

import os
import shutil
import subprocess
from typing import Any

import pytest

from tests.conftest import SOURCE
from tests.machines.judge import again_after, judge, twice


def answered(guest: str, machine: str, told: float) -> dict[str, Any]:
    seen = {"guest": guest, "machine": machine, "asked": told - 0.01, "told": told}
    return {"what": "answered", **seen}


def test_a_guest_that_moves_once_is_not_answered_twice() -> None:
    moved = [answered("g", "a", 1.0), answered("g", "b", 20.0), answered("g", "b", 21.0)]
    assert twice([*moved, answered("g", "a", 60.0)]) == []
    assert twice([*moved, answered("g", "a", 21.5)]) == []  # it was away from `a` for long
    assert twice([answered("g", "a", 1.0), answered("g", "b", 2.0), answered("g", "a", 3.0)]) == [
        "g on a and on b"
    ]


def test_events_are_counted_by_what_their_user_called_them() -> None:
    lines = [
        {"what": "acknowledged", "id": "1", "name": "a-1"},
        {"what": "acknowledged", "id": "2", "name": "a-2"},
        {"what": "refused"},
    ]
    kept = [("1", "a-1"), ("3", "b-1"), ("4", "b-1"), ("5", "machine b is lost"), ("6", "")]
    events = [{"id": one, "description": description} for one, description in kept]
    told = judge(lines, [*events, {"id": "7", "description": "machine b is lost"}])
    assert (told.acknowledged, told.refused) == (2, 1)
    assert (list(told.lost), list(told.doubled)) == (["a-2"], ["b-1"])


def test_the_longest_gap_of_any_guest_is_told() -> None:
    lines = [answered("g", "a", 1.0), answered("g", "b", 9.0), answered("h", "a", 2.0)]
    assert again_after(0.0, ["g", "h"], lines) == 8.0
    assert again_after(2.0, ["g", "h"], lines) is None


@pytest.mark.lab
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make namespaces as machines")
def test_a_stopped_machine_is_silent_before_its_guests_are_answered_elsewhere() -> None:
    """A user's lab on three machines: one supervisor and the store's leader are stopped."""
    if not (shutil.which("etcd") or (SOURCE / ".etcd/package/usr/bin/etcd").exists()):
        pytest.skip("etcd is not here; 'netns-scripts/etcd start' fetches it")
    script = [SOURCE / "netns-scripts/test-machines", "--quick"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost 0, doubled 0;" in done.stdout
    assert "guests answered twice at once 0;" in done.stdout
