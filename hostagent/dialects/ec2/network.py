"""A guest's names and network interfaces in EC2's instance metadata. Pure.

The first interface is the guest's own. `interfaces.N.KEY` tells more of it (N is 0), and of others.
Those exist in the metadata alone.
"""

from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from typing import Final

from msgspec import Struct

from hostagent.addresses import LINK_LOCAL, LINK_LOCAL_PREFIX
from hostagent.dialects.ec2.events import Entries
from hostagent.model import Guest
from hostagent.properties import given, region, under, value
from hostagent.regions import aws

_BLOCK: Final = f"{LINK_LOCAL}/{LINK_LOCAL_PREFIX}"


class Interface(Struct, frozen=True):
    """One interface; `more` is what else its properties say."""

    number: int
    mac: str
    ipv4s: tuple[str, ...]
    public_ipv4s: tuple[str, ...]
    more: Mapping[str, str]


def interfaces(guest: Guest) -> list[Interface]:
    """Return the guest's interfaces, by number."""
    said: dict[int, dict[str, str]] = {0: {}}
    for key, text in under(guest, "interfaces.").items():
        number, _, name = key.partition(".")
        said.setdefault(int(number), {})[name] = text
    return [_interface(guest, number, said[number]) for number in sorted(said)]


def _interface(guest: Guest, number: int, said: Mapping[str, str]) -> Interface:
    public = said.get("public_ipv4s", "" if number else value(guest, "public_ipv4"))
    if not number:
        address = value(guest, "address", "ec2")
        ipv4s = [address, *said.get("ipv4s", "").split()] if address else []
        mac = value(guest, "mac", "ec2")
    else:
        digest = sha256(f"interface {number}:{guest.name}".encode()).digest()
        mac = said.get("mac") or "02:" + digest[:5].hex(":")
        ipv4s = said.get("ipv4s", f"10.{number}.{digest[5]}.{1 + digest[6] % 254}").split()
    return Interface(number, mac, tuple(ipv4s), tuple(public.split()), said)


def name(guest: Guest) -> str:
    """Return the name that the guest is given, or EC2's own for its private address."""
    told = given(guest, "hostname", "ec2")
    address = value(guest, "address", "ec2")
    return told or (private_name(guest, address) if address else guest.name)


def private_name(guest: Guest, address: str) -> str:
    """Return the name of a private address in EC2's DNS."""
    place = region(guest, "ec2")
    domain = "ec2.internal" if place == "us-east-1" else f"{place}.compute.internal"
    return f"ip-{address.replace('.', '-')}.{domain}"


def public_name(guest: Guest, address: str) -> str:
    """Return the name of a public address in EC2's DNS."""
    place = region(guest, "ec2")
    where = "compute-1" if place == "us-east-1" else f"{place}.compute"
    return f"ec2-{address.replace('.', '-')}.{where}.{aws.partition(place).dns_suffix}"


def network(guest: Guest) -> Entries:
    """Return the tree below `network`."""
    macs: Entries = {f"{one.mac}/": partial(_told, guest, one) for one in interfaces(guest)}
    return {"interfaces/": {"macs/": macs}}


def _told(guest: Guest, one: Interface) -> Entries:
    first = not one.number
    seed = "interface" if first else f"interface {one.number}"
    digest = sha256(f"{seed}:{guest.name}".encode()).hexdigest()
    vpc = digest if first else sha256(f"interface:{guest.name}".encode()).hexdigest()
    block = _BLOCK if first else f"10.{one.number}.0.0/16"
    tree: Entries = {
        "device-number": str(one.number),
        "interface-id": f"eni-{digest[:17]}",
        "local-hostname": name(guest) if first else private_name(guest, one.ipv4s[0]),
        "mac": one.mac,
        "owner-id": value(guest, "account_id"),
        "security-group-ids": f"sg-{digest[17:34]}",
        "security-groups": "\n".join(value(guest, "security_groups").split()),
        "subnet-id": f"subnet-{digest[34:51]}",
        "subnet-ipv4-cidr-block": one.more.get("subnet", block),
        "vpc-id": f"vpc-{vpc[40:57]}",
        "vpc-ipv4-cidr-block": one.more.get("vpc", block),
        "vpc-ipv4-cidr-blocks": one.more.get("vpc", block),
    }
    if one.ipv4s:
        tree["local-ipv4s"] = "\n".join(one.ipv4s)
    if one.public_ipv4s:
        tree["public-ipv4s"] = "\n".join(one.public_ipv4s)
        tree["public-hostname"] = public_name(guest, one.public_ipv4s[0])
        tree["ipv4-associations/"] = dict(zip(one.public_ipv4s, one.ipv4s, strict=False))
    for key, file in _OPTIONAL.items():
        if text := one.more.get(key):
            tree[file] = "\n".join(text.split())
    return tree


_OPTIONAL: Final = {
    "ipv6s": "ipv6s",
    "ipv4_prefixes": "ipv4-prefix",
    "ipv6_prefixes": "ipv6-prefix",
    "network_card": "network-card-index",
    "subnet_ipv6": "subnet-ipv6-cidr-blocks",
    "vpc_ipv6": "vpc-ipv6-cidr-blocks",
}
"""Keys of interfaces, and the files that an interface has only if they are given."""
