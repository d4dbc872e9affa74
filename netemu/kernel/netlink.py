"""Route netlink in acknowledged batches: what is to be made, then one exchange for all of it.

The messages are pyroute2's; the socket is a plain one, because pyroute2's own forks a process for
each namespace that it is to speak in. A message is a pair: what it asks, in words, and its bytes.
"""

import errno
import socket
import struct
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from netemu.kernel.errors import KernelError

# linux/rtnetlink.h, linux/netlink.h
_NEWLINK, _DELLINK, _NEWADDR, _DELADDR, _NEWROUTE = 16, 17, 20, 21, 24
_SETLINK, _NEWNEIGH, _DELNEIGH, _NEWRULE, _SETNEIGHTBL = 19, 28, 29, 32, 67
_REQUEST, _ACK, _REPLACE, _EXCL, _CREATE = 0x1, 0x4, 0x100, 0x200, 0x400
_MAKE = _REQUEST | _ACK | _CREATE | _EXCL
_PUT = _REQUEST | _ACK | _CREATE | _REPLACE
_DO = _REQUEST | _ACK
_NLMSG_ERROR = 2
_NLMSGERR_ATTR_MSG = 1
_NLM_F_ACK_TLVS = 0x200
_SOL_NETLINK, _EXT_ACK, _CAP_ACK = 270, 11, 10
_IFF_UP = 1
_NUD_NOARP, _NUD_PERMANENT, _NTF_MASTER = 0x40, 0x80, 0x04
_SCOPE_LINK = 253
_AF_BRIDGE = 7
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_IFALIAS, _IFLA_NET_NS_FD, _NDA_LLADDR = 1, 3, 20, 28, 2
_BR_STATE_DISABLED, _BR_STATE_FORWARDING = 0, 3  # linux/if_bridge.h
_IFLA_PROTINFO, _IFLA_BRPORT_STATE, _NLA_F_NESTED = 12, 1, 0x8000
# linux/if_link.h, linux/ip.h, linux/neighbour.h
_IFLA_AF_SPEC, _IFLA_INET_CONF, _IPV4_DEVCONF_ARP_IGNORE = 26, 1, 19
_NDTA_NAME, _NDTA_PARMS = 1, 6
_NDTPA_IFINDEX, _NDTPA_UCAST_PROBES, _NDTPA_MCAST_REPROBES = 1, 10, 17

# An acknowledgement takes about 800 bytes of the socket's default 208 KiB: well within it.
BATCH = 64


class Message(NamedTuple):
    """A request in words, for errors, and in bytes; `tolerate` is an errno that does not matter."""

    what: str
    data: bytes
    tolerate: int = 0


class Netlink:
    """A route netlink socket in the namespace in which it was made."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, 0))
        for option in (_EXT_ACK, _CAP_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)

    def __enter__(self) -> "Netlink":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def run(self, messages: Iterable[Message]) -> None:
        """Carry out all messages in order; raise KernelError for the first that is refused."""
        rest = iter(messages)
        while batch := list(islice(rest, BATCH)):
            self._exchange(batch)

    def _exchange(self, batch: Sequence[Message]) -> None:
        # Each message gets its place in the batch as sequence number (bytes 8 to 12).
        self._socket.send(
            b"".join(
                message.data[:8] + struct.pack("=I", number) + message.data[12:]
                for number, message in enumerate(batch)
            )
        )
        refused: KernelError | None = None
        waiting = len(batch)
        while waiting:
            for number, code, text in _acknowledgements(self._socket.recv(65536)):
                waiting -= 1
                message = batch[number]
                if code and code != message.tolerate and refused is None:
                    refused = KernelError(message.what, code, text)
        if refused is not None:
            raise refused


def _acknowledgements(data: bytes) -> Iterable[tuple[int, int, str]]:
    """(sequence number, errno or 0, the kernel's own words) of each acknowledgement in `data`."""
    offset = 0
    while offset + 20 <= len(data):
        length, kind, flags, number = struct.unpack_from("=IHHI", data, offset)
        if kind == _NLMSG_ERROR:
            (code,) = struct.unpack_from("=i", data, offset + 16)
            # With CAP_ACK an error comes back with the request's header only: 16 + 4 + 16 bytes.
            text = _words(data[offset + 36 : offset + length]) if flags & _NLM_F_ACK_TLVS else ""
            yield number, -code, text
        offset += max(16, (length + 3) & ~3)


def _words(attributes: bytes) -> str:
    offset = 0
    while offset + 4 <= len(attributes):
        length, kind = struct.unpack_from("=HH", attributes, offset)
        if kind & 0x3FFF == _NLMSGERR_ATTR_MSG:
            return attributes[offset + 4 : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += max(4, (length + 3) & ~3)
    return ""


def _encode(message: Any, kind: int, flags: int, attributes: list[tuple[str, Any]]) -> bytes:
    message["attrs"] = attributes
    message["header"]["type"] = kind
    message["header"]["flags"] = flags
    message.encode()
    return bytes(message.data)


def _fill(template: bytes, index: int, *more: bytes) -> bytes:
    """A message encoded before, for another link, with more attributes.

    pyroute2 takes some 150 µs to encode what is the same for each guest but for a few bytes. The
    index stands at the same place in struct ifinfomsg and struct ndmsg.
    """
    data = b"".join((template[4:20], struct.pack("=i", index), template[24:], *more))
    return struct.pack("=I", 4 + len(data)) + data


def _attribute(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + bytes(-length % 4)


def _nested(*attributes: tuple[str, Any]) -> dict[str, Any]:
    return {"attrs": list(attributes)}


def bridge(name: str, index: int, mac: str) -> Message:
    """Make a bridge. It floods nothing that it does not know, and learns nothing."""
    message = ifinfmsg()
    message["index"] = index
    data = _nested(("IFLA_BR_STP_STATE", 0), ("IFLA_BR_MCAST_SNOOPING", 0))
    kind = _nested(("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", data))
    attributes = [("IFLA_IFNAME", name), ("IFLA_ADDRESS", mac), ("IFLA_LINKINFO", kind)]
    return Message(f"bridge {name}", _encode(message, _NEWLINK, _MAKE, attributes))


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
    peer: tuple[str, int] = ("eth0", GUEST_INDEX),
) -> Message:
    """Make a guest's wire: `port`, down, on the bridge; and `peer`, down, in the namespace `net`.

    `peer` is the name and the index that the guest's end gets.
    """
    template = _wire(bridge_index, *peer)
    template = template.replace(struct.pack("=i", _SOME_NET), struct.pack("=i", net))
    template = template.replace(_octets(_SOME_MAC), _octets(mac))
    name = _attribute(_IFLA_IFNAME, port.encode() + b"\0")
    called = _attribute(_IFLA_IFALIAS, alias.encode())
    return Message(f"the wire of {alias}", _fill(template, index, name, called))


# What stands in a message that is to be filled in: found by its value, of which nothing else has a
# part.
_SOME_NET = 0x5C5D5E5F
_SOME_MAC = "02:6b:6c:6d:6e:6f"


@cache
def _wire(bridge_index: int, name: str, peer_index: int) -> bytes:
    peer: dict[str, Any] = _nested(
        ("IFLA_IFNAME", name), ("IFLA_ADDRESS", _SOME_MAC), ("IFLA_NET_NS_FD", _SOME_NET)
    )
    peer["index"] = peer_index
    kind = _nested(
        ("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", _nested(("VETH_INFO_PEER", peer)))
    )
    attributes = [("IFLA_MASTER", bridge_index), ("IFLA_LINKINFO", kind)]
    return _encode(ifinfmsg(), _NEWLINK, _MAKE, attributes)


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def no_link(name: str, index: int) -> Message:
    """Take a link away, and with a wire's one end the other; that it is gone does not matter."""
    return Message(f"{name} removed", _fill(_no_link(), index), tolerate=errno.ENODEV)


@cache
def _no_link() -> bytes:
    return _encode(ifinfmsg(), _DELLINK, _DO, [])


def hand_over(name: str, index: int, net: int) -> Message:
    """Move a link of the present namespace into that of `net`, where it is down, as `name`.

    It keeps its index if that is free there, and loses its addresses.
    """
    called = _attribute(_IFLA_IFNAME, name.encode() + b"\0")
    there = _attribute(_IFLA_NET_NS_FD, struct.pack("=I", net))
    return Message(f"{name} into its new namespace", _fill(_link(), index, called, there))


def hardware_address(name: str, index: int, mac: str) -> Message:
    """Give a link its MAC."""
    data = _fill(_link(), index, _attribute(_IFLA_ADDRESS, _octets(mac)))
    return Message(f"{name}'s address {mac}", data)


def port_silent(port: str, index: int, *, silent: bool) -> Message:
    """Have the bridge neither take frames from a port nor give it any; its carrier stays.

    By the bridge's own family: after a change of the link the bridge looks at its carrier, and
    enables the port again.
    """
    state = _BR_STATE_DISABLED if silent else _BR_STATE_FORWARDING
    options = _attribute(
        _IFLA_PROTINFO | _NLA_F_NESTED, _attribute(_IFLA_BRPORT_STATE, bytes([state]))
    )
    body = struct.pack("=BxHiII", _AF_BRIDGE, 0, index, 0, 0) + options
    head = struct.pack("=IHHII", 16 + len(body), _SETLINK, _DO, 0, 0)
    return Message(f"port {port}", head + body)


def port_options(port: str, index: int, *, isolated: bool) -> Message:
    """Let a port learn nothing and be flooded with broadcast only; isolate it from the others."""
    return Message(f"port {port}", _fill(_port_options(isolated), index))


@cache
def _port_options(isolated: bool) -> bytes:
    options = _nested(
        ("IFLA_BRPORT_ISOLATED", int(isolated)),
        ("IFLA_BRPORT_LEARNING", 0),
        ("IFLA_BRPORT_UNICAST_FLOOD", 0),
        ("IFLA_BRPORT_MCAST_FLOOD", int(not isolated)),
        ("IFLA_BRPORT_BCAST_FLOOD", 1),
    )
    kind = _nested(("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", options))
    return _encode(ifinfmsg(), _NEWLINK, _DO, [("IFLA_LINKINFO", kind)])


def station(port: str, index: int, mac: str) -> Message:
    """Tell the bridge for good behind which port `mac` is."""
    there = _attribute(_NDA_LLADDR, _octets(mac))
    return Message(f"{mac} behind {port}", _fill(_station(), index, there))


@cache
def _station() -> bytes:
    message = ndmsg()
    message["family"] = _AF_BRIDGE
    message["state"] = _NUD_NOARP  # static; "permanent" would mean an address of the bridge's own
    message["flags"] = _NTF_MASTER
    return _encode(message, _NEWNEIGH, _PUT, [])


def up(name: str, index: int) -> Message:
    """Set a link up."""
    return _flags(name, index, _IFF_UP)


def down(name: str, index: int) -> Message:
    """Set a link down."""
    return _flags(name, index, 0)


def _flags(name: str, index: int, flags: int) -> Message:
    return Message(f"{name} {'up' if flags else 'down'}", _fill(_with_flags(flags), index))


@cache
def _with_flags(flags: int) -> bytes:
    message = ifinfmsg()
    message["flags"] = flags
    message["change"] = _IFF_UP
    return _encode(message, _NEWLINK, _DO, [])


@cache
def silent_arp(name: str, index: int) -> Message:
    """Have a link's kernel answer no ARP by itself: net.ipv4.conf.NAME.arp_ignore=8.

    Like `broadcast_arp` it takes a tenth of what opening the file in /proc/sys does, in a namespace
    in which nobody has been there before.
    """
    setting = _attribute(_IPV4_DEVCONF_ARP_IGNORE, struct.pack("=I", 8))
    family = _attribute(socket.AF_INET, _attribute(_IFLA_INET_CONF, setting))
    data = _fill(_link(), index, _attribute(_IFLA_AF_SPEC, family))
    return Message(f"setting net.ipv4.conf.{name}.arp_ignore", data)


@cache
def _link() -> bytes:
    return _encode(ifinfmsg(), _NEWLINK, _DO, [])


@cache
def broadcast_arp(name: str, index: int) -> Message:
    """Have a link's kernel ask by broadcast even where it knows whom to ask.

    It is net.ipv4.neigh.NAME.ucast_solicit=0 and mcast_resolicit=3.
    """
    parameters = b"".join(
        _attribute(kind, struct.pack("=I", value))
        for kind, value in (
            (_NDTPA_IFINDEX, index),
            (_NDTPA_UCAST_PROBES, 0),
            (_NDTPA_MCAST_REPROBES, 3),
        )
    )
    table = _attribute(_NDTA_NAME, b"arp_cache\0") + _attribute(_NDTA_PARMS, parameters)
    body = struct.pack("=BxH", socket.AF_INET, 0) + table
    head = struct.pack("=IHHII", 16 + len(body), _SETNEIGHTBL, _DO, 0, 0)
    return Message(f"setting net.ipv4.neigh.{name}", head + body)


def address(
    index: int, text: str, prefix: int, broadcast: str, *, link_scope: bool = True
) -> Message:
    """Add an address, of link scope or global; that it is there already does not matter."""
    scope = _SCOPE_LINK if link_scope else 0
    return Message(
        f"address {text}",
        _encode(*_address(index, text, prefix, broadcast, _NEWADDR, _PUT, scope)),
    )


def no_address(index: int, text: str, prefix: int, broadcast: str) -> Message:
    """Remove it; that it is gone already does not matter."""
    return Message(
        f"address {text} removed",
        _encode(*_address(index, text, prefix, broadcast, _DELADDR, _DO, _SCOPE_LINK)),
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
    """Know for good the MAC of an address."""
    attributes = [("NDA_DST", text), ("NDA_LLADDR", mac)]
    return Message(f"neighbour {text}", _encode(_neighbour(index), _NEWNEIGH, _PUT, attributes))


def no_neighbour(index: int, text: str) -> Message:
    """Forget it; that it is gone already does not matter."""
    return Message(
        f"neighbour {text} removed",
        _encode(_neighbour(index), _DELNEIGH, _DO, [("NDA_DST", text)]),
        tolerate=errno.ENOENT,
    )


def _neighbour(index: int) -> Any:
    message = ndmsg()
    message["family"] = socket.AF_INET
    message["ifindex"] = index
    message["state"] = _NUD_PERMANENT
    return message


# RFC 3927 section 2.6.2 needs a routing table of its own; its number is the RFC's.
DIRECT_TABLE = 3927


@cache
def direct_rule(source: str, prefix: int) -> Message:
    """RFC 3927 section 2.6.2: what leaves with a link-local source never goes to a router."""
    message = fibmsg()
    message["family"] = socket.AF_INET
    message["src_len"] = prefix
    message["table"] = 0
    message["action"] = 1  # FR_ACT_TO_TBL
    attributes = [("FRA_SRC", source), ("FRA_TABLE", DIRECT_TABLE), ("FRA_PRIORITY", DIRECT_TABLE)]
    return Message(
        "the rule for link-local sources",
        _encode(message, _NEWRULE, _MAKE, attributes),
        tolerate=errno.EEXIST,
    )


@cache
def direct_route(index: int) -> Message:
    """In that table: everything is on the link, to be asked for by ARP."""
    message = rtmsg()
    message["family"] = socket.AF_INET
    message["table"] = 0
    message["proto"] = 4  # RTPROT_STATIC
    message["type"] = 1  # RTN_UNICAST
    message["scope"] = _SCOPE_LINK
    attributes = [("RTA_OIF", index), ("RTA_TABLE", DIRECT_TABLE)]
    return Message(
        "the route for link-local sources", _encode(message, _NEWROUTE, _PUT, attributes)
    )


_GETLINK = 18
_DUMP = 0x300
_RTMGRP_LINK = 1
_IFF_RUNNING, _IFF_LOWER_UP = 0x40, 0x10000
# The second is the carrier; with the first the kernel has also made the link, and the bridge that
# it is a port of, ready for it.
_PASSES = _IFF_RUNNING | _IFF_LOWER_UP


class LinkMonitor:
    """Tells which links of the namespace in which it was made have a carrier, as it changes."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            socket.NETLINK_ROUTE,
        )
        self._socket.bind((0, _RTMGRP_LINK))

    def fileno(self) -> int:
        """To wait for: readable when something has changed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def ask(self) -> None:
        """Have the state of every link told once more."""
        header = struct.pack("=IHHII", 32, _GETLINK, _REQUEST | _DUMP, 0, 0)
        self._socket.send(header + bytes(16))

    def changes(self) -> list[tuple[int, bool]]:
        """(link's index, whether it has a carrier) in the order in which the kernel told them.

        If there was more than the socket could hold, everything is told anew.
        """
        told: list[tuple[int, bool]] = []
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return told
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.ask()
                continue
            offset = 0
            while offset + 16 <= len(data):
                length, kind = struct.unpack_from("=IH", data, offset)
                if kind in (_NEWLINK, _DELLINK) and offset + 32 <= len(data):
                    index, flags = struct.unpack_from("=iI", data, offset + 20)
                    family = data[offset + 16]
                    # A bridge speaks of its ports too (AF_BRIDGE): not of the links themselves.
                    if family != _AF_BRIDGE:
                        told.append((index, kind == _NEWLINK and flags & _PASSES == _PASSES))
                offset += max(16, (length + 3) & ~3)
