"""Where a run's disks are: a directory in memory, which is removed however the run ends.

One that was killed leaves its directory. The next run removes it: it has our mark, and nobody holds
its lock any more.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_MEMORY: Final = Path("/dev/shm")
_PREFIX: Final = "netemu-simulation-"
_MARK: Final = "run"


@contextmanager
def directory(place: Path | None = None) -> Iterator[Path]:
    """Make a directory for one run, in `place` or in memory, and remove those of dead runs."""
    if place is None:
        place = _MEMORY if _MEMORY.is_dir() else Path(tempfile.gettempdir())
    _sweep(place)
    made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    lock = _opened(made)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (made / _MARK).touch()  # only now may others look at the lock
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(lock)


def _sweep(place: Path) -> None:
    for path in place.glob(f"{_PREFIX}*"):
        try:
            lock = _opened(path)
        except OSError:
            continue  # it is not a directory, or somebody else's
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.fstat(lock).st_uid == os.geteuid()
            if mine and (path / _MARK).is_file():
                shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            pass  # its run is alive
        finally:
            os.close(lock)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
