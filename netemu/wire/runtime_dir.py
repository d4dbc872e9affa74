"""Where running labs are found: one directory each, whose lock its supervisor holds.

A lab lives exactly as long as its lock is held: the kernel lets go of it with the last process of
the lab. What a killed lab leaves here are a few files, which whoever looks next takes away.
"""

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from netemu.errors import MachineCannot

CONTROL = "control.sock"
LOG = "lab.log"
LOGS = "guests"  # what the guests' programs say
_LOCK = "lock"


def guest_log(guest: str) -> str:
    """The name of the file below LOGS that has what this guest's programs print."""
    return f"{guest}.log"


def agent_socket(number: int) -> str:
    """Where in the lab's directory the agent of the lab's `number`-th node takes commands."""
    return f"agent-{number}.sock"


# A Unix socket's path holds 107 bytes (struct sockaddr_un); the longest here is a node's.
_LONGEST_SOCKET = 107


def root() -> Path:
    """The directory of this user's labs; made if it is not there.

    NETEMU_RUNTIME_DIR, else /run/netemu for root, else $XDG_RUNTIME_DIR/netemu, else one in /tmp.
    """
    user = os.geteuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if chosen := os.environ.get("NETEMU_RUNTIME_DIR"):
        place = Path(chosen).absolute()
    elif user == 0:
        place = Path("/run/netemu")
    elif runtime and os.access(runtime, os.W_OK):
        place = Path(runtime) / "netemu"
    else:
        place = Path(f"/tmp/netemu-{user}")
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = place.lstat()
    except OSError as error:
        raise MachineCannot(f"{place}: cannot keep labs there: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != user:
        raise MachineCannot(
            f"{place}: belongs to somebody else; set NETEMU_RUNTIME_DIR to a directory of yours"
        )
    return place


def running() -> list[str]:
    """The names of this user's labs that run, sorted; what dead ones left is taken away."""
    place = root()
    names = []
    with _alone(place):
        for directory in sorted(path for path in place.iterdir() if path.is_dir()):
            lock = _try_lock(directory)
            if lock is None:
                names.append(directory.name)
            else:
                shutil.rmtree(directory, ignore_errors=True)
                os.close(lock)
    return names


def claim(name: str) -> tuple[Path, int] | None:
    """Make the directory of a lab that is to run: its path and the held lock.

    None if a lab of that name runs. Whoever holds the descriptor (or a copy) holds the lab.
    """
    place = root()
    directory = place / name
    longest = directory / agent_socket(999)
    if len(os.fsencode(longest)) > _LONGEST_SOCKET:
        raise MachineCannot(f"{place}: the path is too long for sockets; set NETEMU_RUNTIME_DIR")
    with _alone(place):
        if directory.exists():
            lock = _try_lock(directory)
            if lock is None:
                return None
            shutil.rmtree(directory, ignore_errors=True)
            os.close(lock)
        directory.mkdir(mode=0o700)
        lock = _try_lock(directory)
        if lock is None:
            raise MachineCannot(f"{directory}: cannot be locked")
        return directory, lock


def clear(name: str) -> bool:
    """Take away what a lab that has ended left; False if it has not, and nothing is done."""
    place = root()
    with _alone(place):
        directory = place / name
        if directory.is_dir():
            lock = _try_lock(directory)
            if lock is None:
                return False
            shutil.rmtree(directory, ignore_errors=True)
            os.close(lock)
        return True


def _try_lock(directory: Path) -> int | None:
    """The held lock of a lab's directory, or None if somebody else holds it."""
    descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """No other command looks for dead labs meanwhile."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
