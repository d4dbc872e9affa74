"""Which node takes a guest that has to leave its own. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from netemu.topology import MAX_GUESTS_PER_NODE, Guest


class Candidate(NamedTuple):
    """A node that is well, its fault domain, and the guests that it has now."""

    name: str
    fault_domain: int
    guests: Sequence[Guest]


def choose(guest: Guest, origin: int, candidates: Iterable[Candidate]) -> str | None:
    """Return the node for a guest that leaves the fault domain `origin`; None if none has room.

    Another fault domain than its own goes first; then one in which nobody else of its availability
    set is; then the node with the fewest guests; then the order of the lab file.
    """
    ranked = [
        (
            candidate.fault_domain == origin,
            _companions(guest, candidate),
            len(candidate.guests),
            place,
            candidate.name,
        )
        for place, candidate in enumerate(candidates)
        if len(candidate.guests) < MAX_GUESTS_PER_NODE
    ]
    return min(ranked)[-1] if ranked else None


def spread(
    guests: Iterable[Guest], origin: int, candidates: Sequence[Candidate]
) -> Mapping[str, list[Guest]]:
    """Return the new node of each of several guests that leave together, by node.

    Guests that find no room are not among them.
    """
    rooms = {
        one.name: Candidate(one.name, one.fault_domain, list(one.guests)) for one in candidates
    }
    taken: dict[str, list[Guest]] = {}
    for guest in guests:
        node = choose(guest, origin, rooms.values())
        if node is not None:
            moved = taken.setdefault(node, [])
            moved.append(guest)
            room = rooms[node]
            rooms[node] = room._replace(guests=[*room.guests, guest])
    return taken


def _companions(guest: Guest, candidate: Candidate) -> int:
    if guest.availability_set is None:
        return 0
    return sum(one.availability_set == guest.availability_set for one in candidate.guests)
