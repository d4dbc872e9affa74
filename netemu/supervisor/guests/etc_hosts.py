"""The names that a guest can resolve: the content of its /etc/hosts, as it reaches no name server.
Pure.

As in a cloud's own image, the metadata service has the names that its clients use, if the guest's
node speaks for that cloud. A client that looks for a cloud by its name must not find another one.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from netemu.linklocal.addresses import METADATA_TEXT
from netemu.topology import Guest, Node

_LOCAL: Final = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
# Compute Engine's images have these two in their /etc/hosts; EC2's name servers know the others.
_SERVICE: Final = {
    "gce": "metadata.google.internal metadata",
    "ec2": "instance-data.ec2.internal instance-data",
}


def service_names(node: Node) -> list[str]:
    """The names of the metadata service, as the clouds that a node speaks for have them."""
    return [
        name
        for dialect, names in _SERVICE.items()
        if dialect in node.dialects.names
        for name in names.split()
    ]


class Names(NamedTuple):
    """A guest's host name, its /etc/hosts, the address of its name server ("": it has none), and
    its present properties.
    """

    hostname: str
    hosts: str
    resolver: str = ""
    properties: Mapping[str, str] = {}


def hosts(guest: Guest, node: Node, tenants: str, hostname: str = "") -> str:
    """The file for a guest that boots on `node`; `tenants` are the lines of the tenant network.

    `hostname` is what the guest calls itself, its own name by default.
    """
    # With a last dot, too, as clients write a name that is to be searched in no domain: the C
    # library looks a name up here as it is written.
    service = [
        f"{METADATA_TEXT}\t{name}{f' {name}.' if '.' in name else ''}\n"
        for name in service_names(node)
    ]
    # As in Debian's file for a host without a lasting address: a host can resolve its own name.
    called = " ".join(dict.fromkeys((hostname or guest.name, guest.name)))
    own = f"{guest.tenant[0] if guest.tenant else '127.0.1.1'}\t{called}\n"
    # The first line with a name counts: a guest called `metadata` hides no service.
    return _LOCAL + "".join(service) + own + tenants


def tenants(guests: Iterable[Guest]) -> str:
    """Lines for the guests with tenant addresses: the name of each has its first one."""
    return "".join(f"{guest.tenant[0]}\t{guest.name}\n" for guest in guests if guest.tenant)
