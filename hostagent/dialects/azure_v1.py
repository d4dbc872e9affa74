r"""Azure's first metadata service, of 2015: `InstanceInfo` and `maintenance` under `/metadata/v1`.

There is no header and no api-version. Paths match without regard to case. JSON is compact and on
one line, as clients parse it with sed and grep. Choices where no record of the original was at
hand:

- EventCreationTime is UTC.
- The maintenance event in InstanceInfo is a member `MaintenanceEvent` with EventID,
  EventCreationTime and EventType. The type's name stands nowhere else, so that `grep -i reboot`
  matches only while a reboot is announced or under way.
- Of several events the one with the earliest `not_before` is that member and the answer of
  `maintenance`. InstanceInfo lists the others in the same form as `OtherMaintenanceEvents`, so that
  grep matches each. Events of other guests of the availability set are not shown, as this format
  cannot name a guest.
- An event that is started before its notice would begin is shown from then on.
- All of `/metadata/v1` and `/metadata/latest` belongs to this dialect: other paths there are 404,
  also with a slash at the end.
- A query is ignored; a method other than GET and HEAD is 405; HEAD is GET without the body.
"""

import json
from datetime import UTC, datetime
from typing import Final

from hostagent.dialects.outcomes import NOT_FOUND
from hostagent.http import Request, Response
from hostagent.model import FINAL, Event, EventStatus, View, boundary

NOTICE: Final = 300.0
"""Seconds before `not_before` from which an event is shown."""

_JSON: Final = "application/json; charset=utf-8"
_TEXT: Final = "text/plain; charset=utf-8"
_NOT_ALLOWED: Final = Response(405, b"Method Not Allowed", headers=(("Allow", "GET, HEAD"),))
_FORWARDED: Final = Response(400, b"Bad Request: X-Forwarded-For is not allowed")

_ROOTS: Final = ("/metadata/v1/", "/metadata/latest/")
_PATHS: Final = {
    f"{root}{path}": path
    for root in _ROOTS
    for path in (
        "instanceinfo",
        "instanceinfo/id",
        "instanceinfo/ud",
        "instanceinfo/fd",
        "maintenance",
    )
}


def owns(path: str) -> bool:
    """Whether the path is v1's."""
    return f"{path.lower()}/".startswith(_ROOTS)


def answer(view: View, request: Request, now: float) -> Response | None:
    """Answer a v1 request, or None if the path is not v1's."""
    if not owns(request.path):
        return None
    path = _PATHS.get(request.path.lower())
    if path is None:
        return NOT_FOUND
    if "x-forwarded-for" in request.headers:
        return _FORWARDED
    if request.method not in ("GET", "HEAD"):
        return _NOT_ALLOWED
    guest = view.guest
    match path:
        case "instanceinfo":
            body, kind = _instance_info(view, now), _JSON
        case "instanceinfo/id":
            body, kind = f"_{guest.name}".encode(), _TEXT
        case "instanceinfo/ud":
            body, kind = str(guest.update_domain).encode(), _TEXT
        case "instanceinfo/fd":
            body, kind = str(guest.fault_domain).encode(), _TEXT
        case _:
            body, kind = _braces("".join(map(_event, _at_hand(view, now)[:1]))), _JSON
    return Response(200, body, kind, valid_until=boundary(view, now, NOTICE))


def _instance_info(view: View, now: float) -> bytes:
    guest = view.guest
    members = (
        f'"ID":{json.dumps("_" + guest.name)},'
        f'"UD":"{guest.update_domain}","FD":"{guest.fault_domain}"'
    )
    told = [f'{{{_event(one)},"EventType":"{one.type}"}}' for one in _at_hand(view, now)]
    if told:
        members += f',"MaintenanceEvent":{told[0]}'
    if told[1:]:
        members += f',"OtherMaintenanceEvents":[{",".join(told[1:])}]'
    return _braces(members)


def _braces(members: str) -> bytes:
    return b"{%b}" % members.encode()


def _event(event: Event) -> str:
    return f'"EventID":"{event.id}","EventCreationTime":"{_us_date(event.created)}"'


def _at_hand(view: View, now: float) -> list[Event]:
    """Return the events shown at `now`: within their notice, or started and not yet over."""
    return [
        event
        for event in view.own(now)
        if event.status is EventStatus.STARTED
        or (event.status not in FINAL and now >= event.not_before - NOTICE)
    ]


def _us_date(epoch: float) -> str:
    r"""Return `9\/15\/2015 6:42:51 AM`: no zero before month, day or hour, and slashes escaped."""
    at = datetime.fromtimestamp(epoch, UTC)
    return (
        rf"{at.month}\/{at.day}\/{at.year} "
        f"{at.hour % 12 or 12}:{at.minute:02}:{at.second:02} {'AM' if at.hour < 12 else 'PM'}"
    )
