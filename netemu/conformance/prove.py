"""Plays rows in weak labs: a row that never fails proves nothing.

A row fails if its verdict differs from the policy's. That the honest guest suffers does not count.
A lab that an attack has spoilt is built again, so that no row fails because of the one before it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from netemu.client import labs
from netemu.conformance import weakened
from netemu.conformance.labstage import Ground, running
from netemu.conformance.row import ALLOWED, FAILED, Result, Row
from netemu.conformance.suite import play
from netemu.topology import Lab, Policy


def _of_the_sandbox(lab: str, target: str) -> dict[str, int]:
    """A target's network namespace, with the supervisor's own namespaces of all other kinds."""
    return {**labs.enter(lab, None), "net": labs.enter(lab, target)["net"]}


LABS: Final[dict[str, Ground]] = {
    "responder": Ground(weakened.without(weakened.responder)),
    "guard": Ground(weakened.without(*weakened.GUARD)),
    "ingress list": Ground(weakened.without(weakened.ingress)),
    "egress list": Ground(weakened.without(weakened.egress)),
    "marks": Ground(weakened.without(weakened.marks)),
    "guard and marks": Ground(weakened.without(*weakened.GUARD, weakened.marks)),
    "settings": Ground(weakened.without(weakened.settings)),
    "resets": Ground(weakened.without(weakened.resets)),
    "plain bridge": Ground(
        weakened.without(
            *weakened.GUARD, weakened.settings, weakened.bridge, weakened.listener, weakened.resets
        )
    ),
    "namespaces": Ground(enter=_of_the_sandbox),
}
"""The labs of the proof, named after what they lack."""

Numbered = Sequence[tuple[str, Row]]


@dataclass(frozen=True, slots=True)
class Proof:
    """The results of the rows in each lab, by the row's number."""

    rows: Numbered
    policy: Policy
    verdicts: dict[str, dict[str, Result]]

    def fails(self, row: Row) -> list[str]:
        """The labs in which the row was seen to fail."""
        return [
            name
            for name, results in self.verdicts.items()
            if row.id in results and wrong(results[row.id])
        ]

    def unproven(self) -> list[Row]:
        """The rows that failed in no lab, without a reason for it.

        What a policy allows does not fail when a protection is missing.
        """
        return [
            row
            for _, row in self.rows
            if not self.fails(row)
            and not row.held_by_kernel
            and row.expected(self.policy) != ALLOWED
        ]


def wrong(result: Result) -> bool:
    """Whether the verdict is a wrong one; a row that could not be played is not wrong."""
    return result.observed not in (result.expected, FAILED)


def prove(
    lab: Lab,
    rows: Numbered,
    *,
    time_scale: float,
    each_once: bool = False,
    grounds: Mapping[str, Ground] = LABS,
    on_result: Callable[[str, Result], None] = lambda _name, _result: None,
) -> Proof:
    """Play the rows in each of `grounds`. `lab` gives its shape, name and policy.

    With `each_once` a row that has failed is not played again. That shows much sooner that every
    row can fail, but not on which protections each depends.
    """
    verdicts: dict[str, dict[str, Result]] = {}
    to_play = list(rows)
    for name, ground in grounds.items():
        told: dict[str, Result] = {}

        def hear(result: Result, name: str = name) -> None:
            on_result(name, result)

        rest = list(to_play)
        while rest:
            with running(lab, time_scale, ground) as stage:
                results = play(stage, rest, hear, until_spoiled=True)
            told.update((result.row.id, result) for result in results)
            rest = rest[len(results) :]
        verdicts[name] = told
        if each_once:
            to_play = [(family, row) for family, row in to_play if not wrong(told[row.id])]
    return Proof(rows, lab.policy, verdicts)
