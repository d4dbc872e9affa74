"""A row of the catalogue, as a value: what is sent, and the verdict that each policy expects."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

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
    "refused",
    "watch",
]

Later = Callable[[], Observed]
"""For an attack that takes long: called when all other rows have been played."""

Play = Callable[[Stage], Observed | Later]
PlayInLab = Callable[[LabStage], Observed | Later]


def watch(stage: Stage) -> Observed:
    """Send the recipe's frames, and see whether anybody receives or answers them."""
    return stage.watch()


@dataclass(frozen=True)
class Row:
    """One attack.

    A frame of the `recipe` is recognised by a token behind it. `trace` recognises results that
    cannot carry the token (an answer, a reflection). `play` is for attacks that need more than
    watching, `in_lab` for those that need a lab's guests, responder or guard. `held_by_kernel` says
    why a row cannot be seen to fail.
    """

    id: str
    title: str
    reference: str
    strict: str = DROPPED  # the verdict under responder-only
    same_node: str = ""  # if that is another under the other policy
    _: KW_ONLY
    recipe: Recipe | None = None
    trace: Trace | None = None
    play: Play = watch
    in_lab: PlayInLab | None = None  # instead of `play`, for what needs a lab
    held_by_kernel: str = ""

    @property
    def only_sends(self) -> bool:
        """Whether it sends what its recipe gives, and does nothing else: a machine can play it."""
        return self.recipe is not None and self.in_lab is None

    def expected(self, policy: Policy) -> str:
        """The verdict that the policy expects."""
        return self.same_node if policy is Policy.SAME_NODE and self.same_node else self.strict


def dropped(
    row_id: str, title: str, reference: str, recipe: Recipe, trace: Trace | None = None
) -> Row:
    """A row whose frames nobody may ever see, under either policy."""
    return Row(row_id, title, reference, recipe=recipe, trace=trace)


def refused(number: int, title: str, reference: str, in_lab: PlayInLab, *, held: str = "") -> Row:
    """A row whose attack is refused, under either policy; `held` says why it cannot fail."""
    return Row(str(number), title, reference, REFUSED, in_lab=in_lab, held_by_kernel=held)


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
        """Whether the verdict is the expected one, and the honest guest was served."""
        return self.observed == self.expected and self.control
