"""Proves that rows can fail: each is played with bad agents in turn, until one fails it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from netemu.conformance.agent import own
from netemu.conformance.agent.play import Outcome, play
from netemu.conformance.agent.row import Row


@dataclass(frozen=True, slots=True)
class Proof:
    """The outcomes of the bad agents, by their names."""

    rows: Sequence[Row]
    outcomes: dict[str, list[Outcome]]

    def unproven(self) -> list[Row]:
        """The rows that no bad agent has failed."""
        failed = {one.row.id for each in self.outcomes.values() for one in each if not one.ok}
        return [row for row in self.rows if row.id not in failed]


def prove(rows: Sequence[Row], on_done: Callable[[str, Outcome], None]) -> Proof:
    """Play the rows with the bad agents, one after the other; a row that has failed is proven."""
    proof = Proof(rows, {name: [] for name in own.BAD})
    for name in own.BAD:
        left = proof.unproven()
        for cloud in dict.fromkeys(row.cloud for row in left):
            agent = own.of(name, cloud)
            of_cloud = [row for row in left if row.cloud == cloud]

            def done(outcome: Outcome, name: str = name) -> None:
                on_done(name, outcome)

            proof.outcomes[name] += play(agent, of_cloud, on_done=done)
    return proof
