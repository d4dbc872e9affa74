"""What keeps guests apart, by name, so that a check can be seen to fail where it is missing.

Nothing is ever left out of a lab that a person asks for: no lab file can say so. The conformance
suite builds labs without, to prove that each of its rows notices.
"""

from collections.abc import Collection
from enum import StrEnum


class Protection(StrEnum):
    """One thing that keeps guests apart."""

    INGRESS = "ingress"  # the allow-list of what a guest may send
    EGRESS = "egress"  # the allow-list of what may reach a guest
    HOST = "host"  # what the node's own stack takes in, forwards and sends
    MARKS = "marks"  # the mark of the port as the identity of whoever connects
    SYSCTLS = "sysctls"  # settings away from what a new namespace begins with
    BRIDGE = "bridge"  # ports isolated, learning and unknown-unicast flooding off
    LISTENER = "listener"  # bound to the address and the bridge, answers that do not outlive a hop
    RESETS = "resets"  # an address that is handed over leaves no connections behind
    NAMESPACES = "namespaces"  # a guest's own user, mounts and processes
    RESPONDER = "responder"  # a strict reader of HTTP, bounds on what one guest may hold


Without = Collection[Protection]
"""What a lab is built without; empty for every lab but those of a proof."""
