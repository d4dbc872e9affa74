"""Measures in turn (A B A B …), so that disturbances of the machine affect all alike. Pure."""

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
    """The median, minimum and maximum of all rounds."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of at least one value."""
        return cls(median(values), min(values), max(values))


def in_turn(
    contestants: Mapping[str, Callable[[], Sample]],
    *,
    rounds: int,
    warm_up: int = 1,
    on_turn: Callable[[str], None] = lambda _: None,
) -> dict[str, list[Sample]]:
    """Return each contestant's samples, after `warm_up` rounds that do not count.

    `on_turn` is called with a description of each turn.
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
    """Combine each `length` turns into a round, by the median of each metric."""
    rounds = [turns[start : start + length] for start in range(0, len(turns), length)]
    return [{metric: median(turn[metric] for turn in one) for metric in one[0]} for one in rounds]


def ratio(over: Sequence[Sample], under: Sequence[Sample], metric: str) -> Spread:
    """Return the spread of each round's quotient.

    A quotient over a value too short to measure is infinite.
    """
    return Spread.of(
        [a[metric] / b[metric] if b[metric] else inf for a, b in zip(over, under, strict=True)]
    )
