"""What one guest may use of what its user shares with others: a part, so that something is left.

Runs in a guest's first process and in every process that starts a command in a guest. Two kinds of
limits: the process's own (setrlimit(2)), which a guest's root cannot raise, because that takes a
capability outside its user namespace; and those of the guest's user namespace (/proc/sys/user),
which it cannot write, because /proc/sys is read-only to it.
"""

import os
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

OF_NAMESPACE: Final = {
    "max_inotify_instances": 16,  # a user has 128
    "max_fanotify_groups": 16,  # a user has 128
    "max_inotify_watches": 8192,
    "max_fanotify_marks": 8192,
    **{f"max_{kind}_namespaces": 64 for kind in ("cgroup", "ipc", "mnt", "net", "pid", "time")},
    **{f"max_{kind}_namespaces": 64 for kind in ("user", "uts")},
}
"""How many of these one guest may have, by the file's name in /proc/sys/user."""

PART: Final = {
    resource.RLIMIT_NOFILE: 2,  # descriptors in flight of all guests count; the lab has the rest
    resource.RLIMIT_NPROC: 4,
    resource.RLIMIT_SIGPENDING: 4,  # timers too
    resource.RLIMIT_MSGQUEUE: 4,
}
"""One guest has this part of what the machine allows its user."""

# One byte is too small for a core dump, and also keeps the kernel from starting the machine's
# core-dump program.
_NO_DUMP: Final = 1
_KILLED_FIRST: Final = "500"
_DIRECTORY: Final = "/proc/sys/user"


def open_settings() -> int:
    """The directory of a user namespace's limits, while it can be written: for `bound_namespace`.

    Raises OSError.
    """
    return os.open(_DIRECTORY, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def bound_namespace(settings: int) -> None:
    """Limit the user namespace that this process is in. A limit that it lacks is skipped."""
    for name, most in OF_NAMESPACE.items():
        try:
            file = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=settings)
        except OSError:
            continue
        try:
            os.write(file, str(most).encode())
        except OSError:
            pass
        finally:
            os.close(file)


@contextmanager
def for_its_users() -> Iterator[None]:
    """A user namespace made in the `with` block bounds all its users together, as one guest.

    Only where its owner is nobody else: what a namespace's users have counts for its owner, too.
    """
    before = {kind: resource.getrlimit(kind) for kind in PART}
    try:
        for kind, most in parts({kind: hard for kind, (_, hard) in before.items()}).items():
            resource.setrlimit(kind, (most, before[kind][1]))
        yield
    finally:
        for kind, limits in before.items():
            resource.setrlimit(kind, limits)


def bound_process() -> None:
    """Limit this process and those that it starts, as processes of a guest."""
    for kind, most in parts({kind: resource.getrlimit(kind)[1] for kind in PART}).items():
        resource.setrlimit(kind, (min(most, resource.getrlimit(kind)[0]), most))
    resource.setrlimit(resource.RLIMIT_CORE, (_NO_DUMP, _NO_DUMP))


def be_killed_first() -> None:
    """Have the kernel kill this process and its children first when memory runs out.

    Call it while /proc/self still belongs to this process's user.
    """
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(_KILLED_FIRST)
    except OSError:
        pass  # there is no /proc, or it was to be killed sooner already


def parts(hard: Mapping[int, int]) -> dict[int, int]:
    """A guest's share of these hard limits, by kind. Where there is no hard limit, there is no
    share.
    """
    unlimited = resource.RLIM_INFINITY
    return {kind: most // PART[kind] for kind, most in hard.items() if most != unlimited}
