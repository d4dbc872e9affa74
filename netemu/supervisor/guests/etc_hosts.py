"""The names that a guest can resolve: what stands in its /etc/hosts, with no name server in reach.

As in a cloud's own image: the metadata service by the names that its clients may call it, where the
guest's node speaks for that cloud. Clients that look for a cloud by its name must not find another.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from netemu.linklocal.addresses import METADATA_TEXT
from netemu.topology import Guest, Node

_LOCAL: Final = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
# Compute Engine's images have these two in their /etc/hosts; EC2's name servers know the others.
_SERVICE: Final = {
    "gce": "metadata.google.internal metadata",
    "ec2": "instance-data.ec2.internal instance-data",
}


class Names(NamedTuple):
    """What a guest calls itself, and what stands in its /etc/hosts."""

    hostname: str
    hosts: str


def hosts(guest: Guest, node: Node, tenants: str, hostname: str = "") -> str:
    """The file for a guest that boots on `node`; `tenants` are the lines of the tenant network.

    `hostname` is what the guest calls itself, its own name by default.
    """
    service = [
        f"{METADATA_TEXT}\t{names}\n"
        for dialect, names in _SERVICE.items()
        if dialect in node.dialects.names
    ]
    # As Debian has it for who has no lasting address: a host can resolve its own name.
    called = " ".join(dict.fromkeys((hostname or guest.name, guest.name)))
    own = f"{guest.tenant[0] if guest.tenant else '127.0.1.1'}\t{called}\n"
    # The first line that has a name counts: a guest that is called `metadata` hides no service.
    return _LOCAL + "".join(service) + own + tenants


def tenants(guests: Iterable[Guest]) -> str:
    """Lines for the guests with tenant addresses: the name of each has its first one."""
    return "".join(f"{guest.tenant[0]}\t{guest.name}\n" for guest in guests if guest.tenant)
