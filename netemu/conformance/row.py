"""A row of the catalogue, as a value: what is sent, and what each policy has to make of it."""

from collections.abc import Callable
from dataclasses import dataclass

from netemu.conformance.labstage import LabStage
from netemu.conformance.observed import (
    ALLOWED,
    ANSWERED,
    DROPPED,
    FAILED,
    LIMITED,
    REFUSED,
    Frame,
    Observed,
)
from netemu.conformance.stage import Recipe, Stage, Trace
from netemu.topology import Policy

__all__ = [
    "ALLOWED",
    "ANSWERED",
    "DROPPED",
    "FAILED",
    "LIMITED",
    "REFUSED",
    "Frame",
    "Later",
    "Observed",
    "Play",
    "PlayInLab",
    "Recipe",
    "Result",
    "Row",
    "Trace",
    "dropped",
    "watch",
]

Later = Callable[[], Observed]
"""For an attack that takes its time: to be called when all other rows have been played."""

Play = Callable[[Stage], Observed | Later]
PlayInLab = Callable[[LabStage], Observed | Later]


def watch(stage: Stage) -> Observed:
    """Send the recipe's frames, and look whether anybody saw any, or answered."""
    return stage.watch()


@dataclass(frozen=True, kw_only=True)
class Row:
    """One attack.

    A frame of the `recipe` is known again by a token behind it; where what comes of it cannot carry
    that (an answer, a reflection), `trace` tells. `play` is for what needs more than looking;
    `in_lab` for what needs a lab's guests, its responder or its guard. `held_by_kernel` says why a
    row cannot be seen to fail.
    """

    id: str
    title: str
    reference: str
    strict: str  # the verdict under responder-only
    same_node: str
    recipe: Recipe | None = None
    trace: Trace | None = None
    play: Play = watch
    in_lab: PlayInLab | None = None  # in the place of `play`, where more than frames is needed
    held_by_kernel: str = ""

    def expected(self, policy: Policy) -> str:
        """The verdict that the policy asks for."""
        return self.strict if policy is Policy.RESPONDER_ONLY else self.same_node


def dropped(
    row_id: str, title: str, reference: str, recipe: Recipe, trace: Trace | None = None
) -> Row:
    """A row of which nobody may ever see anything, under either policy."""
    return Row(
        id=row_id,
        title=title,
        reference=reference,
        strict=DROPPED,
        same_node=DROPPED,
        recipe=recipe,
        trace=trace,
    )


@dataclass(frozen=True, slots=True)
class Result:
    """A row that was played."""

    row: Row
    family: str
    policy: Policy
    expected: str
    observed: str
    control: bool  # the honest guest was answered during and after
    evidence: tuple[str, ...]
    sent: tuple[bytes, ...]  # frames, the first of them
    said: tuple[bytes, ...]  # requests
    frames: tuple[Frame, ...]  # what the verdict rests on
    capture: tuple[Frame, ...]  # what was heard meanwhile, the first of it
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the network did what its policy asks for, and harmed nobody."""
        return self.observed == self.expected and self.control
