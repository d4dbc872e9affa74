"""OpenStack's metadata: `/openstack`, by version. Pure.

Nova tells of no maintenance here: an event of the lab shows in none of these files. It is off
unless a lab switches it on, because the other clouds have no such path, and clients look for it.

Choices where no record of the original was at hand:

- The availability zone is `nova`, OpenStack's own default.
- `random_seed` is the same at each request. It is derived from the guest's name, and not a secret.
- The password of a Windows guest is empty, and cannot be posted.
- X-Forwarded-For is ignored: the proxy before Nova replaces it.
"""

import json
from base64 import b64encode
from hashlib import sha256, shake_256
from math import inf
from typing import Any, Final
from uuid import NAMESPACE_DNS, uuid5

from hostagent.http import Request, Response
from hostagent.model import Guest, View
from hostagent.properties import content, under, value

VERSIONS: Final = (
    *("2012-08-10", "2013-04-04", "2013-10-17", "2015-10-15", "2016-06-30", "2016-10-06"),
    *("2017-02-22", "2018-08-27", "2020-10-14", "latest"),
)

_FILES: Final = {
    "meta_data.json": "2012-08-10",
    "user_data": "2012-08-10",
    "password": "2013-04-04",
    "vendor_data.json": "2013-10-17",
    "network_data.json": "2015-10-15",
    "vendor_data2.json": "2016-10-06",
}
"""What there is, and since which version."""

_MEMBERS: Final = {
    "random_seed": "2013-04-04",
    "project_id": "2015-10-15",
    "devices": "2016-06-30",
    "dedicated_cpus": "2020-10-14",
}
"""Members of `meta_data.json` that are younger than it."""

_TEXT: Final = "text/plain; charset=UTF-8"
_JSON: Final = "application/json"
_SEED_BYTES: Final = 512
_NOT_FOUND: Final = Response(
    404,
    b"404 Not Found\n\nThe resource could not be found.\n\n   ",
    _TEXT,
)
_NOT_ALLOWED: Final = Response(405, b"405 Method Not Allowed", _TEXT, (("Allow", "GET, HEAD"),))


def owns(path: str) -> bool:
    """Whether the path is OpenStack's."""
    return f"{path}/".startswith("/openstack/")


def answer(view: View, request: Request, _now: float) -> Response | None:
    """Answer a request below `/openstack`, or None if the path is another."""
    if not owns(request.path):
        return None
    if request.method not in ("GET", "HEAD"):
        return _NOT_ALLOWED
    _, _, *names = request.path.rstrip("/").split("/")
    match names:
        case []:
            return _ok("\n".join(VERSIONS).encode(), _TEXT)
        case [version] if version in VERSIONS:
            return _ok("\n".join(_listed(view.guest, version)).encode(), _TEXT)
        case [version, name] if version in VERSIONS and name in _listed(view.guest, version):
            return _file(view.guest, version, name)
        case _:
            return _NOT_FOUND


def _ok(body: bytes, kind: str) -> Response:
    return Response(200, body, kind, valid_until=inf)


def _listed(guest: Guest, version: str) -> list[str]:
    """Return the files of the version: user data only if there are any."""
    return [
        name
        for name, since in sorted(_FILES.items())
        if since <= version and (name != "user_data" or value(guest, "user_data"))
    ]


def _file(guest: Guest, version: str, name: str) -> Response:
    match name:
        case "user_data":
            return _ok(content(value(guest, "user_data")), "application/octet-stream")
        case "password":
            return _ok(b"", _TEXT)
        case "meta_data.json":
            members = _meta_data(guest)
            told = {key: text for key, text in members.items() if _MEMBERS.get(key, "") <= version}
            return _ok(json.dumps(told).encode(), _JSON)
        case "network_data.json":
            return _ok(json.dumps(_network_data(guest)).encode(), _JSON)
        case _:
            return _ok(b"{}", _JSON)


def _meta_data(guest: Guest) -> dict[str, Any]:
    hostname = value(guest, "hostname")
    members: dict[str, Any] = {
        "availability_zone": "nova",
        "dedicated_cpus": [],
        "devices": [],
        "hostname": hostname if "." in hostname else f"{hostname}.novalocal",
        "launch_index": int(value(guest, "launch_index")),
        "name": guest.name,
        "project_id": sha256(value(guest, "project_id").encode()).hexdigest()[:32],
        "random_seed": b64encode(shake_256(guest.name.encode()).digest(_SEED_BYTES)).decode(),
        "uuid": value(guest, "vm_id"),
    }
    if tags := under(guest, "tags."):
        members["meta"] = tags
    if key := value(guest, "ssh_public_key"):
        members["public_keys"] = {"default": key}
        members["keys"] = [{"data": key, "name": "default", "type": "ssh"}]
    return members


def _network_data(guest: Guest) -> dict[str, Any]:
    """Return one interface, which finds its address itself."""
    port = str(uuid5(NAMESPACE_DNS, f"port.{guest.name}"))
    link = f"tap{port[:11]}"
    return {
        "links": [
            {
                "ethernet_mac_address": value(guest, "mac"),
                "id": link,
                "mtu": 1500,
                "type": "phy",
                "vif_id": port,
            }
        ],
        "networks": [
            {
                "id": "network0",
                "link": link,
                "network_id": str(uuid5(NAMESPACE_DNS, "network")),
                "type": "ipv4_dhcp",
            }
        ],
        "services": [],
    }
