"""Events in EC2's instance metadata: scheduled maintenance, spot, rebalance, Auto Scaling. Pure."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from math import inf
from typing import Final, TypeAlias

from hostagent.model import (
    FINAL,
    MAX_ACTIVITY,
    Event,
    EventSource,
    EventStatus,
    EventType,
    Guest,
    View,
    at,
    boundary,
)
from hostagent.properties import value
from hostagent.times import LAST, to_seconds

SPOT_NOTICE: Final = 120.0
"""Seconds before an interruption from which it is shown."""

Tree: TypeAlias = "Entries | str"
"""Directories and texts. A directory's name ends in a slash. What has a cost is made when it is
asked for, as most requests are for one text.
"""
Entries: TypeAlias = "dict[str, Tree | Callable[[], Tree]]"
"""What is in a directory."""

_CODES: Final = {
    EventType.FREEZE: ("system-maintenance", "scheduled maintenance"),
    EventType.REBOOT: ("system-reboot", "scheduled reboot"),
    EventType.REDEPLOY: ("instance-stop", "The instance is running on degraded hardware"),
    EventType.TERMINATE: ("instance-retirement", "The instance is running on degraded hardware"),
}
_OPEN_ENDED: Final = frozenset({"instance-stop", "instance-retirement"})
"""Codes whose notices have no NotAfter in the cloud: the instance does not come back."""


def next_change(view: View, now: float) -> float:
    """Return when, after `now`, time alone next changes what is told of the view's events."""
    changes = [boundary(view, now, _notice(view.guest))]
    for known in view.events:
        event = at(known, now)
        if event.type is EventType.PREEMPT:
            changes.append(_recommended(view.guest, event))
    own = _own_recommendation(view.guest)
    return min((when for when in (*changes, own) if when > now), default=inf)


def events_tree(view: View, events: list[Event], now: float) -> Entries:
    """Return the tree below `events`; `events` are the guest's own, as they are now."""
    guest = view.guest
    ended = [*(event for event in events if event.status in FINAL), *view.own_history()]
    scheduled = [event for event in events if event.status not in FINAL]
    tree: Entries = {
        "maintenance/": {
            "history": _maintenance(guest, ended),
            "scheduled": _maintenance(guest, scheduled),
        }
    }
    own = _own_recommendation(guest)
    times = [_recommended(guest, event) for event in scheduled if event.type is EventType.PREEMPT]
    if came := [when for when in (own, *times) if when <= now]:
        tree["recommendations/"] = {"rebalance": f'{{"noticeTime": "{to_seconds(min(came))}"}}'}
    return tree


def _own_recommendation(guest: Guest) -> float:
    """Return when it is recommended to rebalance, apart from interruptions; infinity if never."""
    told = value(guest, "rebalance")
    return datetime.fromisoformat(told).timestamp() if "T" in told else inf


def _recommended(guest: Guest, event: Event) -> float:
    """Return when it is recommended to rebalance because of this interruption."""
    told = value(guest, "rebalance")
    if not told:
        return event.created
    # With a time of its own it comes then, or else with the notice.
    lead = SPOT_NOTICE if "T" in told else int(told)
    return max(event.created, event.not_before - lead)


def _maintenance(guest: Guest, events: list[Event]) -> str:
    told = ", ".join(_scheduled(guest, event) for event in events if event.type in _CODES)
    return f"[{told}]"


def _scheduled(guest: Guest, event: Event) -> str:
    code, words = _CODES[event.type]
    if event.type is EventType.REBOOT and event.source is EventSource.USER:
        code = "instance-reboot"
    state, prefix = {
        EventStatus.CANCELLED: ("canceled", "[Canceled] "),
        EventStatus.COMPLETED: ("completed", "[Completed] "),
        EventStatus.EXPIRED: ("completed", "[Completed] "),
    }.get(event.status, ("active", ""))
    padded = value(guest, "event_days") == "padded"
    members = {
        "NotBefore": _date(event.not_before, padded),
        "Code": code,
        "Description": prefix + (event.description or words),
        "EventId": f"instance-event-{event.id.replace('-', '')[:17]}",
    }
    ends = value(guest, "event_not_after")
    if ends == "always" or (ends == "cloud" and code not in _OPEN_ENDED):
        length = MAX_ACTIVITY if event.duration is None else event.duration
        members["NotAfter"] = _date(event.not_before + length, padded)
    members["State"] = state
    told = ", ".join(f'"{name}" : {json.dumps(text)}' for name, text in members.items())
    return f"{{{told}}}"


def _notice(guest: Guest) -> float:
    """Return for how many seconds before an interruption it is shown."""
    return 0.0 if value(guest, "spot_action") == "hibernate" else SPOT_NOTICE


def _interrupted(guest: Guest, event: Event, now: float) -> bool:
    """Whether the event is an interruption that is shown."""
    return (
        event.type is EventType.PREEMPT
        and event.status not in FINAL
        and (event.status is EventStatus.STARTED or now >= event.not_before - _notice(guest))
    )


def spot_tree(guest: Guest, events: list[Event], now: float) -> Entries:
    """Return the tree below `spot`: empty unless an interruption is near."""
    for event in events:
        if not _interrupted(guest, event, now):
            continue
        when = to_seconds(event.started or event.not_before)
        action = value(guest, "spot_action")
        tree: Entries = {
            "instance-action": f'{{"action": "{action}", "time": "{when}"}}',
        }
        if action == "terminate":
            tree["termination-time"] = when
        return tree
    return {}


def autoscaling(guest: Guest, events: list[Event], now: float) -> str:
    """Return the target lifecycle state; "" if the guest is in no Auto Scaling group."""
    state = value(guest, "autoscaling_state")
    ends = any(
        event.status not in FINAL
        and (event.type is EventType.TERMINATE or _interrupted(guest, event, now))
        for event in events
    )
    return "Terminated" if state and ends else state


_MONTHS: Final = "JanFebMarAprMayJunJulAugSepOctNovDec"


def _date(epoch: float, padded: bool) -> str:
    """Return `1 Jan 2019 09:00:43 GMT`, or `01 Jan …`, in English in any locale."""
    when = datetime.fromtimestamp(min(epoch, LAST), UTC)
    month = _MONTHS[3 * when.month - 3 : 3 * when.month]
    day = f"{when.day:02}" if padded else str(when.day)
    return f"{day} {month} {when.year} {when:%H:%M:%S} GMT"
