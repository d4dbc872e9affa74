"""What was seen of one row's play. Pure values; all times are seconds since 1970."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

DRAINED: Final = "drained"
RETURNED: Final = "returned"


@dataclass(frozen=True, slots=True)
class Mark:
    """A line of a guest's journal: see `in_guest`."""

    guest: str
    at: float
    what: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was answered, as the responder's log has it."""

    guest: str
    at: float
    method: str
    target: str
    status: int


@dataclass(frozen=True, slots=True)
class Happened:
    """An event of a play at its end. `label` is its name in the story.

    `told`: which guests were told of it, and first when.
    """

    label: str
    guests: tuple[str, ...]
    created: float
    not_before: float
    started: float | None
    ended: float | None
    approved: float | None = None
    approved_by: str | None = None
    told: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that the story did to the agent or its surroundings."""

    name: str
    at: float


@dataclass(slots=True)
class Record:
    """All that is known of a play.

    `poll` is the seconds between two of the agent's requests. `begun` is when the story begins.
    """

    poll: float
    begun: float
    closed: float = 0.0
    watches_at_wire: bool = True
    marks: list[Mark] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    events: dict[str, Happened] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)

    @property
    def patience(self) -> float:
        """Seconds within which the agent has to act on what it is told: two polls, and 5 s."""
        return 2 * self.poll + 5.0

    def at(self, name: str) -> float:
        """When the story's moment was: the last of this name."""
        return next(one.at for one in reversed(self.moments) if one.name == name)

    def first(self, guest: str, what: str, since: float, until: float | None = None) -> Mark | None:
        """Return the guest's first such mark in a span."""
        return next(self._of(guest, what, since, until), None)

    def _of(self, guest: str, what: str, since: float, until: float | None) -> Iterator[Mark]:
        return (
            one
            for one in sorted(self.marks, key=lambda one: one.at)
            if one.guest == guest
            and one.what == what
            and one.at >= since
            and (until is None or one.at <= until)
        )

    def out(self, guest: str, at: float) -> bool:
        """Whether the guest had drained, and not come back, at a time."""
        states = [
            one.what == DRAINED
            for one in sorted(self.marks, key=lambda one: one.at)
            if one.guest == guest and one.what in (DRAINED, RETURNED) and one.at <= at
        ]
        return bool(states) and states[-1]

    def asked(self, guest: str, since: float, until: float) -> list[Request]:
        """Return the guest's requests in a span."""
        return [one for one in self.requests if one.guest == guest and since <= one.at <= until]

    def running(self, guest: str, at: float) -> str | None:
        """How the agent had ended at a time: its exit code, or "killed"; None: it ran."""
        last = None
        for one in sorted(self.marks, key=lambda one: one.at):
            if one.guest == guest and one.at <= at and one.what in ("started", "ended", "killed"):
                last = one
        if last is None or last.what == "started":
            return None
        return last.text if last.what == "ended" else "killed"
