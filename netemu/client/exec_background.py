"""Runs a command in a guest or on a node for another program: ends with it, and takes it along.

A process of its own, because only one with a single thread can enter a user namespace, and only a
child is in a PID namespace. `netemu exec` does the same for a person at a terminal.
"""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from netemu.client import relay
from netemu.client.exec_foreground import (
    become,
    enter,
    fork,
    is_guest,
    leave_environment,
    working_directory,
)
from netemu.client.relay import Relay
from netemu.errors import NetemuError
from netemu.kernel.groups import pass_over_setgroups
from netemu.wire.source import SOURCE
from netemu.wire.standard_streams import keep_their_places

# The exit codes of env(1) and timeout(1): the command did not fail, it could not be run.
_NOT_STARTED: Final = 125
# Without site packages, which it does not need, it starts in half the time.
_START: Final = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from netemu.client.exec_background import main; "
    "main(int(sys.argv[1]), sys.argv[2], sys.argv[3].split(), sys.argv[4:])"
)


def start(
    namespaces: Mapping[str, int], command: Sequence[str], *, groups: bool = True, **options: Any
) -> subprocess.Popen[Any]:
    """Start `command` in these namespaces; `options` are those of subprocess.Popen.

    Signals sent to the process reach the command, its return code is the command's, and killing it
    kills the command. So does the end of this process, in whatever way. A command that is not
    there ends with 127, as in a shell. In a guest it has a part of this process's environment, but
    all of one that is given as `env`. Without `groups` it may call setgroups(2) where the kernel
    refuses that, to no effect.
    """
    told = ",".join(f"{kind}={descriptor}" for kind, descriptor in namespaces.items())
    given = {"groups": groups, "environment": options.get("env") is not None}
    which = " ".join(name for name, is_so in given.items() if is_so)
    keep_their_places()
    caller = os.pidfd_open(os.getpid())
    try:
        # A session of its own: Ctrl-C goes to the caller, once.
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _START, SOURCE, str(caller), told, which, *command],
            pass_fds=(caller, *namespaces.values()),
            start_new_session=True,
            **options,
        )
    finally:
        os.close(caller)


def main(caller: int, told: str, given: Sequence[str], command: Sequence[str]) -> NoReturn:
    """Enter the namespaces, run the command, and end as it does, or kill it with the caller.

    `given` says whether the command is given "groups", and an "environment" of its own.
    """
    pairs = (pair.split("=") for pair in told.split(","))
    namespaces = {kind: int(descriptor) for kind, descriptor in pairs}
    directory, guest = working_directory(), is_guest(namespaces)
    # In the C locale Python sets another locale for itself (PEP 538), which the command must not
    # see.
    if b"LC_CTYPE=" not in Path("/proc/self/environ").read_bytes():
        os.environ.pop("LC_CTYPE", None)
    try:
        enter(namespaces)
        if guest and "environment" not in given:
            leave_environment()
        streams = Relay.make(terminal=False)
        relay.block()
        child = fork()
    except NetemuError as error:  # the guest ends at this moment
        os.write(2, f"netemu: {command[0]}: not started: {error}\n".encode())
        os._exit(_NOT_STARTED)
    if child == 0:
        streams.take()
        if "groups" not in given:
            pass_over_setgroups()
        become(directory, command, guest=guest)
    code = os.waitstatus_to_exitcode(streams.follow(child, caller=caller))
    if code < 0:
        _end_by(signal.Signals(-code))
    os._exit(code)


def _end_by(number: signal.Signals) -> None:
    """End by the signal that ended the command, so that the caller sees the same; dump no core."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
