"""The directory of this user's labs: each lab has one in it, and locks it while it runs.

Runs in the user's process and in the sandbox.

The kernel drops the lock with the lab's last process. A killed lab leaves a few files, which the
next look removes. The runtime directory and each lab's directory carry a mark: a symbolic link that
leads nowhere, whose target is the mark's text. It is made in one step, so it is never incomplete. A
directory without the mark is never used, and only files that labs make are removed. A look creates
nothing. All removals go through descriptors and follow no links.
"""

import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Final

from netemu.errors import MachineCannot

CONTROL: Final = "control"
LOG: Final = "lab.log"
LOGS: Final = "guests"  # what the guests' programs print

_MARK: Final = ".netemu"
_MARK_OF_ROOT: Final = "labs of netemu"
# The files in a lab's directory: LOG, and the sockets that an earlier version kept there.
_OF_A_LAB: Final = re.compile(r"control\.sock|lab\.log(\.new)?|agent-\d+\.sock")
_OF_ITS_GUESTS: Final = re.compile(r".+\.(log|new)")  # in LOGS: see `guest_log`
# Seconds that another command may take to look for dead labs: it takes milliseconds.
_TURN: Final = 5.0
_INSTEAD: Final = "; set NETEMU_RUNTIME_DIR to a directory that only labs are kept in"
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def guest_log(guest: str) -> str:
    """The name of the file below LOGS with the output of this guest's programs."""
    return f"{guest}.log"


def agent_socket(number: int) -> str:
    """The name of the socket on which the agent of the lab's `number`-th node takes commands."""
    return f"agent-{number}"


def address(directory: Path, socket_name: str) -> str:
    """The address of one of the sockets of the lab in this directory: CONTROL or `agent_socket`.

    It is an abstract name in the machine's network namespace. A socket with a path could be opened
    from a guest, which may see the same files as the same user. Raises FileNotFoundError if the lab
    does not exist.
    """
    status = directory.stat()
    return f"\0netemu-{status.st_dev:x}-{status.st_ino:x}/{socket_name}"


def root() -> Path:
    """The directory of this user's labs; it may not exist yet.

    It is NETEMU_RUNTIME_DIR, else /run/netemu for root, else $XDG_RUNTIME_DIR/netemu, else one in
    /tmp. Raises MachineCannot if it exists and was not made by netemu for this user.
    """
    place = _chosen()
    with _opened(place):
        return place


def running() -> list[str]:
    """The sorted names of this user's running labs. Removes the files of dead ones."""
    place = _chosen()
    with _opened(place) as top:
        if top is None:
            return []
        with _alone(top, place):
            return [name for name in sorted(os.listdir(top)) if _runs(top, name)]


def claim(name: str) -> tuple[Path, int] | None:
    """Make the directory of a lab that is to run. Returns its path and the held lock.

    None if a lab of that name runs. A copy of the descriptor, in any process, keeps the lock.
    """
    place = _chosen()
    with _opened(place, make=True) as top:
        assert top is not None
        with _alone(top, place):
            _mark(top, _MARK_OF_ROOT)
            return None if _runs(top, name) else (place / name, _make(top, place / name))


def identity(name: str) -> tuple[int, int] | None:
    """What distinguishes this lab from earlier and later ones of its name; None if it does not
    exist.
    """
    place = _chosen()
    with _opened(place) as top:
        if top is None:
            return None
        try:
            directory = os.open(name, _DIRECTORY, dir_fd=top)
        except OSError:
            return None
        try:
            if not _is_marked(directory, _mark_of(name)):
                return None
            mark = os.stat(_MARK, dir_fd=directory, follow_symlinks=False)
            return mark.st_ino, mark.st_mtime_ns
        except OSError:
            return None
        finally:
            os.close(directory)


def clear(name: str) -> bool:
    """Remove the files of a lab that has ended. False, with nothing done, if it still runs."""
    place = _chosen()
    with _opened(place) as top:
        if top is None:
            return True
        with _alone(top, place):
            return not _runs(top, name)


def discard(top: int, name: str, directory: int) -> None:
    """Remove the files of the calling lab itself, as it ends. `top` is the runtime directory."""
    with suppress(OSError):
        _remove(top, name, directory)


def _chosen() -> Path:
    user = os.geteuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if chosen := os.environ.get("NETEMU_RUNTIME_DIR"):
        try:
            return Path(chosen).absolute()
        except FileNotFoundError:
            raise MachineCannot(
                f"NETEMU_RUNTIME_DIR={chosen}: the working directory has been removed, "
                "so this leads nowhere; write the whole path"
            ) from None
    if user == 0:
        return Path("/run/netemu")
    if runtime and os.access(runtime, os.W_OK):
        return Path(runtime) / "netemu"
    return Path(f"/tmp/netemu-{user}")


@contextmanager
def _opened(place: Path, *, make: bool = False) -> Iterator[int | None]:
    """A descriptor of the runtime directory, None if it is not there; raises if it is not ours."""
    top = None
    try:
        if make:
            with suppress(FileExistsError):
                place.mkdir(mode=0o700)
        with nullcontext() if make else suppress(FileNotFoundError):
            top = os.open(place, _DIRECTORY)
        if top is not None and (wrong := _not_ours(top)):
            raise MachineCannot(f"{place}: {wrong}{_INSTEAD}")
        yield top
    except OSError as error:
        reason = "is a link" if os.path.islink(place) else str(error.strerror)
        raise MachineCannot(f"{place}: cannot keep labs there: {reason}{_INSTEAD}") from None
    finally:
        if top is not None:
            os.close(top)


def _not_ours(top: int) -> str | None:
    """Why labs may not be kept in this directory, or None."""
    status = os.fstat(top)
    if status.st_uid != os.geteuid():
        return "belongs to somebody else"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "others than its owner may write there"
    try:
        if not _is_marked(top, _MARK_OF_ROOT) and os.listdir(top):
            return "holds other things than labs"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None


def _runs(top: int, name: str) -> bool:
    """Whether this is the directory of a running lab. Removes the files of a dead one."""
    try:
        directory = os.open(name, _DIRECTORY, dir_fd=top)
    except OSError:
        return False
    try:
        if not _is_marked(directory, _mark_of(name)):
            return False
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        with suppress(OSError):
            _remove(top, name, directory)
        return False
    finally:
        os.close(directory)


def _make(top: int, place: Path) -> int:
    """Make, mark and lock a lab's directory. An empty one was left by a killed command."""
    name = place.name
    with suppress(OSError):
        os.rmdir(name, dir_fd=top)
    try:
        os.mkdir(name, 0o700, dir_fd=top)
    except FileExistsError:
        raise MachineCannot(
            f"{place}: is not a lab's, so it stays; move it, or use --name"
        ) from None
    directory = -1
    try:
        directory = os.open(name, _DIRECTORY, dir_fd=top)
        _mark(directory, _mark_of(name))
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if directory >= 0:
            _remove(top, name, directory)
            os.close(directory)
        raise
    return directory


def _remove(top: int, name: str, directory: int) -> None:
    """Remove a lab's files and its directory. With other files in it, it stays, unmarked."""
    with suppress(FileNotFoundError, NotADirectoryError):
        logs = os.open(LOGS, _DIRECTORY, dir_fd=directory)
        try:
            _unlink(logs, _OF_ITS_GUESTS)
        finally:
            os.close(logs)
        with suppress(OSError):
            os.rmdir(LOGS, dir_fd=directory)
    _unlink(directory, _OF_A_LAB)
    with suppress(FileNotFoundError):
        os.unlink(_MARK, dir_fd=directory)
    os.rmdir(name, dir_fd=top)


def _unlink(directory: int, names: "re.Pattern[str]") -> None:
    for name in os.listdir(directory):
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
        if names.fullmatch(name) and (stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
            os.unlink(name, dir_fd=directory)


def _mark_of(name: str) -> str:
    return f"lab {name} of netemu"


def _mark(directory: int, text: str) -> None:
    with suppress(FileExistsError):
        os.symlink(text, _MARK, dir_fd=directory)


def _is_marked(directory: int, text: str) -> bool:
    """Whether this user's netemu made the directory: both it and its mark are the user's own."""
    try:
        if os.readlink(_MARK, dir_fd=directory) != text:
            return False
        mark = os.stat(_MARK, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return {mark.st_uid, os.fstat(directory).st_uid} == {os.geteuid()}


@contextmanager
def _alone(top: int, place: Path) -> Iterator[None]:
    """Keep other commands from looking for dead labs meanwhile."""
    deadline = time.monotonic() + _TURN
    while True:
        try:
            fcntl.flock(top, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise MachineCannot(
                    f"{place}: another process has held it for {_TURN:g} s; "
                    f"'fuser {place}' says which"
                ) from None
        time.sleep(0.005)
    try:
        yield
    finally:
        fcntl.flock(top, fcntl.LOCK_UN)
