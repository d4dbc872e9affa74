"""Plays rows on a stage, one after the other, and returns the result of each."""

import time
from collections.abc import Callable, Iterable

from netemu.conformance.labstage import LabStage
from netemu.conformance.row import FAILED, Later, Observed, Result, Row
from netemu.conformance.stage import Stage
from netemu.errors import NotSo

# Frames sent that a result keeps: enough to see what they were.
_SENT_KEPT = 50

Rows = Iterable[tuple[str, Row]]
"""(family, row)"""


def play(
    stage: Stage,
    rows: Rows,
    on_result: Callable[[Result], None] = lambda _: None,
    *,
    until_spoiled: bool = False,
) -> list[Result]:
    """Play `rows`, and return their results in order; `on_result` gets each as it comes.

    With `until_spoiled` nothing is played after a row that leaves the lab unable to serve the
    honest guest: then there are fewer results. An attack that takes long is begun in its turn, and
    looked at again at the end.
    """
    results: dict[str, Result] = {}
    waiting: list[tuple[str, Row, Later, list[bytes], float]] = []

    def settle(family: str, row: Row, seen: Observed, control: bool, spent: float) -> None:
        result = Result(
            row=row,
            family=family,
            policy=stage.policy,
            expected=row.expected(stage.policy),
            observed=seen.verdict,
            control=control,
            evidence=tuple(seen.evidence),
            sent=tuple(stage.sent[:_SENT_KEPT]),
            said=tuple(stage.said),
            capture=tuple(stage.capture),
            frames=tuple(seen.frames),
            seconds=spent,
        )
        results[row.id] = result
        on_result(result)

    order = list(rows)
    for number, (family, row) in enumerate(order):
        begun = time.monotonic()
        stage.begin(row, number)
        seen, during = _attack(stage, row)
        if callable(seen):
            waiting.append((family, row, seen, stage.said, time.monotonic() - begun))
            continue
        control = during and stage.control()
        if not during or not control:
            seen.evidence.append("the honest guest was not answered meanwhile or after")
        well = control and seen.verdict != FAILED and stage.well()
        healed = well or stage.heal()
        settle(family, row, seen, control, time.monotonic() - begun)
        if until_spoiled and not healed:
            break
    for family, row, later, said, spent in waiting:
        begun = time.monotonic()
        stage.begin(row, len(order))
        stage.said = said
        try:
            seen = later()
        except NotSo as error:
            seen = Observed(FAILED, [str(error)])
        settle(family, row, seen, stage.control(), spent + time.monotonic() - begun)
    return [results[row.id] for _, row in order if row.id in results]


def _attack(stage: Stage, row: Row) -> tuple[Observed | Later, bool]:
    """Play the row while the honest guest asks. Returns the outcome, and whether the guest was
    answered.
    """
    stage.begin_control()
    try:
        if row.in_lab is None:
            seen = row.play(stage)
        elif isinstance(stage, LabStage):
            seen = row.in_lab(stage)
        else:
            seen = Observed(FAILED, ["it needs a lab"])
    except NotSo as error:
        seen = Observed(FAILED, [str(error)])
    return seen, stage.end_control()
