"""Measuring in turn: A B A B …, so that what befalls the machine befalls all alike."""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from statistics import median
from typing import Final

from msgspec import Struct

ROUNDS: Final = 5
QUICK_ROUNDS: Final = 2

Sample = Mapping[str, float]
"""One measurement: values by name; the name ends with the unit."""


class Spread(Struct, frozen=True):
    """A median with the least and the greatest of all rounds."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Give the spread of at least one value."""
        return cls(median(values), min(values), max(values))


def in_turn(
    contestants: Mapping[str, Callable[[], Sample]],
    *,
    rounds: int,
    warm_up: int = 1,
    on_turn: Callable[[str], None] = lambda _: None,
) -> dict[str, list[Sample]]:
    """Give each contestant's samples; `warm_up` rounds go before that do not count.

    `on_turn` is told what begins.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in contestants}
    for number in range(1 - warm_up, rounds + 1):
        for name, run in contestants.items():
            on_turn(f"{name}, {f'round {number} of {rounds}' if number > 0 else 'warm-up'}")
            sample = run()
            if number > 0:
                samples[name].append(sample)
    return samples


def gathered(turns: Sequence[Sample], length: int) -> list[Sample]:
    """Make rounds of so many turns each, by the median of each metric."""
    rounds = [turns[start : start + length] for start in range(0, len(turns), length)]
    return [{metric: median(turn[metric] for turn in one) for metric in one[0]} for one in rounds]


def ratio(over: Sequence[Sample], under: Sequence[Sample], metric: str) -> Spread:
    """Give the spread of the quotients of each round: what was measured side by side.

    Against what was too short to be measured at all, everything is infinitely more.
    """
    return Spread.of(
        [a[metric] / b[metric] if b[metric] else inf for a, b in zip(over, under, strict=True)]
    )
