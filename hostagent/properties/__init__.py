"""The properties of a guest: what each cloud tells of it.

Properties are a flat map of dotted keys. A key that a guest lacks has a default, which is derived
from the guest's name where guests must differ. A key of `PER_CLOUD` may be given for one cloud
alone: `azure.region`, `ec2.user_data`, `gce.zone`. Pure.

`known` is the table of keys, `checks` refuses what is not in it, `places` says where a guest is,
and `contents` keeps bytes as text. The agent, the responder and `netemu` use them.
"""

from hostagent.model import Guest
from hostagent.properties.checks import MAX_PROPERTIES_BYTES, PropertyError, check
from hostagent.properties.contents import content, data_url
from hostagent.properties.known import (
    CLOUDS,
    KNOWN,
    PER_CLOUD,
    PREFIXES,
    Cloud,
    Property,
    is_ec2_tag,
)
from hostagent.properties.places import place, region, zone

__all__ = [
    "CLOUDS",
    "KNOWN",
    "MAX_PROPERTIES_BYTES",
    "PER_CLOUD",
    "PREFIXES",
    "Cloud",
    "Property",
    "PropertyError",
    "check",
    "content",
    "data_url",
    "given",
    "is_ec2_tag",
    "place",
    "region",
    "under",
    "value",
    "zone",
]


def given(guest: Guest, key: str, cloud: Cloud) -> str | None:
    """Return the property that was given: the cloud's own value, or the plain one."""
    own = guest.properties.get(f"{cloud}.{key}")
    return guest.properties.get(key) if own is None else own


def value(guest: Guest, key: str, cloud: Cloud | None = None) -> str:
    """Return the guest's property: the cloud's own value, or the plain one, or the default."""
    told = guest.properties.get(key) if cloud is None else given(guest, key, cloud)
    if told is not None:
        return told
    default = KNOWN[key].default
    return default if isinstance(default, str) else default(guest)


def under(guest: Guest, prefix: str) -> dict[str, str]:
    """Return the properties under a prefix (`tags.`), by the rest of their keys, in order."""
    return {
        key[len(prefix) :]: text
        for key, text in sorted(guest.properties.items())
        if key.startswith(prefix)
    }
