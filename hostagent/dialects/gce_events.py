"""What GCE tells a guest of its events: `maintenance-event`, `upcoming-maintenance`, `preempted`,
`shutdown-details`. Pure.
"""

from typing import Final

from hostagent import model
from hostagent.model import (
    FINAL,
    Event,
    EventStatus,
    EventType,
    Guest,
    View,
)
from hostagent.properties import value
from hostagent.times import to_seconds

NOTICE: Final = 60.0
"""Seconds before maintenance from which it is shown."""

WINDOW: Final = 4 * 3600.0
"""Seconds of a maintenance window whose end is not known: as in field reports."""

_PHASES: Final = 1 << 16
"""More than the moments that can pass between two changes: three for each event of a node."""

_REASONS: Final = {
    EventType.FREEZE: "PLANNED_UPDATE",
    EventType.REBOOT: "PLANNED_UPDATE",
    EventType.REDEPLOY: "FAILURE_INFRA",
    EventType.TERMINATE: "INFRASTRUCTURE_RELOCATION",
}
_NOTIFIED: Final = ("a3-", "a4-", "a4x-", "ct", "h4d-", "x4-", "z3-")
_METAL: Final = "-metal"
"""Machine types to which GCE announces maintenance: beginnings of their names, and an end."""


def notice(guest: Guest) -> float:
    """Return the seconds before a preemption from which `preempted` is TRUE."""
    return float(value(guest, "preemption_notice"))


def next_moment(view: View, now: float) -> float:
    """Return when what is shown of the events next changes by itself."""
    return min(model.boundary(view, now, NOTICE), model.boundary(view, now, notice(view.guest)))


def etag(view: View, now: float) -> str:
    """Return 16 hexadecimal digits that grow with every change, by command, by time, or by what
    the guest writes.
    """
    lead = notice(view.guest)
    phase = sum(_passed(model.at(event, now), now, lead) for event in view.events)
    return f"{view.revision * _PHASES + phase:016x}"


def _passed(event: Event, now: float, preemption: float) -> int:
    lead = preemption if event.type is EventType.PREEMPT else NOTICE
    return (
        (now >= event.not_before - lead or event.status is not EventStatus.SCHEDULED)
        + (event.status is not EventStatus.SCHEDULED)
        + (event.status in FINAL)
    )


def maintenance(view: View, now: float) -> str:
    """Return `maintenance-event`."""
    for event in view.own(now):
        if event.type is EventType.PREEMPT:
            continue
        started = event.status is EventStatus.STARTED
        due = event.status is EventStatus.SCHEDULED and now >= event.not_before - NOTICE
        if started or due:
            freeze = event.type is EventType.FREEZE
            return f"{'MIGRATE' if freeze else 'TERMINATE'}_ON_HOST_MAINTENANCE"
    return "NONE"


def preempted(view: View, now: float) -> str:
    """Return `preempted`."""
    lead = notice(view.guest)
    for event in view.own(now):
        if event.type is EventType.PREEMPT:
            due = event.status is EventStatus.SCHEDULED and now >= event.not_before - lead
            if due or event.status is EventStatus.STARTED:
                return "TRUE"
    return "FALSE"


def upcoming(view: View, now: float) -> dict[str, str | tuple[str, ...]] | None:
    """Return `upcoming-maintenance`: the first that has not ended, or the last that was completed;
    None if there is none.
    """
    events = [one for one in view.own(now) if one.type in _REASONS]
    ended = [one for one in view.own_history() if one.type in _REASONS]
    told = [one for one in events if one.status not in FINAL]
    told += [one for one in (*events, *ended) if one.status in FINAL - {EventStatus.CANCELLED}]
    if not told:
        return None
    event = told[0]
    pending = event.status is EventStatus.SCHEDULED
    start = event.started or event.not_before
    end = event.ended or start + (WINDOW if event.duration is None else event.duration)
    planned = event.created < event.not_before and event.source is model.EventSource.PLATFORM
    return {
        "can-reschedule": "true" if pending and planned else "false",
        "latest-window-start-time": to_seconds(event.not_before),
        "maintenance-reasons": (_REASONS[event.type],),
        "maintenance-status": "PENDING"
        if pending
        else "COMPLETE"
        if event.status in FINAL
        else "ONGOING",
        "type": "SCHEDULED" if planned else "UNSCHEDULED",
        "window-end-time": to_seconds(end),
        "window-start-time": to_seconds(start),
    }


def is_notified(guest: Guest) -> bool:
    """Whether GCE announces upcoming maintenance to machines of the guest's type."""
    machine_type = value(guest, "machine_type")
    return machine_type.startswith(_NOTIFIED) or machine_type.endswith(_METAL)


def shutdown_details(view: View, now: float) -> dict[str, str | int] | None:
    """Return `shutdown-details`; None if the guest is not about to be stopped."""
    for event in view.own(now):
        if event.type is EventType.TERMINATE and event.status not in FINAL:
            pending = event.status is EventStatus.SCHEDULED
            return {
                "max-duration": round(max(event.not_before - event.created, 0.0)),
                "request-timestamp": to_seconds(event.created),
                "stop-state": "PENDING_STOP" if pending else "STOPPING",
                "target-state": "DELETED",
            }
    return None
