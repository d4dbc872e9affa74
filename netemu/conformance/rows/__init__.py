"""The isolation catalogue: attacks, a file a family, with several for those of ARP and the lab.

Adding a row is adding an entry. Rows from 201 on are for labs that speak IPv6, those from 301 on
for labs that lease addresses.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from netemu.conformance.row import Row
from netemu.conformance.rows import (
    arp,
    claims,
    dhcp,
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
_LEASING: Final = "DHCP"

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
    _LEASING: dhcp.ROWS,
}

CATALOGUE: Final[tuple[tuple[str, Row], ...]] = tuple(
    sorted(
        ((family, row) for family, rows in FAMILIES.items() for row in rows),
        key=lambda one: int(one[1].id),
    )
)
"""(family, row), by the rows' numbers."""


Numbered = list[tuple[str, Row]]


class ByLab(NamedTuple):
    """Rows by the lab that they need: any, one that speaks IPv6, one that leases addresses."""

    any: Numbered
    ipv6: Numbered
    dhcp: Numbered

    def playable(self, *, ipv6: bool, dhcp: bool) -> Numbered:
        """The rows for a lab of this kind."""
        return [*self.any, *(self.ipv6 if ipv6 else []), *(self.dhcp if dhcp else [])]


def by_lab(rows: Iterable[tuple[str, Row]]) -> ByLab:
    """Split rows by the lab that they need."""
    found = ByLab([], [], [])
    kinds = {_SPEAKING_IPV6: found.ipv6, _LEASING: found.dhcp}
    for family, row in rows:
        kinds.get(family, found.any).append((family, row))
    return found
