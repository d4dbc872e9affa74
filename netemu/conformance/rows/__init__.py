"""The isolation catalogue: attacks, a file a family, with several for those of ARP and the lab.

Adding a row is adding an entry. Rows from 201 on are for labs that speak IPv6.
"""

from collections.abc import Iterable
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
    ipv6_link,
    kernel,
    lab,
    machine,
    tcp,
)

_SPEAKING_IPV6: Final = "IPv6 link"

FAMILIES: Final[dict[str, tuple[Row, ...]]] = {
    "ARP": (*arp.ROWS, *claims.ROWS),
    "Ethernet": ethernet.ROWS,
    "IPv4": ipv4.ROWS,
    "IPv6": ipv6.ROWS,
    "TCP": tcp.ROWS,
    "HTTP": http.ROWS,
    "host": host.ROWS,
    "lab": (*lab.ROWS, *kernel.ROWS, *machine.ROWS),
    _SPEAKING_IPV6: ipv6_link.ROWS,
}

CATALOGUE: Final[tuple[tuple[str, Row], ...]] = tuple(
    sorted(
        ((family, row) for family, rows in FAMILIES.items() for row in rows),
        key=lambda one: int(one[1].id),
    )
)
"""(family, row), by the rows' numbers."""


Numbered = list[tuple[str, Row]]


def by_lab(rows: Iterable[tuple[str, Row]]) -> tuple[Numbered, Numbered]:
    """The rows for any lab, and those for a lab that speaks IPv6."""
    found: tuple[Numbered, Numbered] = ([], [])
    for family, row in rows:
        found[family == _SPEAKING_IPV6].append((family, row))
    return found
