"""Reads what processes have used of the machine, and waits until the kernel has cleaned up."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from netemu.interfaces import BRIDGE
from netemu.wire.source import python_path

_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
_PATIENCE: Final = 300.0


def descendants(pid: int) -> list[int]:
    """Return the process and its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def cpu_of_tree(pid: int) -> float:
    """Return the CPU seconds of the process and its descendants, including those waited for.

    The resolution is a tick of the kernel's clock, 10 ms.
    """
    stats = [stat for one in descendants(pid) if (stat := _stat(one))]
    return _TICK * sum(int(field) for stat in stats for field in stat[11:15])


def cpu_of(pids: list[int]) -> float:
    """Return the CPU seconds of these processes, in nanosecond resolution."""
    total = 0
    for pid in pids:
        for schedstat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            total += int(schedstat.read_text().split()[0])
    return total / 1e9


def apart(serving: int) -> tuple[set[int], set[int]]:
    """Return the cores for clients, and `serving` cores for servers if there are enough."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) <= serving:
        return set(cores), set(cores)
    return set(cores[:-serving]), set(cores[-serving:])


def keep_to(cores: set[int], pids: list[int]) -> None:
    """Pin these processes and all their threads to these cores."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), cores)


def resident(pids: list[int]) -> int:
    """Return the bytes of private memory of these processes (USS)."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Private_Clean:", "Private_Dirty:")):
                total += int(line.split()[1]) * 1024
    return total


def available_memory() -> int:
    """Return the kernel's estimate of available memory, in bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("/proc/meminfo has no MemAvailable")


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third (state) on; none if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def await_reclaim() -> None:
    """Wait until the kernel has destroyed every network namespace that has ended by now.

    The kernel destroys namespaces in the order in which they end. So this ends a new one, and waits
    until the other end of its wire is gone.
    """
    subprocess.run(
        [sys.executable, "-P", "-m", __name__],
        check=True,
        timeout=_PATIENCE,
        env={**os.environ, "PYTHONPATH": python_path()},
    )


def _sentinel() -> None:
    import socket

    from netemu.kernel import links, netlink
    from netemu.kernel import namespaces as ns
    from netemu.supervisor.boot import sandbox

    sandbox.enter()
    home = ns.open_own("net")
    ns.unshare(ns.NEWNET)
    other = ns.open_own("net")
    ns.setns(home, ns.NEWNET)
    with netlink.Netlink.open() as kernel:
        kernel.run(
            (
                links.bridge(BRIDGE, 2, "02:00:00:00:00:fe"),
                links.wire("sentinel", 3, 2, other, "02:00:00:00:00:01", "sentinel"),
            )
        )
    os.close(other)
    while any(name == "sentinel" for _, name in socket.if_nameindex()):
        time.sleep(0.002)


if __name__ == "__main__":
    _sentinel()
