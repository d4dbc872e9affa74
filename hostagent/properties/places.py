"""Where a guest is, by its properties, as each cloud says it. Pure."""

from collections.abc import Mapping
from typing import Final

from hostagent import regions
from hostagent.model import Guest
from hostagent.properties.known import Cloud

_ZONE: Final = "a"


def region(guest: Guest, cloud: Cloud) -> str:
    """Return the region: the property, or the region of a whole zone name, or the default."""
    return place(guest, cloud).region


def zone(guest: Guest, cloud: Cloud) -> str:
    """Return the zone as the cloud names it: `1`, `us-east-1a`, `us-central1-a`; "" if none."""
    return place(guest, cloud).zone


def place(guest: Guest, cloud: Cloud) -> regions.Place:
    """Return where the guest is, as the cloud says it.

    A plain `region` or whole `zone` holds for the clouds that have it, and not for the others.
    """
    return regions.place(cloud, *said(guest.properties, cloud))


def said(given: Mapping[str, str], cloud: Cloud) -> tuple[str, str]:
    """Return the region, or "", and the zone that the properties say for the cloud."""
    region, zone = given.get("region", ""), given.get("zone", _ZONE)
    if not regions.has_region(cloud, region):
        region = ""
    if len(zone) > 1 and not regions.has_zone(cloud, zone):
        zone = _ZONE
    return given.get(f"{cloud}.region", region), given.get(f"{cloud}.zone", zone)
