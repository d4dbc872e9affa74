"""The rows, a file a cloud. Adding a row is adding an entry."""

from collections.abc import Sequence
from typing import Final

from netemu.conformance.agent.row import Row
from netemu.conformance.agent.rows import azure, azure_faults, ec2, gce
from netemu.errors import BadInput

ROWS: Final[tuple[Row, ...]] = (*azure.ROWS, *azure_faults.ROWS, *ec2.ROWS, *gce.ROWS)


def chosen(wanted: str) -> Sequence[Row]:
    """The rows of a text such as A01,E02-E04. Raises BadInput."""
    order = [row.id for row in ROWS]
    ids: set[str] = set()
    for part in wanted.split(","):
        first, dash, last = part.strip().upper().partition("-")
        for one in (first, last) if dash else (first,):
            if one not in order:
                raise BadInput(
                    f"--rows: {one[:40]!r} is not a row; write them as A01,E02-E04; --list has all"
                )
        ids |= set(order[order.index(first) : order.index(last or first) + 1])
    return [row for row in ROWS if row.id in ids]
