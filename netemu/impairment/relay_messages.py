"""What the supervisor tells the relay, and what the relay says. Pure: `descriptor_link` sends them.

The descriptors that belong to a message travel beside it.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from netemu.impairment.terms import Terms

Both = tuple[Terms, Terms]  # to the guest, and from it
Counts = dict[str, list[dict[str, int]]]  # by wire, in both directions


class Lay(Struct, array_like=True, tag=True):
    """Listen at both ends of a wire: beside it are the sockets of the guest's and the node's."""

    wire: str


class Begin(Struct, array_like=True, tag=True):
    """Have other terms, and count frames from 0. Beside it is a file of each trace."""

    wire: str
    seed: int
    terms: Both
    traces: Sequence[str]


class Change(Struct, array_like=True, tag=True):
    """Have other terms. Beside it is a file of each trace."""

    wire: str
    terms: Both
    traces: Sequence[str]


class Flush(Struct, array_like=True, tag=True):
    """Throw away what waits."""

    wire: str


class Take(Struct, array_like=True, tag=True):
    """Carry a wire no longer."""

    wire: str


class Count(Struct, array_like=True, tag=True):
    """Answer with the counts of all wires."""

    question: int


class Heard(Struct, array_like=True, tag=True):
    """Answer with no counts: everything before this has been carried out."""

    question: int


class Hello(Struct, array_like=True, tag=True):
    """A relay has begun, and knows of no wire."""


class Laid(Struct, array_like=True, tag=True):
    """It listens at both ends of the wire."""

    wire: str


class Counted(Struct, array_like=True, tag=True):
    """The counts of some wires, and whether those of others follow."""

    question: int
    counts: Counts
    more: bool


Order = Lay | Begin | Change | Flush | Take | Count | Heard
Said = Hello | Laid | Counted


def written(message: Order | Said) -> list[Any]:
    """Return the message as `descriptor_link` sends it."""
    told: list[Any] = msgspec.to_builtins(message)
    return told


def read(told: list[Any], kind: Any) -> Any:
    """Return the message, of that kind; None if it is not one."""
    try:
        return msgspec.convert(told, kind)
    except msgspec.ValidationError:
        return None
