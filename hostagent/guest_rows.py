"""A guest as a row of the table `guests`, and how the faults of two nodes are merged. Pure."""

from collections.abc import Collection, Iterable
from math import inf
from typing import Final

import msgspec
from msgspec.structs import asdict

from hostagent.channel.requests import Placed
from hostagent.database import Row
from hostagent.faults import MAX_FAULTS, Fault, not_over
from hostagent.model import Guest


class _Stored(Guest, frozen=True, kw_only=True):
    """A guest, with its faults and what it has written."""

    faults: tuple[Fault, ...] = ()
    written: dict[str, str] = msgspec.field(default_factory=dict)


BODY: Final = msgspec.json.Decoder(_Stored)


def read_row(row: Row) -> Placed:
    """Return the guest that a row holds."""
    _, _, incarnation, edits, body = row
    stored = BODY.decode(body)
    guest = Guest(**{name: getattr(stored, name) for name in Guest.__struct_fields__})
    return Placed(
        guest=guest,
        incarnation=incarnation,
        edits=edits,
        faults=stored.faults,
        written=stored.written,
    )


def row_of(one: Placed) -> Row:
    """Return the row that holds a guest."""
    members = asdict(one.guest)
    if one.faults:
        members["faults"] = one.faults
    if one.written:
        members["written"] = one.written
    body = msgspec.json.encode(members, order="deterministic")
    return (one.guest.name, one.guest.availability_set, one.incarnation, one.edits, body)


def merged(
    known: Iterable[Fault], before: Collection[str], carried: Iterable[Fault]
) -> tuple[Fault, ...]:
    """Return the faults of both nodes, each in the version that has been used more.

    `before` are the IDs of those that both had. One that either node no longer has is over.
    """
    there = {one.id: one for one in carried}
    both = {one.id: one for one in known if one.id in there or one.id not in before}
    for one in there.values():
        if one.id in both or one.id not in before:
            both[one.id] = max(one, both.get(one.id, one), key=lambda fault: fault.used)
    return not_over(both.values(), -inf)[:MAX_FAULTS]
