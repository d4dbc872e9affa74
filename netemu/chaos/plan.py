"""Which fault strikes what, when, and for how long: drawn from a seed. Pure."""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What a fault does."""

    KILL = "kill"  # SIGKILL to one process
    STOP = "stop"  # SIGSTOP, and SIGCONT later
    FAIL = "fail"  # a node fails, and comes back
    REBOOT = "reboot"  # a guest reboots without notice
    FILL = "fill"  # the agents' file system is full for a while
    LIMIT = "limit"  # the supervisor may open no more files for a while


WEIGHTS: Final = {
    Kind.KILL: 8,
    Kind.STOP: 4,
    Kind.REBOOT: 4,
    Kind.FAIL: 2,
    Kind.FILL: 1,
    Kind.LIMIT: 1,
}
"""The weight of each kind: cheap faults are drawn often, those that cost seconds of healing rarely.
"""

# Seconds between two faults on average: closer, and the lab is never well in between; 500 take ten
# minutes.
_PAUSE: Final = 1.2
# A pause shorter than the heartbeats' patience (8 s), or longer.
_SHORT, _LONG = (0.1, 2.0), (9.0, 14.0)
_LONG_ONE_IN: Final = 4
LONGEST_AWAY: Final = 20.0
_AWAY: Final = (2.0, LONGEST_AWAY)
_SQUEEZE: Final = (0.5, 4.0)


@dataclass(frozen=True)
class Shape:
    """What there is to strike: nodes and guests by name."""

    nodes: Sequence[str]
    guests: Sequence[str]

    @property
    def processes(self) -> list[str]:
        """Every kind of process of a lab but the supervisor, whose end is the lab's."""
        services = [f"{node}/{role}" for node in self.nodes for role in ("agent", "responder")]
        return [*services, "factory", "zygote", *(f"init {guest}" for guest in self.guests)]


@dataclass(frozen=True)
class Fault:
    """`kind` strikes `target` at `at` seconds from the beginning and ends `lasts` seconds later."""

    at: float
    kind: Kind
    target: str
    lasts: float = 0.0

    @property
    def ends(self) -> float:
        """When it is over."""
        return self.at + self.lasts


def plan(
    shape: Shape, *, seed: int, duration: float, kinds: Collection[Kind] = tuple(Kind)
) -> list[Fault]:
    """Faults for `duration` seconds, in order; the last one ends within it.

    Each target has one fault at a time, and one node at least is always well.
    """
    draw = random.Random(seed)
    chosen = [kind for kind in Kind if kind in kinds]
    weights = [WEIGHTS[kind] for kind in chosen]
    faults: list[Fault] = []
    now = draw.expovariate(1 / _PAUSE)
    while now < duration:
        (kind,) = draw.choices(chosen, weights)
        fault = _one(kind, now, shape, draw)
        if fault.ends < duration and _may(fault, faults, shape):
            faults.append(fault)
        now += draw.expovariate(1 / _PAUSE)
    return faults


def _one(kind: Kind, at: float, shape: Shape, draw: random.Random) -> Fault:
    match kind:
        case Kind.KILL:
            return Fault(at, kind, draw.choice(shape.processes))
        case Kind.STOP:
            lasts = _LONG if draw.randrange(_LONG_ONE_IN) == 0 else _SHORT
            return Fault(at, kind, draw.choice(shape.processes), draw.uniform(*lasts))
        case Kind.FAIL:
            return Fault(at, kind, draw.choice(shape.nodes), draw.uniform(*_AWAY))
        case Kind.REBOOT:
            return Fault(at, kind, draw.choice(shape.guests))
        case Kind.FILL:
            return Fault(at, kind, "agents", draw.uniform(*_SQUEEZE))
        case Kind.LIMIT:
            return Fault(at, kind, "supervisor", draw.uniform(*_SQUEEZE))


def _may(fault: Fault, faults: Sequence[Fault], shape: Shape) -> bool:
    under_way = [one for one in faults if one.ends >= fault.at]
    if any(one.target == fault.target for one in under_way):
        return False
    if fault.kind is Kind.FAIL:
        away = {one.target for one in under_way if one.kind is Kind.FAIL}
        return len(away) + 1 < len(shape.nodes)
    return True
