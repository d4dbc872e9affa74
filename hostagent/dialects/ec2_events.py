"""Events in EC2's instance metadata: scheduled maintenance, spot, rebalance. Pure."""

import json
from datetime import UTC, datetime
from typing import Final, TypeAlias

from hostagent.model import (
    FINAL,
    MAX_ACTIVITY,
    Event,
    EventSource,
    EventStatus,
    EventType,
    View,
    concerns,
)

SPOT_NOTICE: Final = 120.0
"""Seconds before an interruption from which it is shown."""

Tree: TypeAlias = "dict[str, Tree] | str"
"""Directories and texts."""

_CODES: Final = {
    EventType.FREEZE: ("system-maintenance", "scheduled maintenance"),
    EventType.REBOOT: ("system-reboot", "scheduled reboot"),
    EventType.REDEPLOY: ("instance-stop", "The instance is running on degraded hardware"),
    EventType.TERMINATE: ("instance-retirement", "The instance is running on degraded hardware"),
}


def events_tree(view: View, events: list[Event]) -> Tree:
    """Return the tree below `events`; `events` are the guest's own, as they are now."""
    mine = [event for event in view.history if concerns(event, view.guest.name)]
    tree: dict[str, Tree] = {
        "maintenance": {
            "history": _maintenance([*(event for event in events if event.status in FINAL), *mine]),
            "scheduled": _maintenance([event for event in events if event.status not in FINAL]),
        }
    }
    for event in events:
        if event.type is EventType.PREEMPT and event.status not in FINAL:
            notice = f'{{"noticeTime": "{iso(event.created)}"}}'
            tree["recommendations"] = {"rebalance": notice}
            break
    return tree


def _maintenance(events: list[Event]) -> str:
    told = ", ".join(_scheduled(event) for event in events if event.type in _CODES)
    return f"[{told}]"


def _scheduled(event: Event) -> str:
    code, words = _CODES[event.type]
    if event.type is EventType.REBOOT and event.source is EventSource.USER:
        code = "instance-reboot"
    state, prefix = {
        EventStatus.CANCELLED: ("canceled", "[Canceled] "),
        EventStatus.COMPLETED: ("completed", "[Completed] "),
        EventStatus.EXPIRED: ("completed", "[Completed] "),
    }.get(event.status, ("active", ""))
    length = MAX_ACTIVITY if event.duration is None else event.duration
    members = {
        "NotBefore": _date(event.not_before),
        "Code": code,
        "Description": prefix + (event.description or words),
        "EventId": f"instance-event-{event.id.replace('-', '')[:17]}",
        "NotAfter": _date(event.not_before + length),
        "State": state,
    }
    told = ", ".join(f'"{name}" : {json.dumps(text)}' for name, text in members.items())
    return f"{{{told}}}"


def spot_tree(events: list[Event], now: float) -> dict[str, Tree]:
    """Return the tree below `spot`: empty unless an interruption is near."""
    for event in events:
        if event.type is not EventType.PREEMPT or event.status in FINAL:
            continue
        if event.status is EventStatus.STARTED or now >= event.not_before - SPOT_NOTICE:
            when = iso(event.started or event.not_before)
            return {
                "instance-action": f'{{"action": "terminate", "time": "{when}"}}',
                "termination-time": when,
            }
    return {}


def iso(epoch: float) -> str:
    """Return `2019-01-21T09:00:43Z`."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_MONTHS: Final = "JanFebMarAprMayJunJulAugSepOctNovDec"


def _date(epoch: float) -> str:
    """Return `21 Jan 2019 09:00:43 GMT`, in English in any locale."""
    when = datetime.fromtimestamp(min(epoch, 253402300799), UTC)
    month = _MONTHS[3 * when.month - 3 : 3 * when.month]
    return f"{when.day:02} {month} {when.year} {when:%H:%M:%S} GMT"
