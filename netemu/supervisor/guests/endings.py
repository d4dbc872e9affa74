"""How a guest is ended: asked first and given a grace period, or at once. Pure.

A cloud that shuts a machine down presses its power button: its init asks the programs to end,
waits, and ends those that have not. A power cut asks nobody.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from hostagent.model import Event, EventSource, EventType
from netemu.topology import SOFT, Guest

HARD: Final = 0.0
"""The grace of a power cut, seconds."""

PREEMPTION: Final = {
    # Compute Engine: an ACPI soft-off, and up to 30 seconds until a mechanical one.
    "gce": 30.0,
    # EC2: an interruption shuts the operating system down.
    "ec2": SOFT,
    # Azure: the notice is all that there is.
    "azure": HARD,
    "azure-v1": HARD,
    # OpenStack tells of none.
    "openstack": SOFT,
}
"""The grace of a guest that is preempted, by the dialect that its node speaks first."""


class Ending(msgspec.Struct, frozen=True):
    """What a guest's programs did: who ended by itself, after how many seconds; who was killed.

    `after` is how long all of it took. Of many programs the last are named.
    """

    ended: Sequence[tuple[str, float]]
    killed: Sequence[str]
    after: float

    def __str__(self) -> str:
        ended = ", ".join(f"{name} ({seconds:g} s)" for name, seconds in self.ended)
        killed = f"killed after {self.after:g} s: {', '.join(self.killed)}" if self.killed else ""
        return "; ".join(filter(None, [ended and f"ended by itself: {ended}", killed]))


def grace_of(event: Event, guest: Guest, dialect: str) -> float:
    """The seconds that an event gives the guest's programs: the lab file's, or those of the cloud.

    A platform that gives no notice has not planned the end: its hardware fails.
    """
    if guest.shutdown is not None:
        return guest.shutdown
    if event.source is EventSource.PLATFORM and event.not_before <= event.created:
        return HARD
    return PREEMPTION[dialect] if event.type is EventType.PREEMPT else SOFT


def grace_of_reboot(guest: Guest) -> float:
    """The seconds that a guest's programs have when somebody reboots it."""
    return SOFT if guest.shutdown is None else guest.shutdown
