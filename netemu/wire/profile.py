"""How a lab keeps its guests apart: one value, by which the supervisor builds every lab.

Every lab that a person asks for has the defaults. Only the conformance suite makes others
(`netemu.conformance.weakened`), to see its rows fail.
"""

from enum import StrEnum

import msgspec

from netemu.interfaces import BRIDGE
from netemu.kernel import bridging, sockets, sysctl
from netemu.kernel.guard import Rules, standard
from netemu.linklocal import addresses, ipv6
from netemu.topology import Policy


class Identity(StrEnum):
    """What a responder knows a guest by. The words are those of its option `--identity`."""

    MARK = "mark"
    ADDRESS = "address"


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What keeps guests apart from each other and from their node."""

    sysctls: sysctl.Settings = sysctl.NODE
    """The kernel settings of a node."""
    rules: Rules = msgspec.field(default_factory=standard)
    """The guard of a node."""
    ports: dict[Policy, bridging.PortOptions] = msgspec.field(
        default_factory=lambda: {
            Policy.RESPONDER_ONLY: bridging.ISOLATED,
            Policy.SAME_NODE: bridging.TOGETHER,
        }
    )
    """How a node's bridge treats its guests' ports."""
    listener: sockets.Listener = sockets.Listener(addresses.METADATA_TEXT, BRIDGE)
    """Where a node's responder listens."""
    ipv6_sysctls: sysctl.Settings = sysctl.NODE_IPV6
    """The settings that a node has besides where its guests' links speak IPv6."""
    ipv6_listeners: tuple[sockets.Listener, ...] = tuple(
        sockets.Listener(one, BRIDGE) for one in ipv6.METADATA
    )
    """Where its responder listens too in such a lab."""
    responder: tuple[str, ...] = ("hostagent", "responder")
    """The module that answers on a node, and its first argument; more of them follow."""
    identity: Identity = Identity.MARK
    resets: bool = True
    """Whether the connections of an address are reset before another guest may get it."""
