"""Plays rows on a stage, one after the other, and says what came of each."""

import time
from collections.abc import Callable, Iterable

from netemu.conformance.row import FAILED, Later, Observed, Result, Row
from netemu.conformance.stage import Stage
from netemu.errors import NotSo

Rows = Iterable[tuple[str, Row]]
"""(family, row)"""


def play(
    stage: Stage,
    rows: Rows,
    on_result: Callable[[Result], None] = lambda _: None,
    *,
    keep_frames: bool = False,
) -> list[Result]:
    """Play `rows`, and give a result each, in their order; `on_result` hears of each as it comes.

    What takes its time is begun in its turn and looked at again at the end.
    """
    results: dict[str, Result] = {}
    waiting: list[tuple[str, Row, Later, tuple[bytes, ...], float]] = []

    def settle(family: str, row: Row, seen: Observed, control: bool, spent: float) -> None:
        result = Result(
            row=row,
            family=family,
            policy=stage.policy,
            expected=row.expected(stage.policy),
            observed=seen.verdict,
            control=control,
            evidence=tuple(seen.evidence),
            sent=tuple(stage.sent[:20]),
            frames=tuple(seen.frames),
            seconds=spent,
        )
        results[row.id] = result
        on_result(result)

    order = list(rows)
    for number, (family, row) in enumerate(order):
        begun = time.monotonic()
        stage.begin(number * 10)
        seen, during = _attack(stage, row)
        if callable(seen):
            waiting.append((family, row, seen, tuple(stage.sent), time.monotonic() - begun))
            continue
        control = during and stage.control()
        if not during or not control:
            seen.evidence.append("the honest guest was not answered meanwhile or after")
        if not control or seen.verdict == FAILED:
            stage.heal()
        settle(family, row, seen, control, time.monotonic() - begun)
    for family, row, later, sent, spent in waiting:
        begun = time.monotonic()
        stage.sent = list(sent)
        try:
            seen = later()
        except NotSo as error:
            seen = Observed(FAILED, [str(error)])
        settle(family, row, seen, stage.control(), spent + time.monotonic() - begun)
    return [results[row.id] for _, row in order]


def _attack(stage: Stage, row: Row) -> tuple[Observed | Later, bool]:
    """Play the row, while the honest guest asks; what came of it, and whether he was answered."""
    stage.begin_control()
    try:
        seen = row.play(stage, row)
    except NotSo as error:
        seen = Observed(FAILED, [str(error)])
    return seen, stage.end_control()
