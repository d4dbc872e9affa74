"""The interfaces of a lab: their names, and the mark of a port. Pure."""

from typing import Final, NewType

Mark = NewType("Mark", int)
"""The number of a guest's port, unique in the lab: frames from the port pN carry the mark N."""

BRIDGE: Final = "br0"
"""The bridge of every node."""
GUEST_WIRE: Final = "eth0"
"""A guest's end of its wire."""
TENANT_WIRE: Final = "eth1"
"""Its end of the wire to the lab's tenant network."""


def port_name(mark: Mark) -> str:
    """The name of a port: the node's end of a guest's wire."""
    return f"p{mark}"


def octets(mac: str) -> bytes:
    """The six bytes of a MAC that is written with colons."""
    return bytes.fromhex(mac.replace(":", ""))
