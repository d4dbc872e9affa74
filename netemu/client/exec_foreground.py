"""Runs a command inside a guest, a node or the sandbox, as a child of the caller.

It runs in the process of `netemu exec`, `shell` and `enter`. The command has the caller's working
directory and streams, but never the caller's terminal: see `relay`.
"""

import os
import select
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from netemu.client import relay
from netemu.client.relay import Relay
from netemu.errors import MachineCannot, NotSo
from netemu.kernel import confinement, guest_environment, guest_ids, guest_limits, seccomp
from netemu.kernel import namespaces as ns

# Each can be entered from the one before: first the user namespaces that grant the rights, last a
# guest's own, except for the namespaces that it owns.
_ORDER = ("sandbox", "pid", "net", "ipc", "user", "mnt", "uts")
# The sandbox and its nodes belong to the sandbox's user namespace, which comes first there.
_ORDER_OF_SANDBOX = ("user", "pid", "net", "mnt")

# A shell's exit codes: the command was not found, or cannot be run.
NOT_FOUND, NOT_RUNNABLE = 127, 126


def run(namespaces: Mapping[str, int], command: Sequence[str]) -> int:
    """Run `command` in these namespaces and give its exit code (128 + n if signal n ended it).

    The calling process enters them too, but for the PID namespace: it can do nothing else after.
    It must have one thread only.
    """
    directory, guest = working_directory(), is_guest(namespaces)
    enter(namespaces)
    if guest:
        leave_environment()
    streams = Relay.make(terminal=True)
    hear, told = os.pipe()
    relay.block()
    child = fork()
    if child == 0:
        streams.take()
        if streams.terminal:
            relay.lead(told, lambda: become(directory, command, guest=guest))
        become(directory, command, guest=guest)
    os.close(told)
    code = os.waitstatus_to_exitcode(streams.follow(child, told=hear))
    return code if code >= 0 else relay.SIGNALLED - code


def is_guest(namespaces: Mapping[str, int]) -> bool:
    """Whether these namespaces are a guest's, not a node's or the sandbox's."""
    return "sandbox" in namespaces


def working_directory() -> str:
    """The caller's working directory, or / if that has been removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"


def leave_environment() -> None:
    """Keep of the caller's environment what every program of a guest has."""
    kept = guest_environment.of(os.environ)
    os.environ.clear()
    os.environ.update(kept)


def enter(namespaces: Mapping[str, int]) -> None:
    """Enter these namespaces from outside the lab, and close their descriptors.

    Only children of the process are in a PID namespace that it enters. Nobody in a guest can read
    the memory of the process from now on.
    """
    if is_guest(namespaces):
        guest_limits.be_killed_first()
    confinement.hide_memory()
    order = _ORDER if is_guest(namespaces) else _ORDER_OF_SANDBOX
    try:
        for kind in order:
            if kind in namespaces and not _is_entered(kind, namespaces[kind]):
                ns.setns(namespaces[kind])
        guest_ids.be_root()
    finally:
        for descriptor in namespaces.values():
            os.close(descriptor)


def _is_entered(kind: str, descriptor: int) -> bool:
    """Whether this is our own user namespace, as root's sandbox is: that cannot be entered."""
    if kind not in ("sandbox", "user"):
        return False
    own = ns.open_own("user")
    try:
        return ns.same_namespace(own, descriptor)
    finally:
        os.close(own)


def fork() -> int:
    """Have a child, in the PID namespace that was entered; it is killed when this process ends.

    Raises NotSo if that namespace ends just now.
    """
    this = os.pidfd_open(os.getpid())
    try:
        child = os.fork()
        if child == 0:
            confinement.end_with_parent()
            if ended(this):  # before it could say so
                os._exit(relay.SIGNALLED + signal.SIGKILL)
        return child
    except OSError as error:
        raise NotSo(f"no process can be started there: {error.strerror}") from None
    finally:
        os.close(this)


def ended(*processes: int, patience: float | None = 0) -> list[int]:
    """Those of these processes (pidfds) that have ended. Waits `patience` seconds for the first."""
    poll = select.poll()
    for process in processes:
        poll.register(process, select.POLLIN)
    return [one for one, _ in poll.poll(None if patience is None else patience * 1000)]


def become(directory: str | Path, command: Sequence[str], *, guest: bool) -> NoReturn:
    """Be the command, in this directory if it is there; one that cannot be ends as in a shell.

    Of the caller it keeps the standard streams, the environment (in a guest a part of that) and
    nothing else. In a guest it may ask the kernel for nothing that is one for the whole machine.
    """
    confinement.keep_standard_streams_only()
    confinement.leave_keys_behind()
    if guest:
        guest_limits.bound_process()
        seccomp.confine_guest()
    try:
        os.chdir(directory)
    except OSError:
        os.chdir("/")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvp(command[0], list(command))
    except FileNotFoundError:
        _end(command[0], "not found", NOT_FOUND)
    except OSError as error:
        _end(command[0], str(error.strerror), NOT_RUNNABLE)
    except ValueError as error:  # an empty name
        _end(command[0], str(error), NOT_RUNNABLE)


def _end(name: str, why: str, code: int) -> NoReturn:
    """Say why the command cannot be run; what a terminal would obey in its name is spelt out."""
    shown = name if name.isprintable() else ascii(name)
    os.write(2, f"netemu: {shown}: {why}\n".encode())
    os._exit(code)


def shell() -> list[str]:
    """The user's $SHELL, or a shell that every machine has."""
    for candidate in (os.environ.get("SHELL", ""), "/bin/bash", "/bin/sh"):
        if candidate and os.access(candidate, os.X_OK):
            return [candidate]
    raise MachineCannot("there is no shell on this machine")
