"""GCE's regions and zones, from `cloud.google.com/compute/docs/regions-zones`."""

import re
from typing import Final

_ABC: Final = """
africa-south1 asia-east1 asia-east2 asia-northeast1 asia-northeast2 asia-northeast3 asia-south1
asia-south2 asia-southeast1 asia-southeast2 australia-southeast1 australia-southeast2
europe-central2 europe-north1 europe-north2 europe-southwest1 europe-west10 europe-west12
europe-west2 europe-west3 europe-west4 europe-west6 europe-west8 europe-west9 me-central1
me-central2 me-west1 northamerica-northeast1 northamerica-northeast2 northamerica-south1
southamerica-east1 southamerica-west1 us-east4 us-east5 us-south1 us-west1 us-west2 us-west3
us-west4
"""
_OTHERS: Final = {"europe-west1": "bcd", "us-central1": "abcf", "us-east1": "bcd"}

ZONES: Final = {
    region: tuple(f"{region}-{letter}" for letter in letters)
    for region, letters in sorted([*((name, "abc") for name in _ABC.split()), *_OTHERS.items()])
}
"""The zones of each region."""
NAMES: Final = {zone: region for region, zones in ZONES.items() for zone in zones}
"""The region of each zone."""


def named(region: str, number: int) -> str:
    """Return what the region's zone with this number is called, counted from 0."""
    return f"{region}-{chr(ord('a') + number)}"


def is_region(text: str) -> bool:
    """Whether a region may have this name."""
    return re.fullmatch(r"[a-z]+-[a-z]+[0-9]+", text) is not None


def is_zone(text: str) -> bool:
    """Whether a zone may have this name: its region's, and a suffix of its own."""
    region, _, own = text.rpartition("-")
    return is_region(region) and re.fullmatch(r"[a-z]|ai[0-9][a-z]", own) is not None


def region_of(zone: str) -> str:
    """Return the region of a zone."""
    return zone.rpartition("-")[0]
