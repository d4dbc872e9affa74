"""A process that others wait for asks to be let run soon."""

import os
import subprocess
import sys

import pytest

from tests.conftest import SOURCE

ASKED = """
import ctypes, os, struct
from hostagent import scheduling
scheduling.be_prompt()
attributes = ctypes.create_string_buffer(48)
number = {'x86_64': 315, 'aarch64': 275}[os.uname().machine]
done = ctypes.CDLL(None).syscall(number, 0, attributes, 48, 0)  # sched_getattr
_, policy, _, nice, _, slice_, _, _ = struct.unpack('=IIQiIQQQ', attributes.raw)
print(done, policy, nice, slice_)
"""


@pytest.mark.processes
def test_a_process_asks_for_a_short_slice_and_a_priority_if_it_may() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASKED], capture_output=True, text=True, cwd=SOURCE, check=True
    )
    failed, policy, nice, slice_ = map(int, done.stdout.split())
    assert (failed, policy) == (0, os.SCHED_OTHER)
    assert nice == (-10 if os.geteuid() == 0 else os.getpriority(os.PRIO_PROCESS, 0))
    if tuple(map(int, os.uname().release.split("-")[0].split(".")[:2])) >= (6, 12):
        assert slice_ == 100_000
