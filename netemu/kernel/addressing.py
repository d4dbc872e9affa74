"""Netlink requests about addresses, neighbours and routes. Pure: `netlink` sends them."""

import errno
import socket
from functools import cache
from typing import Any

from netemu.kernel.netlink import DELNEIGH, DO, MAKE, NEWNEIGH, PUT, Message, encode
from netemu.kernel.rtnl_messages import fibmsg, ifaddrmsg, ndmsg, rtmsg

# linux/rtnetlink.h, linux/neighbour.h
_NEWADDR, _DELADDR, _NEWROUTE, _NEWRULE = 20, 21, 24, 32
_NUD_PERMANENT = 0x80
_SCOPE_LINK = 253
_NO_DAD = 0x02  # IFA_F_NODAD, linux/if_addr.h
_MAIN_TABLE = 254


def address(
    index: int, text: str, prefix: int, broadcast: str, *, link_scope: bool = True
) -> Message:
    """Add an address, of link scope or global. It is not an error if the link has it already."""
    scope = _SCOPE_LINK if link_scope else 0
    return Message(
        f"address {text}",
        encode(*_address(index, text, prefix, broadcast, _NEWADDR, PUT, scope)),
    )


def ipv6_address(index: int, text: str, prefix: int) -> Message:
    """Add an IPv6 address, to be used at once: nobody else may hold it."""
    message = ifaddrmsg()
    message["family"] = socket.AF_INET6
    message["prefixlen"] = prefix
    message["index"] = index
    message["flags"] = _NO_DAD
    attributes = [("IFA_ADDRESS", text)]
    return Message(f"address {text}", encode(message, _NEWADDR, PUT, attributes))


def ipv6_route(index: int, text: str) -> Message:
    """This one address is on the link."""
    message = rtmsg()
    message["family"] = socket.AF_INET6
    message["dst_len"] = 128
    message["table"] = _MAIN_TABLE
    message["proto"] = 4  # RTPROT_STATIC
    message["type"] = 1  # RTN_UNICAST
    attributes = [("RTA_DST", text), ("RTA_OIF", index)]
    return Message(f"the route to {text}", encode(message, _NEWROUTE, PUT, attributes))


def no_address(index: int, text: str, prefix: int, broadcast: str) -> Message:
    """Remove an address. It is not an error if the link does not have it."""
    return Message(
        f"address {text} removed",
        encode(*_address(index, text, prefix, broadcast, _DELADDR, DO, _SCOPE_LINK)),
        tolerate=errno.EADDRNOTAVAIL,
    )


def _address(
    index: int, text: str, prefix: int, broadcast: str, kind: int, flags: int, scope: int
) -> tuple[Any, int, int, list[tuple[str, Any]]]:
    message = ifaddrmsg()
    message["family"] = socket.AF_INET
    message["prefixlen"] = prefix
    message["index"] = index
    message["scope"] = scope
    attributes = [("IFA_LOCAL", text), ("IFA_ADDRESS", text), ("IFA_BROADCAST", broadcast)]
    return message, kind, flags, attributes


def neighbour(index: int, text: str, mac: str) -> Message:
    """Enter a permanent neighbour: the MAC of an address."""
    attributes = [("NDA_DST", text), ("NDA_LLADDR", mac)]
    return Message(f"neighbour {text}", encode(_neighbour(index, text), NEWNEIGH, PUT, attributes))


def no_neighbour(index: int, text: str) -> Message:
    """Remove a neighbour. It is not an error if there is none."""
    return Message(
        f"neighbour {text} removed",
        encode(_neighbour(index, text), DELNEIGH, DO, [("NDA_DST", text)]),
        tolerate=errno.ENOENT,
    )


def _neighbour(index: int, text: str) -> Any:
    message = ndmsg()
    message["family"] = socket.AF_INET6 if ":" in text else socket.AF_INET
    message["ifindex"] = index
    message["state"] = _NUD_PERMANENT
    return message


# RFC 3927 section 2.6.2 needs a routing table of its own; its number is the RFC's.
DIRECT_TABLE = 3927


@cache
def direct_rule(source: str, prefix: int) -> Message:
    """RFC 3927 section 2.6.2: a packet with a link-local source never goes to a router."""
    message = fibmsg()
    message["family"] = socket.AF_INET
    message["src_len"] = prefix
    message["table"] = 0
    message["action"] = 1  # FR_ACT_TO_TBL
    attributes = [("FRA_SRC", source), ("FRA_TABLE", DIRECT_TABLE), ("FRA_PRIORITY", DIRECT_TABLE)]
    return Message(
        "the rule for link-local sources",
        encode(message, _NEWRULE, MAKE, attributes),
        tolerate=errno.EEXIST,
    )


@cache
def direct_route(index: int) -> Message:
    """In that table, every address is on the link, to be resolved by ARP."""
    message = rtmsg()
    message["family"] = socket.AF_INET
    message["table"] = 0
    message["proto"] = 4  # RTPROT_STATIC
    message["type"] = 1  # RTN_UNICAST
    message["scope"] = _SCOPE_LINK
    attributes = [("RTA_OIF", index), ("RTA_TABLE", DIRECT_TABLE)]
    return Message("the route for link-local sources", encode(message, _NEWROUTE, PUT, attributes))
