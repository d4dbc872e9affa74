"""A node whose responder is several processes."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from netemu.bench.processes import descendants
from tests.conftest import RunningLab
from tests.netemu.labs.test_lab_isolation import wait_until

pytestmark = pytest.mark.lab

GUESTS = ("a", "b", "c", "d")
URL = "http://169.254.169.254/metadata/v1/InstanceInfo"


def responders(lab: RunningLab) -> list[int]:
    """The processes of the node's responder, the first one first."""
    pids = descendants(lab.status()["supervisor"])
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids}
    return [pid for pid, line in lines.items() if b"responder\0" in line]


def answered(lab: RunningLab) -> set[str]:
    """The guests that are told their own name within half a second."""
    ask = ("curl", "-s", "--max-time", "0.5", URL)
    with ThreadPoolExecutor() as pool:  # at once: what hangs for long is started again
        told = pool.map(lambda one: lab.exec(one, *ask, check=None).stdout, GUESTS)
    return {one for one, text in zip(GUESTS, told, strict=True) if f'"_{one}"' in text}


def test_guests_are_shared_out_by_their_ports(fresh_lab: Any) -> None:
    """A user's node with two processes answers every guest, each always by the same process; when
    one of them dies, both are started again.
    """
    lab: RunningLab = fresh_lab(f"nodes: {{n: {{guests: [{', '.join(GUESTS)}], processes: 2}}}}")
    first, second = responders(lab)
    os.kill(second, signal.SIGSTOP)
    try:
        assert answered(lab) == {"b", "d"}  # even marks are the first's
    finally:
        os.kill(second, signal.SIGCONT)
    assert answered(lab) == set(GUESTS)
    os.kill(second, signal.SIGKILL)
    wait_until(lambda: not {first, second} & set(responders(lab)) and len(responders(lab)) == 2)
    wait_until(lambda: answered(lab) == set(GUESTS))
