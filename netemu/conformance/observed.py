"""The outcome of an attack: the verdict and the evidence, as values."""

from dataclasses import dataclass, field
from typing import Final

# Verdicts that many rows share; others are words of their own, such as an HTTP status.
DROPPED: Final = "dropped"  # nobody saw any of it
ALLOWED: Final = "allowed"  # somebody did
LIMITED: Final = "limited"  # somebody did, within a limit that the row states
ANSWERED: Final = "answered"
REFUSED: Final = "refused"
FAILED: Final = "failed"  # the row could not be played: the lab is not as it should be


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame, and the place that sent it or saw it."""

    place: str
    data: bytes


@dataclass(slots=True)
class Observed:
    """The outcome of an attack: a verdict, and what it is based on."""

    verdict: str
    evidence: list[str] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
