"""Starts the process that becomes a lab, and follows it until it is up. In the user's process."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from hostagent import process_title
from netemu.errors import MachineCannot, NotSo
from netemu.wire import runtime_dir
from netemu.wire.progress import Step, steps
from netemu.wire.source import python_path


class Outside(NamedTuple):
    """What is made for a lab outside of its sandbox: sockets of so many nodes' agents, one to other
    machines if its tenant network `crosses`, and connections to the servers of its store.
    """

    nodes: int
    crosses: bool
    servers: Sequence[tuple[str, int]]


def start(
    order: bytes,
    outside: Outside,
    directory: Path,
    lock: int,
    on_step: Callable[[Step], None],
) -> None:
    """Start the sandbox, which takes the lock over, and follow it until the lab is ready.

    `order` says what to build. Raises the error that the lab ends with, or MachineCannot.
    """
    with ExitStack() as ours:
        with ExitStack() as theirs:
            theirs.callback(os.close, lock)
            try:
                hear, tell = os.pipe()
                ours.callback(os.close, hear)
                theirs.callback(os.close, tell)
                owner = os.pidfd_open(os.getpid())
                theirs.callback(os.close, owner)
                sandbox = _start_sandbox(directory, lock, tell, owner, outside)
            except OSError as error:
                raise MachineCannot(f"{directory}: no lab starts: {error.strerror}") from None
        try:
            sandbox.communicate(order)
        except BrokenPipeError:
            pass  # it has reported why, on the pipe
        try:
            for step in steps(hear):
                on_step(step)
        except NotSo as error:
            raise NotSo(f"{error}{_last_words(directory)}") from None


def _start_sandbox(
    directory: Path,
    lock: int,
    tell: int,
    owner: int,
    outside: Outside,
) -> subprocess.Popen[bytes]:
    module = (sys.executable, "-P", "-m", "netemu.supervisor.boot.pid1")
    made = (outside.nodes, int(outside.crosses), *chain(*outside.servers))
    words = map(str, (directory, lock, tell, owner, *made))
    with (directory / runtime_dir.LOG).open("ab") as log:
        return subprocess.Popen(
            [*module, *words, process_title.ROOM],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(lock, tell, owner),
            env={**os.environ, "PYTHONPATH": python_path()},
        )


def _last_words(directory: Path) -> str:
    try:
        lines = (directory / runtime_dir.LOG).read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "".join(f"\n    {line}" for line in lines[-5:])
