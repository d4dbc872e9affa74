"""Netlink requests about links: bridges, wires, ports, and the settings of a guest's links. Pure:
`netlink` sends them.
"""

import errno
import os
import socket
import struct
from functools import cache
from typing import Any

from netemu.interfaces import GUEST_WIRE, octets
from netemu.kernel.bridging import PortOptions
from netemu.kernel.netlink import (
    AF_BRIDGE,
    DELLINK,
    DO,
    MAKE,
    NEWLINK,
    NEWNEIGH,
    PUT,
    Message,
    attribute,
    encode,
    fill,
    nested,
)
from netemu.kernel.rtnl_messages import ifinfmsg, ndmsg

# linux/rtnetlink.h
_SETLINK, _SETNEIGHTBL = 19, 67
_IFF_UP = 1
_NUD_NOARP, _NTF_MASTER = 0x40, 0x04
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER, _IFLA_IFALIAS, _NDA_LLADDR = 1, 3, 10, 20, 2
_IFLA_PROTINFO, _IFLA_BRPORT_STATE, _NLA_F_NESTED = 12, 1, 0x8000
# linux/if_link.h, linux/ip.h, linux/neighbour.h
_IFLA_AF_SPEC, _IFLA_INET_CONF, _IFLA_INET6_ADDR_GEN_MODE = 26, 1, 8
_IPV4_DEVCONF_ARP_ANNOUNCE, _IPV4_DEVCONF_ARP_IGNORE, _ADDR_GEN_MODE_NONE = 18, 19, 1
_ADDR_GEN_MODE_EUI64 = 0
_NDTA_NAME, _NDTA_PARMS = 1, 6
_NDTPA_IFINDEX, _NDTPA_UCAST_PROBES, _NDTPA_MCAST_REPROBES = 1, 10, 17


def bridge(name: str, index: int, mac: str) -> Message:
    """Make a bridge, without STP and IGMP snooping."""
    message = ifinfmsg()
    message["index"] = index
    data = nested(("IFLA_BR_STP_STATE", 0), ("IFLA_BR_MCAST_SNOOPING", 0))
    kind = nested(("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", data))
    attributes = [("IFLA_IFNAME", name), ("IFLA_ADDRESS", mac), ("IFLA_LINKINFO", kind)]
    return Message(f"bridge {name}", encode(message, NEWLINK, MAKE, attributes))


# eth0 gets this index in every guest; 1 is the loopback's. eth1, where there is one, the next.
GUEST_INDEX = 2
TENANT_INDEX = 3


def wire(
    port: str,
    index: int,
    bridge_index: int,
    net: int,
    mac: str,
    alias: str,
    peer: tuple[str, int] = (GUEST_WIRE, GUEST_INDEX),
) -> Message:
    """Make a guest's wire: `port`, down, on the bridge; and `peer`, down, in the namespace `net`.

    `peer` is the name and the index that the guest's end gets.
    """
    template = _wire(bridge_index, *peer)
    template = template.replace(struct.pack("=i", _SOME_NET), struct.pack("=i", net))
    template = template.replace(octets(_SOME_MAC), octets(mac))
    name = attribute(_IFLA_IFNAME, port.encode() + b"\0")
    called = attribute(_IFLA_IFALIAS, alias.encode())
    return Message(f"the wire of {alias}", fill(template, index, name, called))


# Placeholders in a template message. They are found by value, which nothing else in it contains.
_SOME_NET = 0x5C5D5E5F
_SOME_MAC = "02:6b:6c:6d:6e:6f"


@cache
def _wire(bridge_index: int, name: str, peer_index: int) -> bytes:
    peer: dict[str, Any] = nested(
        ("IFLA_IFNAME", name), ("IFLA_ADDRESS", _SOME_MAC), ("IFLA_NET_NS_FD", _SOME_NET)
    )
    peer["index"] = peer_index
    kind = nested(("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", nested(("VETH_INFO_PEER", peer))))
    attributes = [("IFLA_MASTER", bridge_index), ("IFLA_LINKINFO", kind)]
    return encode(ifinfmsg(), NEWLINK, MAKE, attributes)


def pair(name: str, index: int, peer: str, peer_index: int) -> Message:
    """Make a wire both ends of which are here, and down."""
    far: dict[str, Any] = nested(("IFLA_IFNAME", peer))
    far["index"] = peer_index
    kind = nested(("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", nested(("VETH_INFO_PEER", far))))
    message = ifinfmsg()
    message["index"] = index
    attributes = [("IFLA_IFNAME", name), ("IFLA_LINKINFO", kind)]
    return Message(f"the wire {name}", encode(message, NEWLINK, MAKE, attributes))


def place(index: int, name: str, bridge_index: int) -> Message:
    """Call a link `name`, then put it on a bridge; on none, if that is 0."""
    called = attribute(_IFLA_IFNAME, name.encode() + b"\0")
    on = attribute(_IFLA_MASTER, struct.pack("=I", bridge_index))
    return Message(f"placing {name}", fill(_link(), index, called, on))


def no_link(name: str, index: int) -> Message:
    """Remove a link; the other end of a wire goes with it. It is not an error if it is gone."""
    return Message(f"{name} removed", fill(_no_link(), index), tolerate=errno.ENODEV)


@cache
def _no_link() -> bytes:
    return encode(ifinfmsg(), DELLINK, DO, [])


def retire(port: str, index: int) -> tuple[Message, Message]:
    """Set a port down, take it off its bridge, and free its name. It is not an error if it is gone.

    The link itself ends with the namespace of its other end. The kernel removes those in batches;
    removing one link takes some 30 ms, during which the caller would wait.
    """
    aside = place(index, f"x{index}", 0)._replace(tolerate=errno.ENODEV)
    return no_carrier(port, index), aside


def port_options(port: str, index: int, options: PortOptions) -> Message:
    """Set how the bridge treats a port."""
    return Message(f"port {port}", fill(_port_options(options), index))


@cache
def _port_options(chosen: PortOptions) -> bytes:
    options = nested(
        ("IFLA_BRPORT_ISOLATED", int(chosen.isolated)),
        ("IFLA_BRPORT_LEARNING", int(chosen.learning)),
        ("IFLA_BRPORT_UNICAST_FLOOD", int(chosen.unicast_flood)),
        ("IFLA_BRPORT_MCAST_FLOOD", int(chosen.multicast_flood)),
        ("IFLA_BRPORT_BCAST_FLOOD", 1),
    )
    kind = nested(("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", options))
    return encode(ifinfmsg(), NEWLINK, DO, [("IFLA_LINKINFO", kind)])


def station(port: str, index: int, mac: str) -> Message:
    """Enter in the bridge's table, permanently, that `mac` is behind `port`."""
    there = attribute(_NDA_LLADDR, octets(mac))
    return Message(f"{mac} behind {port}", fill(_station(), index, there))


@cache
def _station() -> bytes:
    message = ndmsg()
    message["family"] = AF_BRIDGE
    message["state"] = _NUD_NOARP  # static; "permanent" would mean an address of the bridge's own
    message["flags"] = _NTF_MASTER
    return encode(message, NEWNEIGH, PUT, [])


def up(name: str, index: int) -> Message:
    """Set a link up."""
    return _flags(name, index, _IFF_UP)


def down(name: str, index: int) -> Message:
    """Set a link down."""
    return _flags(name, index, 0)


def no_carrier(port: str, index: int) -> Message:
    """Set a port down, so that the other end of its wire loses its carrier.

    It is not an error if it is gone.
    """
    return down(port, index)._replace(tolerate=errno.ENODEV)


def _flags(name: str, index: int, flags: int) -> Message:
    return Message(f"{name} {'up' if flags else 'down'}", fill(_with_flags(flags), index))


@cache
def _with_flags(flags: int) -> bytes:
    message = ifinfmsg()
    message["flags"] = flags
    message["change"] = _IFF_UP
    return encode(message, NEWLINK, DO, [])


@cache
def manners(
    name: str,
    index: int,
    *,
    arp_ignore: int,
    arp_announce: int | None = None,
    ipv6: bool = False,
) -> Message:
    """The settings of a guest's link: those of net.ipv4.conf.NAME, and no automatic IPv6 address
    (addr_gen_mode none); with `ipv6`, the one that its MAC gives.

    In a new namespace this takes a tenth of the time of opening a file in /proc/sys. Those files
    become slower with each namespace: the kernel keeps the open ones of all namespaces under one
    name, and searches them.
    """
    values = {_IPV4_DEVCONF_ARP_IGNORE: arp_ignore}
    if arp_announce is not None:
        values[_IPV4_DEVCONF_ARP_ANNOUNCE] = arp_announce
    settings = b"".join(attribute(kind, struct.pack("=I", value)) for kind, value in values.items())
    families = attribute(socket.AF_INET, attribute(_IFLA_INET_CONF, settings))
    if has_ipv6():  # a kernel without IPv6 needs no telling
        families += _addresses_itself(_ADDR_GEN_MODE_EUI64 if ipv6 else _ADDR_GEN_MODE_NONE)
    data = fill(_link(), index, attribute(_IFLA_AF_SPEC, families))
    return Message(f"setting net.ipv4.conf.{name}", data)


def has_ipv6() -> bool:
    """Whether this kernel speaks IPv6."""
    return os.path.exists("/proc/net/if_inet6")


def _addresses_itself(mode: int) -> bytes:
    return attribute(socket.AF_INET6, attribute(_IFLA_INET6_ADDR_GEN_MODE, struct.pack("=B", mode)))


def no_ipv6_of_its_own(name: str, index: int) -> Message:
    """Have a link make itself no IPv6 address."""
    families = _addresses_itself(_ADDR_GEN_MODE_NONE)
    return Message(f"setting {name}", fill(_link(), index, attribute(_IFLA_AF_SPEC, families)))


@cache
def _link() -> bytes:
    return encode(ifinfmsg(), NEWLINK, DO, [])


@cache
def broadcast_arp(name: str, index: int) -> Message:
    """Have the kernel resolve a link's addresses by broadcast, even where it knows the MAC."""
    parameters = b"".join(
        attribute(kind, struct.pack("=I", value))
        for kind, value in (
            (_NDTPA_IFINDEX, index),
            (_NDTPA_UCAST_PROBES, 0),
            (_NDTPA_MCAST_REPROBES, 3),
        )
    )
    table = attribute(_NDTA_NAME, b"arp_cache\0") + attribute(_NDTA_PARMS, parameters)
    body = struct.pack("=BxH", socket.AF_INET, 0) + table
    head = struct.pack("=IHHII", 16 + len(body), _SETNEIGHTBL, DO, 0, 0)
    return Message(f"setting net.ipv4.neigh.{name}", head + body)
