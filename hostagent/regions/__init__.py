"""Regions and zones of the clouds, as tables, and which of them a guest is in.

The agent, the responder and `netemu` use it to check and to tell guests' properties. Pure: no I/O.
"""

from difflib import get_close_matches
from types import ModuleType
from typing import Final, NamedTuple

from hostagent.regions import aws, azure, gcp

_TABLES: Final[dict[str, ModuleType]] = {"azure": azure, "ec2": aws, "gce": gcp}
_DEFAULTS: Final = {"azure": "westeurope", "ec2": "us-east-1", "gce": "us-central1"}


class Place(NamedTuple):
    """A region and a zone, as their cloud calls them. Without zones, `zone` is empty."""

    region: str
    zone: str


def has_region(cloud: str, region: str) -> bool:
    """Whether the cloud is known to have the region."""
    return region in _TABLES[cloud].ZONES


def has_zone(cloud: str, zone: str) -> bool:
    """Whether the cloud is known to have the zone of this whole name."""
    return zone in _TABLES[cloud].NAMES


def may_be_region(cloud: str, region: str) -> bool:
    """Whether the cloud may have the region, which may be newer than the table."""
    return bool(_TABLES[cloud].is_region(region))


def may_be_zone(cloud: str, zone: str) -> bool:
    """Whether the cloud may have the zone of this whole name, which may be newer than the table."""
    return bool(_TABLES[cloud].is_zone(zone))


def region_of(cloud: str, zone: str) -> str:
    """Return the region of the zone of this whole name; "" if it is not known."""
    table = _TABLES[cloud]
    return str(table.NAMES.get(zone) or table.region_of(zone))


def lacks(cloud: str, zone: str) -> tuple[str, ...]:
    """Return the zones of a known region that lacks this one; () if the zone may be newer.

    New local zones are frequent, and their names do not follow from their region's.
    """
    table = _TABLES[cloud]
    region = region_of(cloud, zone)
    ordinary = zone == table.named(region, ord(zone[-1]) - ord("a"))
    if has_zone(cloud, zone) or not ordinary:
        return ()
    zones: tuple[str, ...] = table.ZONES.get(region, ())
    return zones


def near(text: str) -> list[str]:
    """Return the names of regions and zones that are like the text."""
    tables = _TABLES.values()
    names = {name for table in tables for name in (*table.ZONES, *table.NAMES)}
    return get_close_matches(text, sorted(names), 3, 0.7)


def place(cloud: str, region: str, zone: str) -> Place:
    """Return where a guest is. `region` may be empty; `zone` is a whole name, which then says the
    region, or one letter or digit. One that the region lacks counts its zones: the first for `a`.
    """
    if len(zone) > 1:
        return Place(region_of(cloud, zone) or region, zone)
    region = region or _DEFAULTS[cloud]
    number = (int(zone) + 9) % 10 if zone.isdigit() else ord(zone.lower()) - ord("a")
    table = _TABLES[cloud]
    zones = table.ZONES.get(region)
    wanted = table.named(region, number)
    if zones is None or wanted in zones:
        return Place(region, wanted)
    return Place(region, zones[number % len(zones)] if zones else "")
