"""The invariants: judged from what was acknowledged and what guests were told.

Pure: observations go in, breaches come out, each with its witness.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

ACKNOWLEDGED: Final = "an acknowledged command is there exactly once"
NEVER_BACK: Final = "an incarnation never goes back"
SAME_BYTES: Final = "the same incarnation has the same bytes"
OWN_ANSWER: Final = "a guest is answered as itself"
ONCE: Final = "an event starts and ends once"
SETTINGS: Final = "an acknowledged setting is what the guest is told"
LIVENESS: Final = "after the last fault every guest is bound and answered"
SERVICES: Final = "after the last fault every service runs"
STANDING: Final = "the lab still answers"
FLAT: Final = "memory and open files do not grow"
FLAT_SAMPLES: Final = 120
"""Samples, a second apart, below which growth cannot be told from what a start needs."""

NEIGHBOURS: Final = "a guest that attacks nobody is answered each time"
PROMPT: Final = "it is answered as promptly as in quiet"
APART: Final = "it hears no frame of an attacker's"
OF_HOSTILE: Final = (NEIGHBOURS, PROMPT, APART, OWN_ANSWER, LIVENESS, SERVICES, STANDING, FLAT)
"""The invariants of a run with hostile guests."""

LONGEST_LOG: Final = 16 << 20
"""Bytes; a lab's log is cut there."""

# The limit of promptness: three times as long. Below a few turns of a core a time says nothing.
_TIMES_QUIET, _TURN = 3.0, 0.2
# What may remain after attacks: KiB that an allocator keeps, descriptors in use.
_KEPT, _UNDER_WAY = 16384, 32

ALL: Final = (
    *(ACKNOWLEDGED, NEVER_BACK, SAME_BYTES, OWN_ANSWER, ONCE, SETTINGS, LIVENESS),
    *(SERVICES, STANDING, FLAT),
)


@dataclass
class Judge:
    """Takes observations as they come, and keeps the breaches."""

    breaches: list[tuple[str, str]] = field(default_factory=list)
    _incarnations: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def breach(self, invariant: str, witness: str) -> None:
        """Note that an invariant is broken."""
        self.breaches.append((invariant, witness))

    def broken(self) -> Counter[str]:
        """How often each invariant was broken."""
        return Counter(invariant for invariant, _ in self.breaches)

    def answered(self, guest: str, identity: str) -> None:
        """A guest was answered with the ID `identity`, as Azure's first API says it."""
        if identity != f"_{guest}":
            self.breach(OWN_ANSWER, f"{guest} was answered as {identity!r}")

    def told(self, guest: str, incarnation: int, document: bytes) -> None:
        """A guest was told its scheduled events; calls come in the order of the answers."""
        before, bytes_before = self._incarnations.get(guest, (incarnation, document))
        if incarnation < before:
            self.breach(NEVER_BACK, f"{guest}: {before}, then {incarnation}")
        elif incarnation == before and document != bytes_before:
            witness = f"{guest}: {incarnation}: {bytes_before!r}, then {document!r}"
            self.breach(SAME_BYTES, witness)
        self._incarnations[guest] = incarnation, document

    def events(self, acknowledged: Mapping[str, list[str]], there: Mapping[str, list[str]]) -> None:
        """At the end: guests by event ID, of what was acknowledged and of what there is."""
        for event, guests in acknowledged.items():
            if event not in there:
                self.breach(ACKNOWLEDGED, f"event {event} of {', '.join(guests)} is gone")
            elif Counter(there[event]) != Counter(guests):
                witness = f"event {event}: {guests} acknowledged, {there[event]} there"
                self.breach(ACKNOWLEDGED, witness)

    def log(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """At the end: the lab's event log."""
        seen = Counter(
            (entry.get("id"), entry.get("status"))
            for entry in entries
            if entry.get("what") == "event"
        )
        for (event, status), times in seen.items():
            if times > 1 and status is not None:
                self.breach(ONCE, f"event {event} was {status} {times} times")

    def settings(self, guest: str, possible: set[str], told: str | None) -> None:
        """At the end: the value that the guest has, and those that it may have.

        The last acknowledged one, and those sent later that nobody refused for certain.
        """
        if told not in possible:
            self.breach(SETTINGS, f"{guest}: {told!r}, not {' or '.join(sorted(possible))}")

    def grown(self, before: tuple[int, int], after: tuple[int, int]) -> None:
        """At the end: memory in KiB and open files of the supervisor, before and after attacks."""
        if after[0] > before[0] * 1.15 + _KEPT:
            self.breach(FLAT, f"memory: {before[0]} KiB, later {after[0]}")
        if after[1] > before[1] + _UNDER_WAY:
            self.breach(FLAT, f"open files: {before[1]}, later {after[1]}")

    def sizes(self, samples: Sequence[tuple[int, int]]) -> None:
        """At the end: memory in KiB and open files of the supervisor, in order, evenly spaced.

        The last quarter is held against the second. Too short a run says nothing.
        """
        quarter = len(samples) // 4
        if quarter < FLAT_SAMPLES // 4:
            return
        early, late = samples[quarter : 2 * quarter], samples[-quarter:]
        memory = [median(one for one, _ in part) for part in (early, late)]
        files = [median(one for _, one in part) for part in (early, late)]
        if memory[1] > memory[0] * 1.15 + 4096:
            self.breach(FLAT, f"memory: {memory[0]:.0f} KiB, later {memory[1]:.0f}")
        if files[1] > files[0] + 16:
            self.breach(FLAT, f"open files: {files[0]:.0f}, later {files[1]:.0f}")


def slowest(times: Sequence[float]) -> float:
    """The 99th percentile, in seconds; 0 of none."""
    return sorted(times)[len(times) * 99 // 100] if times else 0.0


def prompt(quiet: Sequence[float], attacked: Sequence[float]) -> bool:
    """Whether answers came as promptly while guests attacked as before."""
    return slowest(attacked) <= max(_TIMES_QUIET * slowest(quiet), _TURN)
