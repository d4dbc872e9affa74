"""Guests with a kernel of their own, from outside: commands in them, and their consoles.

Runs in the user's process.
"""

import os
import select
import subprocess
import sys
import termios
import tty
from collections.abc import Sequence
from typing import Final

from netemu.client.failures import CommandTimedOut
from netemu.errors import BadInput
from netemu.wire import questions, runtime_dir
from netemu.wire.control import ask

# Seconds that an answer may take besides the command.
_PATIENCE: Final = 30.0
# Seconds of a command without a limit of its own: the most that the lab allows.
_LONGEST: Final = 3600.0
# Bytes of standard input that a command in a machine may have.
_MOST_GIVEN: Final = 1 << 19
_CHUNK: Final = 65536
# Seconds of silence after which a console is left, once nothing more is to be typed.
_LAST_WORDS: Final = 1.0
# Ctrl-], as telnet's.
_LEAVES: Final = b"\x1d"


def run(
    name: str, guest: str, command: Sequence[str], given: str, timeout: float | None
) -> "subprocess.CompletedProcess[str]":
    """Run a command in a guest that has a kernel of its own, to its end.

    Raises CommandTimedOut; NotSo if the machine has no guest agent that answers.
    """
    code, out, err = _run(name, guest, command, given.encode(), timeout)
    return subprocess.CompletedProcess(
        list(command), code, out.decode(errors="replace"), err.decode(errors="replace")
    )


def _run(
    name: str, guest: str, command: Sequence[str], given: bytes, timeout: float | None
) -> tuple[int, bytes, bytes]:
    if len(given) > _MOST_GIVEN:
        raise BadInput(f"{guest}: a machine's command takes {_MOST_GIVEN:,} bytes of input at most")
    limit = min(timeout or _LONGEST, _LONGEST)
    question = questions.Run(guest, list(command), given, limit)
    told, _ = ask(runtime_dir.root() / name, question, within=limit + _PATIENCE)
    if told.code is None:
        raise CommandTimedOut(guest, command, limit)
    return told.code, told.out, told.err


def run_for_a_person(name: str, guest: str, command: Sequence[str]) -> int:
    """The same with this process's streams. Returns the exit code."""
    given = b"" if sys.stdin.isatty() else sys.stdin.buffer.read(_MOST_GIVEN + 1)
    code, out, err = _run(name, guest, command, given, None)
    for stream, said in ((1, out), (2, err)):
        _write(stream, said)
    return code


def be_at_console(name: str, guest: str) -> int:
    """Make this process's terminal the guest's console, until Ctrl-] or its end."""
    _, (console,) = ask(runtime_dir.root() / name, questions.Console(guest))
    terminal = os.isatty(0)
    if terminal:
        _write(2, f"netemu: the console of {guest}; Ctrl-] leaves it\r\n".encode())
        before = termios.tcgetattr(0)
        tty.setraw(0)
    try:
        _pass(console)
    finally:
        os.close(console)
        if terminal:
            termios.tcsetattr(0, termios.TCSADRAIN, before)
            _write(2, b"\n")
    return 0


def _pass(console: int) -> None:
    """Pass what is typed and what is printed."""
    sources = [0, console]
    while True:
        ready, _, _ = select.select(sources, [], [], None if 0 in sources else _LAST_WORDS)
        if not ready:
            return
        if console in ready:
            printed = os.read(console, _CHUNK)
            if not printed:
                return
            _write(1, printed)
        if 0 in ready:
            typed = os.read(0, _CHUNK)
            before, leaves, _ = typed.partition(_LEAVES)
            if before:
                _write(console, before)
            if leaves:
                return
            if not typed:  # what was typed came from a file: its answers are still to come
                sources = [console]


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
