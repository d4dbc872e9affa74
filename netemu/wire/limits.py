"""The limits of this machine that a lab must keep within, and how to raise them. Runs in the user's
process and in the sandbox.
"""

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from netemu.errors import MachineCannot
from netemu.topology import Lab, Policy

MANY = 4000
"""From this many guests on, other processes hold the guests' namespaces, and the supervisor only
one descriptor for each guest, its packet socket: 20,000 are a common hard limit.
"""

MOST_OPENED = 256
"""Namespaces held by other processes that are open at one time."""

_OTHERWISE: Final = 100
_PER_NODE: Final = 16
_FEW: Final = 6
"""Descriptors that every lab needs, those of a node (sockets, pipes, logs), and the nodes of a
small lab.
"""

_CAP_SYS_RESOURCE: Final = 24


class Finding(NamedTuple):
    """A thing that a lab needs: whether it is there, what was found, and what to do if it is
    missing.

    If it is not `vital`, the lab comes up without it, but not all of the lab can be used at one
    time.
    """

    what: str
    ok: bool
    seen: str
    remedy: str
    vital: bool = True


class Size(NamedTuple):
    """The size of a lab, as far as the machine's limits are concerned."""

    guests: int
    nodes: int = _FEW
    neighbours: int = 0
    """Guests of the largest node, if they hear each other's broadcasts."""
    tenants: int = 0
    """Guests on the tenant network, if they hear each other's broadcasts."""
    by_ipv6: int = 0
    """Guests whose links speak IPv6."""

    @classmethod
    def of(cls, lab: Lab) -> "Size":
        """Return the size of a lab."""
        same_node = lab.policy is Policy.SAME_NODE
        largest = max(len(node.guests) for node in lab.nodes)
        tenants = sum(bool(guest.tenant) for guest in lab.guests)
        guests = len(lab.guests)
        neighbours = largest if same_node else 0
        return cls(guests, len(lab.nodes), neighbours, tenants, guests if lab.ipv6 else 0)


def open_files(guests: int, nodes: int = _FEW) -> int:
    """How many descriptors the supervisor of a lab of this size may hold."""
    return _each(guests) * guests + _besides(nodes)


def limits(size: Size) -> Iterator[Finding]:
    """Check a lab of this size against this machine's limits; says which to raise."""
    guests, nodes = size.guests, size.nodes
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
    yield from _neighbour_table("neighbour table", "ipv4", guests)
    if size.by_ipv6:
        yield from _neighbour_table("IPv6 neighbour table", "ipv6", size.by_ipv6)
    for kind in ("user", "net"):
        path = Path(f"/proc/sys/user/max_{kind}_namespaces")
        if not path.exists():  # without /proc the first step of the sandbox says what to do
            continue
        count = int(path.read_text())
        yield Finding(
            f"{kind} namespaces",
            count >= guests + nodes,
            f"at most {count}",
            f"sudo sysctl -w user.max_{kind}_namespaces={max(65536, 2 * guests)}",
        )

    yield from _earshot("same-node guests", size.neighbours, vital=True)
    yield from _earshot("tenants", size.tenants, vital=False)


def _neighbour_table(what: str, family: str, guests: int) -> Iterator[Finding]:
    thresh = Path(f"/proc/sys/net/{family}/neigh/default/gc_thresh3")
    if thresh.exists():  # visible in the machine's own namespace only
        entries = int(thresh.read_text())
        yield Finding(
            what,
            entries >= guests,
            f"{entries} entries for all namespaces: so many guests can ask at one time",
            f"sudo sysctl -w net.{family}.neigh.default.gc_thresh3={max(65536, 2 * guests)}",
            vital=False,
        )


def _earshot(what: str, count: int, *, vital: bool) -> Iterator[Finding]:
    """Check the queue for broadcasts. One that all of a bridge's guests hear is as many frames
    waiting for one core. When the queue is full, later frames are lost: the reply to an ARP
    request, for one.
    """
    path = Path("/proc/sys/net/core/netdev_max_backlog")
    if count and path.exists():  # visible as above only
        room = int(path.read_text())
        yield Finding(
            what,
            room >= count,
            f"{room} frames may wait for a core: so many can hear one's broadcast",
            f"sudo sysctl -w net.core.netdev_max_backlog={max(4096, 2 * count)}",
            vital,
        )


def require(size: Size) -> None:
    """Raise MachineCannot if a lab of this size would fail while coming up. The error says what to
    raise.
    """
    short = [one for one in limits(size) if one.vital and not one.ok]
    if short:
        told = "; ".join(f"{one.what}: {one.seen}: {one.remedy}" for one in short)
        raise MachineCannot(f"a lab of {size.guests} guests does not fit this machine: {told}")


def _each(guests: int) -> int:
    return 2 if guests <= MANY else 1


def _besides(nodes: int) -> int:
    return MOST_OPENED + _OTHERWISE + _PER_NODE * nodes


def _may_raise() -> bool:
    """Whether this process may raise hard limits: as root with CAP_SYS_RESOURCE, which containers
    lack.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)
    return False
