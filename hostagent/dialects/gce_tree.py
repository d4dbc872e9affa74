"""GCE's metadata: the whole tree of one guest. Pure."""

from base64 import b64encode
from typing import Final, TypeAlias

from hostagent.addresses import METADATA
from hostagent.dialects.gce_account import SCOPES
from hostagent.dialects.gce_events import maintenance, preempted, shutdown_details, upcoming
from hostagent.model import Guest, View
from hostagent.properties import content, region, under, value, zone

SECRET: Final = frozenset({"identity", "token"})
"""Leaves of a service account that are in no list of its values."""

Tree: TypeAlias = "dict[str, Tree] | list[Tree] | tuple[str, ...] | str | int"
"""Directories, numbered ones, and leaves: several lines, one text, a number."""


def whole(view: View, attributes: dict[str, dict[str, str]], now: float) -> Tree:
    """Return the tree, from the root; `attributes` are the guest's own."""
    instance = _instance(view, now)
    instance["guest-attributes"] = {space: {**keys} for space, keys in attributes.items()}
    return {
        "0.1": {"meta-data": {}},
        "computeMetadata": {
            "v1": {
                "instance": dict(sorted(instance.items())),
                "oslogin": {},
                "project": _project(view.guest),
                "universe": {"universe-domain": "googleapis.com"},
            }
        },
    }


def _instance(view: View, now: float) -> dict[str, Tree]:
    guest = view.guest
    project = value(guest, "project_id")
    place = f"projects/{value(guest, 'numeric_project_id')}"
    az = zone(guest, "gce")
    name = value(guest, "hostname", "gce")
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
    events: dict[str, Tree] = {}
    if (coming := upcoming(view, now)) is not None:
        events["upcoming-maintenance"] = {**coming}
    if (shutdown := shutdown_details(view, now)) is not None:
        events["shutdown-details"] = {**shutdown}
    public = value(guest, "public_ipv4")
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
        # A custom host name has a domain, and is told as it is.
        "hostname": name if "." in name else f"{name}.{az}.c.{project}.internal",
        "id": int(value(guest, "numeric_id")),
        "image": value(guest, "image.path"),
        "licenses": [{"id": one} for one in value(guest, "licenses").split()],
        "machine-type": f"{place}/machineTypes/{value(guest, 'machine_type')}",
        "maintenance-event": maintenance(view, now),
        "name": guest.name,
        "network-interfaces": [
            {
                "access-configs": [{"external-ip": public, "type": "ONE_TO_ONE_NAT"}]
                if public
                else [],
                "dns-servers": (METADATA,),
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
        "service-accounts": _service_accounts(guest),
        "tags": (),
        "virtual-clock": {"drift-token": "0"},
        "zone": f"{place}/zones/{az}",
        **events,
    }


def _service_accounts(guest: Guest) -> dict[str, Tree]:
    email = value(guest, "service_account")
    if not email:
        return {}
    account: dict[str, Tree] = {
        "aliases": ("default",),
        "email": email,
        "identity": "",  # made when asked for, as is the token: see `gce_account`
        "scopes": SCOPES,
        "token": "",
    }
    return {"default": account, email: account}


def _project(guest: Guest) -> dict[str, Tree]:
    return {
        "attributes": dict(under(guest, "project_attributes.")),
        "numeric-project-id": int(value(guest, "numeric_project_id")),
        "project-id": value(guest, "project_id"),
    }
