"""The limits of this machine that a lab must keep within, and what to raise."""

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from netemu.errors import MachineCannot

MANY = 4000
"""Guests from which on a lab's process holds one descriptor for each, its packet socket, and other
processes its namespace: 20,000 are a common hard limit."""

MOST_OPENED = 256
"""Namespaces held elsewhere that are open at one time."""

_OTHERWISE: Final = 100
_PER_NODE: Final = 16
_FEW: Final = 6
"""Descriptors that a lab has besides; a node's sockets, pipes and logs; nodes of a small lab."""

_CAP_SYS_RESOURCE: Final = 24


class Finding(NamedTuple):
    """A thing that a lab needs: whether it is there, what was seen, and what to do if not.

    Without what is not `vital` a lab comes up, but not all of it can be used at one time.
    """

    what: str
    ok: bool
    seen: str
    remedy: str
    vital: bool = True


def open_files(guests: int, nodes: int = _FEW) -> int:
    """How many descriptors the process of a lab of this size may come to hold."""
    return _each(guests) * guests + _besides(nodes)


def limits(guests: int, nodes: int = _FEW) -> Iterator[Finding]:
    """Whether a lab of this size keeps within this machine's limits, and what to raise."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unbounded = hard == resource.RLIM_INFINITY
    left = max(hard - _besides(nodes), 0)
    room = left if left > MANY else left // 2
    needed = open_files(guests, nodes)
    yield Finding(
        "open files",
        unbounded or hard >= needed or _may_raise(),
        "no limit" if unbounded else f"{hard}, enough for {room} guests",
        f"raise the hard limit as root, 'ulimit -Hn {needed}', or in "
        "/etc/security/limits.conf (nofile)",
    )
    thresh = Path("/proc/sys/net/ipv4/neigh/default/gc_thresh3")
    if thresh.exists():  # the kernel shows it in the machine's own namespace only
        entries = int(thresh.read_text())
        yield Finding(
            "neighbour table",
            entries >= guests,
            f"{entries} entries for all namespaces: so many guests can ask at one time",
            f"sysctl -w net.ipv4.neigh.default.gc_thresh3={max(65536, 2 * guests)}",
            vital=False,
        )
    for kind in ("user", "net"):
        path = Path(f"/proc/sys/user/max_{kind}_namespaces")
        count = int(path.read_text()) if path.exists() else 0
        yield Finding(
            f"{kind} namespaces",
            count >= guests + nodes,
            f"at most {count}",
            f"sysctl -w user.max_{kind}_namespaces={max(65536, 2 * guests)}",
        )


def require(guests: int, nodes: int) -> None:
    """Raise MachineCannot if a lab of this size would fail half-way; says what to raise."""
    short = [one for one in limits(guests, nodes) if one.vital and not one.ok]
    if short:
        told = "; ".join(f"{one.what}: {one.seen}: {one.remedy}" for one in short)
        raise MachineCannot(f"a lab of {guests} guests does not fit this machine: {told}")


def _each(guests: int) -> int:
    return 2 if guests <= MANY else 1


def _besides(nodes: int) -> int:
    return MOST_OPENED + _OTHERWISE + _PER_NODE * nodes


def _may_raise() -> bool:
    """Whether this process may raise hard limits: root with CAP_SYS_RESOURCE, as outside of
    containers.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)
    return False
