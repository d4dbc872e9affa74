"""Ends a lab: in order if it answers, by force if it does not.

Runs outside the sandbox. It ends the lab's own processes only: its supervisor, and what holds the
lab's lock while there is no supervisor yet. The kernel ends the rest.
"""

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from netemu.errors import MachineCannot, NotSo
from netemu.wire import control, runtime_dir
from netemu.wire.questions import Down

# Seconds that a lab may take to end in order before it is killed: its services have two.
_PATIENCE: Final = 5.0
# … and those within which it must say that it will. A loop that runs says so at once.
_TELLING: Final = 2.0
# Seconds that the kernel may take to end ten thousand guests' processes and sockets.
_LONG_PATIENCE: Final = 120.0
_LOOK: Final = 0.02


def end(name: str, lab: tuple[int, int] | None = None) -> None:
    """End the lab of this name and, if given, of this identity; remove what it leaves.

    A lab that does not end in order within five seconds is killed, whatever it is doing. Returns
    when its last process is gone; raises MachineCannot if the kernel cannot end one.
    """
    lab = lab or runtime_dir.identity(name)
    if lab is not None and not _in_order(name, lab):
        _by_force(name, lab)
    runtime_dir.clear(name)


def await_end(process: int, patience: float | None) -> bool:
    """Wait for the end of a pidfd's process, for `patience` seconds; None: as long as it takes."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(None if patience is None else max(0.0, patience) * 1000))


def _in_order(name: str, lab: tuple[int, int]) -> bool:
    """Tell the lab to go down. Returns whether it has. One that is just starting is waited for."""
    directory = runtime_dir.root() / name
    deadline = time.monotonic() + _PATIENCE
    while runtime_dir.identity(name) == lab and not runtime_dir.clear(name):
        left = deadline - time.monotonic()
        if left < 0:
            return False
        within = min(_TELLING, left)
        with suppress(NotSo), _opened(control.supervisor(directory, within=within)) as supervisor:
            if supervisor is not None:
                control.ask(directory, Down(), within=within)
                if await_end(supervisor, deadline - time.monotonic()):
                    return True
        time.sleep(_LOOK)
    return True


def _by_force(name: str, lab: tuple[int, int]) -> None:
    deadline = time.monotonic() + _LONG_PATIENCE
    while runtime_dir.identity(name) == lab and not runtime_dir.clear(name):
        for process in _holders(runtime_dir.root() / name):
            with _opened(process) as holder:
                # Check again: from here on, its number cannot become another's.
                if holder is not None and _holds(process, runtime_dir.root() / name):
                    signal.pidfd_send_signal(holder, signal.SIGKILL)
                    await_end(holder, deadline - time.monotonic())
        if time.monotonic() > deadline:
            raise MachineCannot(f"{name}: the kernel does not end the lab's processes")
        time.sleep(_LOOK)


def _holders(directory: Path) -> list[int]:
    """The processes other than this one that hold the lab's lock."""
    processes = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [one for one in processes if one != os.getpid() and _holds(one, directory)]


def _holds(process: int, directory: Path) -> bool:
    """Whether a process has the lab's locked directory open. Those of others cannot be seen."""
    try:
        lab = directory.stat()
        for descriptor in os.listdir(f"/proc/{process}/fd"):
            with suppress(OSError):
                it = os.stat(f"/proc/{process}/fd/{descriptor}")
                if (it.st_dev, it.st_ino) == (lab.st_dev, lab.st_ino):
                    information = Path(f"/proc/{process}/fdinfo/{descriptor}").read_text()
                    if "FLOCK" in information:
                        return True
    except OSError:
        pass
    return False


@contextmanager
def _opened(process: int) -> Iterator[int | None]:
    """A pidfd; None if the process has ended."""
    try:
        descriptor = os.pidfd_open(process)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)
