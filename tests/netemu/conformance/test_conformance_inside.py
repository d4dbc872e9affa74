"""The process in a place, as it ends: no lab."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from netemu.conformance.inside import Inside, _answer_calls
from netemu.conformance.probe import Place
from netemu.wire.framing import Link


class Commanded(Inside):
    """Its commands are noted; SIGTERM comes while each runs."""

    def __init__(self) -> None:
        super().__init__()
        self.commands: list[str] = []

    def run(self, command: list[str], text: str = "") -> tuple[int, str, str]:
        # (the suite's processes have other threads)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        self.commands.append(command[2])
        return 0, "", ""


@pytest.fixture(autouse=True)
def ends_in_order() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    yield
    signal.signal(signal.SIGTERM, before)


def test_an_address_is_given_back_if_the_end_comes_while_it_is_added() -> None:
    inside = Commanded()
    with pytest.raises(SystemExit):
        inside.borrow("192.0.2.1/32", "lo")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    inside.give_back()
    assert inside.commands == ["add", "del"]


def test_once_its_channel_is_closed_no_signal_interrupts_what_it_gives_back() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        _answer_calls(Link(theirs), Inside())
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.processes
def test_a_process_has_time_to_give_back_what_it_has_borrowed(tmp_path: Path) -> None:
    """It is not asked: an answer that was lost with an interrupted call held the suite's end up."""
    ours, theirs = socket.socketpair()
    place = Place("n", "lo")
    place._link = Link(ours)
    with theirs:
        script = "import sys, time; sys.stdin.read(); time.sleep(0.2); open(sys.argv[1], 'w')"
        words = [sys.executable, "-c", script, str(tmp_path / "given back")]
        place._process = subprocess.Popen(words, stdin=theirs)
    place.close(30.0)
    assert place._process.returncode == 0
    assert (tmp_path / "given back").exists()
