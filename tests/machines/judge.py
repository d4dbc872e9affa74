"""Reads what all users saw. Pure."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

# A guest that was answered on another machine meanwhile does not come back within so many seconds.
_BACK = 10.0

_NAME = re.compile(r"[abc]-[0-9]+")  # of a user's events; the lab makes others

Line = Mapping[str, Any]


class Outcome(NamedTuple):
    """Numbers, and the witnesses of what may not be."""

    acknowledged: int
    refused: int
    answers: int
    lost: Sequence[str]
    doubled: Sequence[str]
    twice: Sequence[str]


def judge(lines: Iterable[Line], events: Iterable[Mapping[str, Any]]) -> Outcome:
    """`events` are all that the lab has in the end."""
    by_kind: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_kind[line["what"]].append(line)
    there = list(events)
    ids = {one["id"] for one in there}
    named = Counter(one["description"] for one in there if _NAME.fullmatch(one["description"]))
    return Outcome(
        len(by_kind["acknowledged"]),
        len(by_kind["refused"]),
        len(by_kind["answered"]),
        [one["name"] for one in by_kind["acknowledged"] if one["id"] not in ids],
        [name for name, times in named.items() if times > 1],
        twice(by_kind["answered"]),
    )


def twice(answers: Iterable[Line]) -> list[str]:
    """Guests that were answered on one machine, on another, and soon on the first again."""
    by_guest: dict[str, list[Line]] = defaultdict(list)
    for one in sorted(answers, key=lambda one: one["told"]):
        by_guest[one["guest"]].append(one)
    found = []
    for guest, its in by_guest.items():
        last: dict[str, float] = {}
        before = None
        for one in its:
            machine = one["machine"]
            if machine != before and one["asked"] - last.get(machine, -1e9) < _BACK:
                found.append(f"{guest} on {machine} and on {before}")
            last[machine] = one["told"]
            before = machine
    return found


def again_after(moment: float, guests: Iterable[str], lines: Iterable[Line]) -> float | None:
    """Seconds from a moment until every guest has been answered; None: one was not.

    A guest that goes on being answered is not waited for: what counts is its longest gap.
    """
    longest = 0.0
    told: dict[str, list[float]] = {guest: [moment] for guest in guests}
    for line in lines:
        if line["what"] == "answered" and line["told"] > moment:
            told[line["guest"]].append(line["told"])
    for times in told.values():
        if len(times) < 2:
            return None
        times.sort()
        longest = max(longest, *(b - a for a, b in pairwise(times)))
    return longest
