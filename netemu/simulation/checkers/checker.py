"""What a checker hears, and the times that it allows."""

import json
from typing import TYPE_CHECKING, Any, Final

from hostagent.faults import Fault
from hostagent.model import Event
from netemu.supervisor.guests.power import demands_until

if TYPE_CHECKING:
    from netemu.simulation.cluster import Cluster

LIVELY_WITHIN: Final = 60.0
"""Seconds after the last fault within which the lab must be well again."""

COMES_BACK: Final = 5.0
"""Seconds after an event within which its guests must run again: they move, boot, and claim."""


class Checker:
    """Hears what happens; `breaches` are what was seen, in words."""

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster = cluster
        self.breaches: list[str] = []

    def breach(self, witness: str) -> None:
        """Note what was seen, and when."""
        self.breaches.append(f"at {self.cluster.loop.time():.3f}: {witness}")

    def acknowledged(self, event: Event) -> None:
        """An agent has acknowledged a new event."""

    def refused(self, event_id: str) -> None:
        """An agent has refused to plan an event."""

    def approved(self, event_id: str) -> None:
        """A guest's approval was answered with success."""

    def started(self, event_id: str) -> None:
        """A user has asked that an event starts now."""

    def set_to(self, guest: str, value: str, *, known: bool) -> None:
        """A setting was acknowledged, or it is not `known` whether it was carried out."""

    def set_refused(self, guest: str, value: str) -> None:
        """A setting was refused."""

    def fault_added(self, guest: str, fault: Fault, *, known: bool) -> None:
        """A fault was acknowledged, or it is not `known` whether it was."""

    def faults_cleared(self, guest: str, number: int, *, known: bool) -> None:
        """Request `number`: the end of all faults of a guest was acknowledged, or is asked for."""

    def probed(self, guest: str) -> None:
        """A guest has asked for what its faults are about."""

    def identity(self, guest: str, told: str) -> None:
        """A guest was answered under this name."""

    def document(self, guest: str, document: bytes, told: dict[str, Any]) -> None:
        """A guest was told its scheduled events."""

    def moved(self, to: float) -> None:
        """A user has moved the clock to this many seconds ahead."""

    def restored(self, node: str, ahead: float) -> None:
        """A user was told that a node is back; the clock was so many seconds ahead before."""

    def moment(self) -> None:
        """Some time has passed."""

    def end(self) -> None:
        """All faults are over, and enough time has passed."""


def in_effect(event: Event, now: float) -> bool:
    """Whether an event changes its guests now, or they may still be coming back from it."""
    if event.started is None or event.notice_only:
        return False
    return event.started <= now < demands_until(event) + COMES_BACK


def parsed(document: bytes) -> dict[str, Any]:
    """A document of scheduled events."""
    told: dict[str, Any] = json.loads(document)
    return told
