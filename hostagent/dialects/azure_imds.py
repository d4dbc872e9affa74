"""Azure's Instance Metadata Service and Scheduled Events: everything else below `/metadata`.

Where no record of the original is at hand, this was chosen:

- Paths match without regard to case.
- Any known api-version is taken everywhere; a document is that of the newest schema not newer.
- Events are told as the agent has told them, not as the time would have them: so the incarnation
  and the document change together, and an agent that is away delays both. A version older than a
  type of event (Preempt, Terminate) does not tell events of that type.
- An approval of an event that is not in the guest's document is 400; if one of several is unknown,
  none is approved. One of an event that has started is 200 and changes nothing.
- A guest is allowed its rate, and as many requests at once. What is refused for its header or
  version counts as well.
- 410 is told while the agent has not been heard for too long: clients try again for 70 s.
- There is no managed identity: a token is refused as it is on a machine that has none.
- Server is `IMDS`; the words of 404, 405, 410, 429 and of X-Forwarded-For and duplicate names.
"""

import re
from base64 import b64encode
from email.utils import formatdate
from math import inf
from typing import Any, Final
from urllib.parse import unquote_plus

import msgspec

from hostagent.dialects.outcomes import Approval, Outcome
from hostagent.http import Request, Response
from hostagent.model import MAX_GUESTS, Event, EventStatus, EventType, Guest, View
from hostagent.properties import region, under, value, zone
from hostagent.rates import Rate

RATE: Final = 5.0
"""Requests a second from one guest, as Azure's own limit."""

MAX_APPROVALS: Final = 100
"""Events approved by one POST: more than a document has, in any cloud."""

EVENT_VERSIONS: Final = (
    "2017-03-01",  # preview: names with an underscore before, no header needed
    "2017-08-01",  # the header; no underscore
    "2017-11-01",  # Preempt
    "2019-01-01",  # Terminate
    "2019-04-01",  # Description
    "2019-08-01",  # EventSource
    "2020-07-01",  # DurationInSeconds
)
VERSIONS: Final = tuple(
    sorted(
        {
            *EVENT_VERSIONS,
            *("2017-04-02", "2017-10-01", "2017-12-01", "2018-02-01", "2018-04-02", "2018-10-01"),
            *("2019-02-01", "2019-03-11", "2019-04-30", "2019-06-01", "2019-06-04", "2019-08-15"),
            *("2019-11-01", "2020-06-01", "2020-07-15", "2020-09-01", "2020-10-01", "2020-12-01"),
            *("2021-01-01", "2021-02-01", "2021-03-01", "2021-05-01", "2021-08-01", "2021-10-01"),
            *("2021-11-01", "2021-11-15", "2021-12-13", "2023-07-01", "2023-11-15", "2024-03-15"),
            *("2024-07-17", "2025-04-07"),
        }
    )
)
NEWEST: Final = VERSIONS[:-4:-1]

_JSON: Final = "application/json; charset=utf-8"
_TEXT: Final = "text/plain; charset=utf-8"


def _response(status: int, body: bytes, kind: str = _JSON, *extra: tuple[str, str]) -> Response:
    return Response(status, body, kind, extra, server="IMDS")


def _error(status: int, text: str, *extra: tuple[str, str]) -> Response:
    return _response(status, b'{ "error": "%b" }' % text.encode(), _JSON, *extra)


_NO_HEADER: Final = _error(400, "Bad request: . Required metadata header not specified")
_FORWARDED: Final = _error(400, "Bad request: . X-Forwarded-For header is not allowed")
_DUPLICATE: Final = _error(400, "Bad request: . Duplicate query parameters are not allowed")
_NO_LEAF: Final = _error(400, "Bad request: . A value needs format=text")
_BAD_FORMAT: Final = _error(400, "Bad request: . format must be json or text")
_BAD_BODY: Final = _error(400, "Bad request: . The body must be StartRequests with EventId")
_BAD_EVENT: Final = _error(400, "Bad request: . No such event")
_NOT_FOUND: Final = _error(404, "Not found")
_TOO_MANY: Final = _error(429, "Too many requests", ("Retry-After", "1"))
_FAILED: Final = _error(500, "Internal server error: try again later")
GONE: Final = _error(410, "Gone: try again within 70 seconds", ("Retry-After", "5"))
_BAD_VERSION: Final = _response(
    400,
    b'{"error":"Bad request. api-version is invalid or was not specified in the request. '
    b'For more information refer to aka.ms/azureimds","newest-versions":'
    + msgspec.json.encode(NEWEST)
    + b"}",
)
_VERSIONS: Final = _response(200, b'{"apiVersions":' + msgspec.json.encode(VERSIONS) + b"}")
_STARTED: Final = _response(200, b"", _TEXT)
_NO_IDENTITY: Final = _response(
    400, b'{"error":"invalid_request","error_description":"Identity not found"}'
)
_NO_RESOURCE: Final = _response(
    400,
    b'{"error":"invalid_request","error_description":"Required query variable \'resource\' is '
    b'missing"}',
)


def _not_allowed(allow: str) -> Response:
    return _error(405, "Method not allowed", ("Allow", allow))


def owns(request: Request) -> bool:
    """Whether the path is below /metadata."""
    path = request.path[:10].lower()
    return path == "/metadata/" or (path == "/metadata" and len(request.path) == 9)


class AzureImds:
    """Answers, and remembers how often each guest has asked."""

    def __init__(self, rate: float = RATE) -> None:
        """Allow each guest `rate` requests a second; 0 is without bound."""
        self._rate = Rate(rate, max(rate, 1.0), MAX_GUESTS)

    def answer(self, view: View, request: Request, now: float) -> Outcome | None:
        """Answer a request below /metadata; None if the path is another."""
        if not owns(request):
            return None
        if not self._rate.allows(view.guest.name, now):
            return _TOO_MANY
        response = _answer(view, request)
        if isinstance(response, Response) and not self._rate.rate:
            # Everything is told as it is known, whatever the time: it holds until that changes.
            return msgspec.structs.replace(response, valid_until=inf)
        return response


def _answer(view: View, request: Request) -> Outcome:
    route = request.path.lower().strip("/").split("/")[1:]
    query = _query(request.query)
    if "x-forwarded-for" in request.headers:
        return _FORWARDED
    if query is None:
        return _DUPLICATE
    version = query.get("api-version", "")
    preview = route == ["scheduledevents"] and version == EVENT_VERSIONS[0]
    if request.headers.get("metadata", "").lower() != "true" and not preview:
        return _NO_HEADER
    get = request.method in ("GET", "HEAD")
    match route:
        case ["versions"]:
            return _VERSIONS if get else _not_allowed("GET, HEAD")
        case ["instance", *_] | ["scheduledevents"] | ["identity", "oauth2", "token"]:
            if version not in VERSIONS and (route[0] != "identity" or not version):
                return _BAD_VERSION
        case _:
            return _NOT_FOUND
    if route[0] == "scheduledevents":
        if get:
            return _response(200, document(view, version))
        return _approve(view, request) if request.method == "POST" else _not_allowed("GET, POST")
    if not get:
        return _not_allowed("GET, HEAD")
    if route[0] == "identity":
        return _NO_IDENTITY if query.get("resource") else _NO_RESOURCE
    return _instance(view.guest, route[1:], query, version)


def _query(text: str | None) -> dict[str, str] | None:
    """Give the names, in lower case, with their values; None if there are two of one."""
    pairs = [part.partition("=") for part in (text or "").split("&") if part]
    query = {unquote_plus(name).lower(): unquote_plus(told) for name, _, told in pairs}
    return query if len(query) == len(pairs) else None


# Scheduled events

_SINCE: Final = {EventType.PREEMPT: "2017-11-01", EventType.TERMINATE: "2019-01-01"}


def document(view: View, version: str) -> bytes:
    """Give the Scheduled Events document in the given version's form."""
    events = [
        _event(event, version)
        for event in view.events
        if version >= _SINCE.get(event.type, EVENT_VERSIONS[0])
    ]
    return msgspec.json.encode({"DocumentIncarnation": view.incarnation, "Events": events})


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
        told["Description"] = event.description
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


def _approve(view: View, request: Request) -> Outcome:
    try:
        wanted = {one.event_id.lower() for one in _start.decode(request.body).requests}
    except (msgspec.DecodeError, RecursionError):
        return _BAD_BODY
    if not 0 < len(wanted) <= MAX_APPROVALS:
        return _BAD_BODY
    known = {event.id: event for event in view.events}
    if not wanted <= known.keys():
        return _BAD_EVENT
    scheduled = [one for one in sorted(wanted) if known[one].status is EventStatus.SCHEDULED]
    return Approval(tuple(scheduled), _STARTED, _BAD_EVENT, _FAILED) if scheduled else _STARTED


# The instance


def _instance(guest: Guest, route: list[str], query: dict[str, str], version: str) -> Response:
    tree: Any = {"compute": _compute(guest, version), "network": _network(guest)}
    if query.get("extended", "").lower() == "true" and version >= "2021-08-01":
        tree["extended"] = {
            "compute": {"hasCustomData": bool(value(guest, "custom_data")), "ppsType": "None"}
        }
    for name in route:
        tree = _child(tree, name)
        if tree is None:
            return _NOT_FOUND
    form = query.get("format", "json").lower()
    if form not in ("json", "text"):
        return _BAD_FORMAT
    if isinstance(tree, (str, bool)):
        if form == "json":
            return _NO_LEAF
        return _response(200, _plain(tree).encode(), _TEXT)
    if form == "json":
        return _response(200, msgspec.json.encode(tree))
    children = tree.items() if isinstance(tree, dict) else enumerate(tree)
    lines = [f"{name}{'' if isinstance(one, (str, bool)) else '/'}" for name, one in children]
    return _response(200, "\n".join(lines).encode(), _TEXT)


def _child(tree: Any, name: str) -> Any:
    """Give a member, whatever its name's case, or an element; None if there is none."""
    if isinstance(tree, dict):
        return next((one for key, one in tree.items() if key.lower() == name), None)
    if isinstance(tree, list) and re.fullmatch(r"[0-9]{1,3}", name) and int(name) < len(tree):
        return tree[int(name)]
    return None


def _plain(leaf: str | bool) -> str:
    return leaf if isinstance(leaf, str) else str(leaf).lower()


def _compute(guest: Guest, version: str) -> dict[str, Any]:
    told = {name: one for since, name, one in _members(guest) if version >= since}
    return dict(sorted(told.items(), key=lambda member: member[0].lower()))


def _members(guest: Guest) -> list[tuple[str, str, Any]]:
    """Give the members of compute, each with the version that first had it."""
    tags = under(guest, "tags.")
    group = value(guest, "resource_group")
    subscription = value(guest, "subscription_id")
    spot = value(guest, "lifecycle", "azure") == "spot"
    key = value(guest, "ssh_public_key", "azure")
    user = value(guest, "admin_username")
    providers = f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute"
    scale_set = value(guest, "vm_scale_set")
    publisher, offer, sku, release = (
        value(guest, f"image.{part}") for part in ("publisher", "offer", "sku", "version")
    )
    return [
        ("2017-03-01", "location", region(guest, "azure")),
        ("2017-03-01", "name", guest.name),
        ("2017-03-01", "offer", offer),
        ("2017-03-01", "osType", "Linux"),
        ("2017-03-01", "platformFaultDomain", str(guest.fault_domain)),
        ("2017-03-01", "platformUpdateDomain", str(guest.update_domain)),
        ("2017-03-01", "publisher", publisher),
        ("2017-03-01", "sku", sku),
        ("2017-03-01", "version", release),
        ("2017-03-01", "vmId", value(guest, "vm_id")),
        ("2017-03-01", "vmSize", value(guest, "vm_size")),
        ("2017-08-01", "placementGroupId", ""),
        ("2017-08-01", "resourceGroupName", group),
        ("2017-08-01", "subscriptionId", subscription),
        ("2017-08-01", "tags", ";".join(f"{name}:{text}" for name, text in tags.items())),
        ("2017-12-01", "vmScaleSetName", scale_set),
        ("2017-12-01", "zone", zone(guest, "azure")),
        ("2018-04-02", "plan", {"name": "", "product": "", "publisher": ""}),
        (
            "2018-04-02",
            "publicKeys",
            [{"keyData": key, "path": f"/home/{user}/.ssh/authorized_keys"}] if key else [],
        ),
        ("2018-10-01", "azEnvironment", "AzurePublicCloud"),
        ("2018-10-01", "provider", "Microsoft.Compute"),
        ("2019-02-01", "customData", _base64(value(guest, "custom_data"))),
        ("2019-03-11", "resourceId", f"{providers}/virtualMachines/{guest.name}"),
        (
            "2019-06-01",
            "storageProfile",
            {
                "dataDisks": [],
                "imageReference": {
                    "id": "",
                    "offer": offer,
                    "publisher": publisher,
                    "sku": sku,
                    "version": release,
                },
                "osDisk": {
                    "caching": "ReadWrite",
                    "createOption": "FromImage",
                    "diffDiskSettings": {"option": ""},
                    "diskSizeGB": "30",
                    "encryptionSettings": {"enabled": "false"},
                    "image": {"uri": ""},
                    "managedDisk": {
                        "id": f"{providers}/disks/{guest.name}-os",
                        "storageAccountType": "Premium_LRS",
                    },
                    "name": f"{guest.name}-os",
                    "osType": "Linux",
                    "vhd": {"uri": ""},
                    "writeAcceleratorEnabled": "false",
                },
                "resourceDisk": {"size": "16384"},
            },
        ),
        ("2019-06-04", "tagsList", [{"name": k, "value": text} for k, text in tags.items()]),
        ("2020-06-01", "isHostCompatibilityLayerVm", "false"),
        ("2020-06-01", "securityProfile", _security(guest)),
        (
            "2020-07-15",
            "osProfile",
            {
                "adminUsername": user,
                "computerName": value(guest, "hostname", "azure"),
                "disablePasswordAuthentication": "true",
            },
        ),
        ("2020-09-01", "licenseType", ""),
        ("2020-12-01", "evictionPolicy", "Delete" if spot else ""),
        ("2020-12-01", "priority", "Spot" if spot else "Regular"),
        ("2021-01-01", "userData", _base64(value(guest, "user_data", "azure"))),
        ("2021-03-01", "extendedLocation", {"name": "", "type": ""}),
        (
            "2021-03-01",
            "virtualMachineScaleSet",
            {"id": f"{providers}/virtualMachineScaleSets/{scale_set}" if scale_set else ""},
        ),
        ("2021-10-01", "platformSubFaultDomain", ""),
        ("2021-11-01", "additionalCapabilities", {"hibernationEnabled": "false"}),
        ("2021-11-15", "host", {"id": ""}),
        ("2021-11-15", "hostGroup", {"id": ""}),
        ("2021-12-13", "isVmInStandbyPool", "false"),
        ("2023-11-15", "physicalZone", ""),
    ]


def _security(_guest: Guest) -> dict[str, str]:
    return {
        "encryptionAtHost": "false",
        "secureBootEnabled": "false",
        "securityType": "",
        "virtualTpmEnabled": "false",
    }


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode()


def _network(guest: Guest) -> dict[str, Any]:
    return {
        "interface": [
            {
                "ipv4": {
                    "ipAddress": [
                        {
                            "privateIpAddress": value(guest, "address", "azure"),
                            "publicIpAddress": "",
                        }
                    ],
                    "subnet": [{"address": "169.254.0.0", "prefix": "16"}],  # RFC 3927 §2.1
                },
                "ipv6": {"ipAddress": []},
                "macAddress": value(guest, "mac", "azure").replace(":", "").upper(),
            }
        ]
    }
