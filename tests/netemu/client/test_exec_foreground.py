"""What runs in a guest is started there, or it is said why not."""

import errno
import os

import pytest

from netemu.client import exec_foreground
from netemu.errors import NotSo


def test_a_guest_that_ends_just_now_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:  # as in a PID namespace whose first process has ended
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(NotSo, match="no process can be started there"):
        exec_foreground.fork()
