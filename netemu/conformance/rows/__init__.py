"""The isolation catalogue: 110 attacks, a file a family, and two for those of ARP and the lab.

Adding a row is adding an entry.
"""

from typing import Final

from netemu.conformance.row import Row
from netemu.conformance.rows import (
    arp,
    claims,
    ethernet,
    host,
    http,
    ipv4,
    ipv6,
    kernel,
    lab,
    tcp,
)

FAMILIES: Final[dict[str, tuple[Row, ...]]] = {
    "ARP": (*arp.ROWS, *claims.ROWS),
    "Ethernet": ethernet.ROWS,
    "IPv4": ipv4.ROWS,
    "IPv6": ipv6.ROWS,
    "TCP": tcp.ROWS,
    "HTTP": http.ROWS,
    "host": host.ROWS,
    "lab": (*lab.ROWS, *kernel.ROWS),
}

CATALOGUE: Final[tuple[tuple[str, Row], ...]] = tuple(
    sorted(
        ((family, row) for family, rows in FAMILIES.items() for row in rows),
        key=lambda one: int(one[1].id),
    )
)
"""(family, row), by the rows' numbers."""
