"""Carries out faults on the processes of one lab, from outside its sandbox. Runs in the user's
process.
"""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from netemu.chaos.plan import Fault, Kind
from netemu.client import labs
from netemu.errors import NetemuError, NotSo

# The agents' stores, inside the sandbox. A file system larger than this is not the lab's, and is
# not filled.
_STORES: Final = "run/hostagent"
_FILLABLE: Final = 1 << 30
_FACTORY: Final = "netemu.kernel.factory"


class Processes:
    """The lab's processes by name, with the process IDs that this process sees."""

    def __init__(self, lab: str) -> None:
        self.lab = lab
        self.supervisor = labs.supervisor(lab)

    def find(self, target: str) -> int | None:
        """The process ID of `NODE/agent`, `NODE/responder`, `factory`, `zygote` or `init GUEST`;
        None if it does not run now.
        """
        if target.startswith("init "):
            called = target[:15]  # the kernel keeps 15 bytes of a process's name
            return next((pid for pid in _family(self.supervisor) if _name(pid) == called), None)
        if target == "factory":
            mine = _children(self.supervisor)
            return next((pid for pid in mine if _FACTORY in _command(pid)), None)
        for service in labs.status(self.lab)["services"]:
            if service["name"] == target and service["pid"] is not None:
                return self._outside(int(service["pid"]))
        return None

    def _outside(self, inner: int) -> int | None:
        for pid in _children(self.supervisor):
            numbers = _status(pid).get("NSpid", "").split()
            if numbers and int(numbers[-1]) == inner:
                return pid
        return None

    def footprint(self) -> tuple[int, int]:
        """The supervisor's resident memory in KiB, and its open files."""
        rss = _status(self.supervisor).get("VmRSS", "0 kB").split()[0]
        return int(rss), len(os.listdir(f"/proc/{self.supervisor}/fd"))


def strike(processes: Processes, fault: Fault) -> Callable[[], None]:
    """Begin a fault, and return what ends it. Raises NotSo if there is nothing to strike now."""
    return _STRIKES[fault.kind](processes, fault.target)


def _nothing() -> None:
    return


def _kill(processes: Processes, target: str) -> Callable[[], None]:
    os.kill(_running(processes, target), signal.SIGKILL)
    return _nothing


def _stop(processes: Processes, target: str) -> Callable[[], None]:
    pid = _running(processes, target)
    # By a descriptor: the process may have been killed meanwhile, and its number reused.
    process = os.pidfd_open(pid)
    signal.pidfd_send_signal(process, signal.SIGSTOP)

    def go_on() -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGCONT)
        os.close(process)

    return go_on


def _fail(processes: Processes, target: str) -> Callable[[], None]:
    labs.fail_node(processes.lab, target)
    return lambda: labs.restore_node(processes.lab, target)


def _reboot(processes: Processes, target: str) -> Callable[[], None]:
    labs.reboot(processes.lab, target, hard=True)
    return _nothing


def _fill(processes: Processes, _: str) -> Callable[[], None]:
    place = Path(f"/proc/{processes.supervisor}/root/{_STORES}")
    room = os.statvfs(place)
    if room.f_blocks * room.f_frsize > _FILLABLE:
        raise NotSo("the agents' file system is too large to fill")
    ballast = place / "chaos"
    with ballast.open("wb") as file, suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize)
    return lambda: ballast.unlink(missing_ok=True)


def _limit(processes: Processes, _: str) -> Callable[[], None]:
    kind, pid = resource.RLIMIT_NOFILE, processes.supervisor
    soft, hard = resource.prlimit(pid, kind)
    files = processes.footprint()[1]
    resource.prlimit(pid, kind, (files, hard))
    return lambda: _set_limit(pid, kind, (soft, hard))


def _set_limit(pid: int, kind: int, limits: tuple[int, int]) -> None:
    resource.prlimit(pid, kind, limits)


_STRIKES: Final[dict[Kind, Callable[[Processes, str], Callable[[], None]]]] = {
    Kind.KILL: _kill,
    Kind.STOP: _stop,
    Kind.FAIL: _fail,
    Kind.REBOOT: _reboot,
    Kind.FILL: _fill,
    Kind.LIMIT: _limit,
}
REFUSALS: Final = (NetemuError, OSError, ValueError)
"""The errors of a fault that finds nothing to strike, or is not allowed to."""


def _running(processes: Processes, target: str) -> int:
    pid = processes.find(target)
    if pid is None:
        raise NotSo(f"{target} does not run now")
    return pid


def _family(pid: int) -> Iterator[int]:
    for child in _children(pid):
        yield child
        yield from _family(child)


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(one) for one in text.split()]


def _status(pid: int) -> dict[str, Any]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _name(pid: int) -> str:
    return str(_status(pid).get("Name", ""))


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (OSError, UnicodeDecodeError):
        return ""
