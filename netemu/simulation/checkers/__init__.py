"""The invariants, each with a checker of its own: it hears what happens and says what was broken.

A checker sees what a user or a guest could see, and at the end what is on the nodes' disks.
`answers` has those of what guests are told, `state` those of what the lab keeps and does.
"""

from collections.abc import Sequence
from typing import Final

from netemu.simulation.checkers import answers, state
from netemu.simulation.checkers.checker import COMES_BACK, LIVELY_WITHIN, Checker, in_effect, parsed
from netemu.simulation.checkers.state import Lively, OneClock

__all__ = [
    "ALL",
    "COMES_BACK",
    "LIVELY_WITHIN",
    "Checker",
    "Lively",
    "OneClock",
    "in_effect",
    "parsed",
]

ALL: Final[Sequence[type[Checker]]] = (
    state.Acknowledged,
    state.FaultsKept,
    answers.NeverBack,
    answers.SameBytes,
    state.Feed,
    answers.Whole,
    answers.NotEarly,
    answers.Itself,
    answers.NotStale,
    state.Once,
    Lively,
    state.OnOneNode,
    OneClock,
    state.NothingHidden,
)
