"""Checks what is given to a guest. Pure."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

from hostagent import regions
from hostagent.properties.known import CLOUDS, KNOWN, PER_CLOUD, PREFIXES, Cloud, Property
from hostagent.properties.places import said

MAX_PROPERTIES_BYTES: Final = 256 * 1024
"""Keys and values of one guest in total: GCE's limit for one value. Two such guests fit a frame."""


class PropertyError(Exception):
    """A property is unknown or its value is not allowed; the message says what is."""


def check(properties: Mapping[str, str]) -> None:
    """Raise PropertyError unless all keys and values are allowed."""
    for key, value in properties.items():
        known = _known(key)
        if re.fullmatch(known.pattern, value) is None or not known.possible(value):
            raise PropertyError(f"property {key}: {value[:40]!r} is not possible; {known.hint} is")
    _check_place(properties)
    _check_macs(properties)
    size = sum(len(key) + len(value.encode()) for key, value in properties.items())
    if size > MAX_PROPERTIES_BYTES:
        raise PropertyError(f"properties of {size} bytes; a guest has {MAX_PROPERTIES_BYTES}")


_PLACES: Final = (
    ("region", regions.has_region, regions.may_be_region),
    ("zone", regions.has_zone, regions.may_be_zone),
)


def _is_name(key: str, text: str) -> bool:
    """Whether it is the name of a region or zone: a zone may be a letter or digit instead."""
    return len(text) > (key == "zone")


def _check_place(given: Mapping[str, str]) -> None:
    """Raise PropertyError for a region or zone that no cloud has, or that the named one cannot."""
    for key, has, may in _PLACES:
        text = given.get(key, "")
        if _is_name(key, text) and not any(has(cloud, text) for cloud in CLOUDS):
            near = regions.near(text)
            meant = f"did you mean {' or '.join(near)}? " if near else ""
            raise PropertyError(
                f"property {key}: no cloud is known to have {text!r}; {meant}"
                f"a new one is given to its cloud alone, as ec2.{key}"
            )
        for cloud in CLOUDS:
            text = given.get(f"{cloud}.{key}", "")
            if _is_name(key, text) and not may(cloud, text):
                raise PropertyError(
                    f"property {cloud}.{key}: {cloud} has no {key} with a name like {text!r}"
                )
    for cloud in CLOUDS:
        region, zone = said(given, cloud)
        if len(zone) > 1:
            own = f"{cloud}.zone"
            _check_zone(cloud, own if own in given else "zone", region, zone, given)


def _check_zone(cloud: Cloud, key: str, region: str, zone: str, given: Mapping[str, str]) -> None:
    """Raise PropertyError if the zone of this whole name is not in the region, or in no known one.

    `region` may be empty: it is not said. A zone whose ID is given may be newer than the table.
    """
    its = regions.region_of(cloud, zone)
    if (zones := regions.lacks(cloud, zone)) and not given.get("zone_id"):
        raise PropertyError(f"property {key}: {its} has no {zone}; it has {', '.join(zones)}")
    if region and its and region != its:
        raise PropertyError(f"property {key}: {zone} is in {its}, not in the region {region}")
    if not region and not its:
        raise PropertyError(
            f"property {key}: the region of {zone} is not known; say {cloud}.region"
        )


def _check_macs(given: Mapping[str, str]) -> None:
    """Raise PropertyError if two interfaces have one MAC address, by which EC2 lists them."""
    macs = {given.get("ec2.mac", given.get("mac")): "the guest"}
    for key, mac in given.items():
        if key.startswith("interfaces.") and key.endswith(".mac"):
            other = macs.setdefault(mac, key)
            if other != key:
                raise PropertyError(f"property {key}: {other} has {mac} already")


def _known(key: str) -> Property:
    cloud, _, plain = key.partition(".")
    if cloud in CLOUDS and plain in PER_CLOUD:
        return KNOWN[plain]
    if key in KNOWN:
        return KNOWN[key]
    for prefix, known in PREFIXES.items():
        if key.startswith(prefix):
            if re.fullmatch(known.rest, key[len(prefix) :]) is not None:
                return known.ends.get(key.rpartition(".")[2], known.value)
            raise PropertyError(f"property {key!r}: after {prefix} stands {known.hint}")
    names = [*KNOWN, *PREFIXES, *(f"{cloud}.{name}" for cloud in CLOUDS for name in PER_CLOUD)]
    near = get_close_matches(key, names, 3, 0.6)
    which = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(KNOWN)}, …"
    raise PropertyError(f"no property is called {key!r}; {which}")
