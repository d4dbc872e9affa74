"""Azure's Scheduled Events: the document in its seven versions, and approvals of events. Pure."""

from codecs import BOM_UTF8
from email.utils import formatdate
from typing import Final

import msgspec

from hostagent.model import Event, EventSource, EventStatus, EventType, View

EVENT_VERSIONS: Final = (
    "2017-03-01",  # preview: names with an underscore before, no header needed
    "2017-08-01",  # the header; no underscore
    "2017-11-01",  # Preempt
    "2019-01-01",  # Terminate
    "2019-04-01",  # Description
    "2019-08-01",  # EventSource
    "2020-07-01",  # DurationInSeconds
)
MAX_APPROVALS: Final = 100
"""Events approved by one POST: more than any real document has."""

_PLATFORM, _USER = EventSource.PLATFORM, EventSource.USER
DESCRIPTIONS: Final = {
    (EventType.FREEZE, _PLATFORM): (
        "Virtual machine is being paused because of a memory-preserving Live Migration operation."
    ),
    (EventType.FREEZE, _USER): "Host server is undergoing maintenance.",
    (EventType.REBOOT, _PLATFORM): "Host server is undergoing maintenance.",
    (EventType.REBOOT, _USER): (
        "Virtual machine is going to be restarted as requested by authorized user."
    ),
    (EventType.REDEPLOY, _PLATFORM): "Virtual machine has encountered a failure.",
    (EventType.REDEPLOY, _USER): (
        "Virtual machine is going to be redeployed as requested by authorized user."
    ),
    (EventType.PREEMPT, _PLATFORM): "The Virtual Machine will be evicted.",
    (EventType.PREEMPT, _USER): "The Virtual Machine will be evicted.",
    (EventType.TERMINATE, _PLATFORM): "Virtual machine is going to be deleted.",
    (EventType.TERMINATE, _USER): (
        "Virtual machine is going to be deleted as requested by authorized user."
    ),
}
"""What Azure says of an event that was scheduled without a description. The words are from its
reference of Scheduled Events and from github.com/Azure-Samples/scheduled-events-mock-server, whose
scenarios were captured; those of Terminate, and of a user's Freeze, are put together after them."""

_SINCE: Final = {EventType.PREEMPT: "2017-11-01", EventType.TERMINATE: "2019-01-01"}


class MalformedApproval(Exception):
    """The body is not a list of events to start."""


class UnknownEvent(Exception):
    """The guest's document has no such event."""


def document(view: View, version: str, incarnation: int) -> bytes:
    """Return the Scheduled Events document in the given version's form."""
    events = [
        _event(event, version)
        for event in view.events
        if version >= _SINCE.get(event.type, EVENT_VERSIONS[0])
    ]
    return msgspec.json.encode({"DocumentIncarnation": incarnation, "Events": events})


def _event(event: Event, version: str) -> dict[str, object]:
    prefix = "_" if version < "2017-08-01" else ""
    started = event.status is not EventStatus.SCHEDULED
    told: dict[str, object] = {
        "EventId": event.id,
        "EventStatus": "Started" if started else "Scheduled",
        "EventType": event.type,
        "ResourceType": "VirtualMachine",
        "Resources": [prefix + name for name in event.guests],
        "NotBefore": "" if started else formatdate(event.not_before, usegmt=True),
    }
    if version >= "2019-04-01":
        told["Description"] = event.description or DESCRIPTIONS[event.type, event.source]
    if version >= "2019-08-01":
        told["EventSource"] = event.source
    if version >= "2020-07-01":
        told["DurationInSeconds"] = -1 if event.duration is None else round(event.duration)
    return told


class _StartRequest(msgspec.Struct):
    event_id: str = msgspec.field(name="EventId")


class _Start(msgspec.Struct):
    requests: list[_StartRequest] = msgspec.field(name="StartRequests")


_start = msgspec.json.Decoder(_Start)


def approved(view: View, body: bytes) -> tuple[str, ...]:
    """Return the ids of the events that a POST's body starts and that have not started.

    Raises MalformedApproval, UnknownEvent.
    """
    try:
        # RFC 8259 §8.1: a byte order mark may be ignored; .NET writes one.
        start = _start.decode(body.removeprefix(BOM_UTF8))
        wanted = {one.event_id.lower() for one in start.requests}
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedApproval from error
    if not 0 < len(wanted) <= MAX_APPROVALS:
        raise MalformedApproval
    known = {event.id: event for event in view.events}
    if not wanted <= known.keys():
        raise UnknownEvent
    return tuple(one for one in sorted(wanted) if known[one].status is EventStatus.SCHEDULED)
