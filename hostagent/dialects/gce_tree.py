"""GCE's metadata: the whole tree of one guest. Pure."""

from base64 import b64encode
from hashlib import sha256
from typing import Final, TypeAlias

import msgspec

from hostagent.dialects.jwt import made_up
from hostagent.model import EventStatus, EventType, Guest, View, at, concerns
from hostagent.properties import content, region, under, value, zone

NOTICE: Final = 60.0
"""Seconds before maintenance from which it is shown."""

PREEMPT_NOTICE: Final = 30.0
"""Seconds before preemption from which it is shown."""

SECRET: Final = frozenset({"identity", "token"})
"""Leaves of a service account that are in no list of its values."""

Tree: TypeAlias = "dict[str, Tree] | list[Tree] | tuple[str, ...] | str | int"
"""Directories, numbered ones, and leaves: several lines, one text, a number."""


def whole(view: View, now: float) -> Tree:
    """Return the tree, from the root."""
    return {
        "0.1": {"meta-data": {}},
        "computeMetadata": {
            "v1": {
                "instance": _instance(view, now),
                "oslogin": {},
                "project": _project(view.guest),
                "universe": {"universe-domain": "googleapis.com"},
            }
        },
    }


def maintenance(view: View, now: float) -> str:
    """Return `maintenance-event`."""
    for known in view.events:
        event = at(known, now)
        if not concerns(event, view.guest.name) or event.type is EventType.PREEMPT:
            continue
        started = event.status is EventStatus.STARTED
        due = event.status is EventStatus.SCHEDULED and now >= event.not_before - NOTICE
        if started or due:
            freeze = event.type is EventType.FREEZE
            return f"{'MIGRATE' if freeze else 'TERMINATE'}_ON_HOST_MAINTENANCE"
    return "NONE"


def preempted(view: View, now: float) -> str:
    """Return `preempted`."""
    for known in view.events:
        event = at(known, now)
        if concerns(event, view.guest.name) and event.type is EventType.PREEMPT:
            due = event.status is EventStatus.SCHEDULED and now >= event.not_before - PREEMPT_NOTICE
            if due or event.status is EventStatus.STARTED:
                return "TRUE"
    return "FALSE"


def _instance(view: View, now: float) -> dict[str, Tree]:
    guest = view.guest
    project = value(guest, "project_id")
    place = f"projects/{value(guest, 'numeric_project_id')}"
    az = zone(guest, "gce")
    spot = value(guest, "lifecycle", "gce") == "spot"
    attributes: dict[str, Tree] = {}
    if user_data := value(guest, "user_data", "gce"):
        raw = content(user_data)
        if raw != user_data.encode():  # bytes: cloud-init decodes them by the second attribute
            attributes["user-data-encoding"] = "base64"
            user_data = b64encode(raw).decode()
        attributes["user-data"] = user_data
    if key := value(guest, "ssh_public_key", "gce"):
        attributes["ssh-keys"] = f"{value(guest, 'admin_username')}:{key}"
    attributes |= under(guest, "attributes.")
    return {
        "attributes": dict(sorted(attributes.items())),
        "cpu-platform": "Intel Broadwell",
        "description": "",
        "disks": [
            {
                "device-name": guest.name,
                "index": 0,
                "interface": "SCSI",
                "mode": "READ_WRITE",
                "type": "PERSISTENT-BALANCED",
            }
        ],
        "guest-attributes": {},
        "hostname": f"{value(guest, 'hostname', 'gce')}.{az}.c.{project}.internal",
        "id": int(value(guest, "numeric_id")),
        "image": value(guest, "image.path"),
        "licenses": [],
        "machine-type": f"{place}/machineTypes/{value(guest, 'machine_type')}",
        "maintenance-event": maintenance(view, now),
        "name": guest.name,
        "network-interfaces": [
            {
                "access-configs": [],
                "dns-servers": ("169.254.169.254",),
                "forwarded-ips": [],
                "gateway": "",
                "ip": value(guest, "address", "gce"),
                "ip-aliases": [],
                "mac": value(guest, "mac", "gce"),
                "mtu": 1500,
                "network": f"{place}/networks/default",
                "subnetmask": "255.255.0.0",  # RFC 3927 §2.1
                "target-instance-ips": [],
            }
        ],
        "preempted": preempted(view, now),
        "region": f"{place}/regions/{region(guest, 'gce')}",
        "remaining-cpu-time": -1,
        "scheduling": {
            "automatic-restart": "FALSE" if spot else "TRUE",
            "on-host-maintenance": "TERMINATE" if spot else "MIGRATE",
            "preemptible": "TRUE" if spot else "FALSE",
        },
        "service-accounts": _service_accounts(guest, now),
        "tags": (),
        "virtual-clock": {"drift-token": "0"},
        "zone": f"{place}/zones/{az}",
    }


def _service_accounts(guest: Guest, now: float) -> dict[str, Tree]:
    email = value(guest, "service_account")
    if not email:
        return {}
    issued = now // 3600 * 3600
    secret = sha256(f"token:{guest.name}:{issued}".encode()).hexdigest()
    token = {
        "access_token": f"ya29.made-up-{secret}",
        # In minutes, so that the answer stays the same for a while.
        "expires_in": 3600 + 60 * int((issued + 3600 - now) // 60),
        "token_type": "Bearer",
    }
    account: dict[str, Tree] = {
        "aliases": ("default",),
        "email": email,
        "identity": "",  # one for each audience: see `identity`
        "scopes": ("https://www.googleapis.com/auth/cloud-platform",),
        "token": msgspec.json.encode(token).decode(),
    }
    return {"default": account, email: account}


def identity(guest: Guest, audience: str, now: float) -> str:
    """Return the service account's made-up identity token, valid for an hour."""
    issued = int(now // 3600 * 3600)
    claims = {
        "aud": audience,
        "azp": value(guest, "numeric_id"),
        "email": value(guest, "service_account"),
        "email_verified": True,
        "exp": issued + 3600,
        "iat": issued,
        "iss": "https://accounts.google.com",
        "sub": value(guest, "numeric_id"),
    }
    return made_up(claims)


def _project(guest: Guest) -> dict[str, Tree]:
    return {
        "attributes": dict(under(guest, "project_attributes.")),
        "numeric-project-id": int(value(guest, "numeric_project_id")),
        "project-id": value(guest, "project_id"),
    }
