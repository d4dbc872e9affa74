"""What an event does to a guest: its power, and how it gets from one state to the next. Pure.

An event demands a power of each of its guests from when it starts until it ends; one of unknown
duration, for as long as the table `HOLDS` says. Of several demands the severest is met. Times are
seconds since the epoch on the metadata plane's clock.
"""

from collections.abc import Iterable
from enum import StrEnum
from math import inf
from typing import Final

from hostagent.model import Event, EventStatus, EventType


class Power(StrEnum):
    """Whether a guest runs."""

    RUNNING = "running"
    FROZEN = "frozen"  # its processes are stopped, and its wires are silent
    OFF = "off"  # nothing runs, and its links are down
    GONE = "gone"  # for good


class Action(StrEnum):
    """A change of a guest's power, or of its node."""

    FREEZE = "freeze"
    THAW = "thaw"
    SHUT_DOWN = "shut-down"
    BOOT = "boot"
    REMOVE = "remove"
    MOVE = "move"  # to another node, while it is off


SEVERITY: Final = {power: place for place, power in enumerate(Power)}

TRANSITIONS: Final = {
    (Power.RUNNING, Power.FROZEN): (Action.FREEZE,),
    (Power.RUNNING, Power.OFF): (Action.SHUT_DOWN,),
    (Power.RUNNING, Power.GONE): (Action.SHUT_DOWN, Action.REMOVE),
    (Power.FROZEN, Power.RUNNING): (Action.THAW,),
    (Power.FROZEN, Power.OFF): (Action.SHUT_DOWN,),
    (Power.FROZEN, Power.GONE): (Action.SHUT_DOWN, Action.REMOVE),
    (Power.OFF, Power.RUNNING): (Action.BOOT,),
    (Power.OFF, Power.FROZEN): (Action.BOOT, Action.FREEZE),
    (Power.OFF, Power.GONE): (Action.REMOVE,),
}
"""The actions from one power to another. Pairs that are missing are impossible: a guest never
returns from GONE.
"""

DEMANDS: Final = {
    EventType.FREEZE: Power.FROZEN,
    EventType.REBOOT: Power.OFF,
    EventType.REDEPLOY: Power.OFF,
    EventType.PREEMPT: Power.GONE,
    EventType.TERMINATE: Power.GONE,
}

HOLDS: Final = {
    # Clouds document a pause of some seconds.
    EventType.FREEZE: 5.0,
    # As long as the guest takes to boot.
    EventType.REBOOT: 0.0,
    EventType.REDEPLOY: 0.0,
    EventType.PREEMPT: inf,
    EventType.TERMINATE: inf,
}
"""Seconds for which an event of unknown duration demands its power."""

LINGERS: Final = {
    EventType.FREEZE: 0.0,
    # A guest that has booted can find out why: its agent has started, and asks.
    EventType.REBOOT: 60.0,
    EventType.REDEPLOY: 60.0,
    EventType.PREEMPT: 0.0,
    EventType.TERMINATE: 0.0,
}
"""Seconds from when an event of unknown duration has been carried out until it is completed."""


READING: Final = 1.0
"""Seconds from an approval until its effect begins: a guest that approves can read the answer, and
write down that it did."""


def effective(event: Event) -> float:
    """When a started event's effect begins: at once, or a while after the approval that began it.

    One that has started before its time was approved, or was started by its operator.
    """
    if event.started is None:
        return inf
    return event.started + (READING if event.started < event.not_before else 0.0)


def held_back(event: Event, now: float) -> bool:
    """Whether an event has started, and its effect is still to begin."""
    return event.started is not None and event.started <= now < effective(event)


def demand(event: Event, now: float) -> Power:
    """The power that a started event demands of its guests at `now`; RUNNING means no demand."""
    lasting = event.status is EventStatus.STARTED and not event.notice_only
    if lasting and not held_back(event, now) and now < demands_until(event):
        return DEMANDS[event.type]
    return Power.RUNNING


def demands_until(event: Event) -> float:
    """When, by time alone, a started event stops demanding anything."""
    return effective(event) + (HOLDS[event.type] if event.duration is None else event.duration)


def severest(demands: Iterable[Power]) -> Power:
    """The severest of several demands; RUNNING if there is none."""
    return max(demands, key=SEVERITY.__getitem__, default=Power.RUNNING)


def plan(power: Power, begun: Iterable[EventType], wanted: Power) -> list[Action]:
    """The actions for a guest in the state `power`.

    `begun` are the types of the events that have started and were not carried out yet, in order.
    Each is carried out, even if it is over already; but a guest that is off is not booted to be
    frozen. `wanted` is the power that all events demand now.
    """
    actions: list[Action] = []
    for kind in begun:
        if SEVERITY[DEMANDS[kind]] > SEVERITY[power]:
            actions += TRANSITIONS[power, DEMANDS[kind]]
            power = DEMANDS[kind]
        if kind is EventType.REDEPLOY and power is Power.OFF:
            actions.append(Action.MOVE)
    return actions + list(TRANSITIONS.get((power, wanted), ()))
