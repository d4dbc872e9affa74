"""ARP (RFC 826) for IPv4 on Ethernet: a strict parser, and the frames that RFC 3927 sends. Pure."""

import struct
from typing import Final, NamedTuple

REQUEST: Final = 1
REPLY: Final = 2

ETHERTYPE: Final = 0x0806
BROADCAST: Final = b"\xff" * 6
UNKNOWN_MAC: Final = bytes(6)
UNSPECIFIED: Final = 0  # 0.0.0.0, the sender of a probe

FRAME_LENGTH: Final = 42  # 14 of Ethernet and 28 of ARP; a driver may pad it to 60

# Ethernet destination and source | type, htype, ptype, hlen, plen | operation, addresses
_FRAME: Final = struct.Struct("!6s6s8sH6sI6sI")
_IPV4_ON_ETHERNET: Final = struct.pack("!HHHBB", ETHERTYPE, 1, 0x0800, 6, 4)


class Arp(NamedTuple):
    """One ARP packet and its Ethernet header."""

    operation: int
    sender_mac: bytes
    sender_ip: int
    target_mac: bytes
    target_ip: int
    ether_source: bytes
    ether_destination: bytes

    @property
    def is_probe(self) -> bool:
        """Whether this is an ARP probe (RFC 5227 1.1): a request whose sender IP is all zero."""
        return self.operation == REQUEST and self.sender_ip == UNSPECIFIED


def parse(frame: bytes) -> Arp | None:
    """Parse an Ethernet frame; returns None unless it is a well-formed ARP request or reply.

    Bytes after the packet are padding and are ignored. A frame that still has its VLAN tag is not
    ARP: its EtherType is 0x8100.
    """
    if len(frame) < FRAME_LENGTH:
        return None
    destination, source, header, operation, sender_mac, sender_ip, target_mac, target_ip = (
        _FRAME.unpack_from(frame)
    )
    # As in Linux and bpf.py: RARP (3, 4) and later operations claim no address.
    if header != _IPV4_ON_ETHERNET or operation not in (REQUEST, REPLY):
        return None
    return Arp(operation, sender_mac, sender_ip, target_mac, target_ip, source, destination)


def probe(mac: bytes, candidate: int) -> bytes:
    """Return a probe (RFC 3927 2.2.1). Its sender IP is 0, so that no ARP cache learns it."""
    return _frame(REQUEST, mac, UNSPECIFIED, UNKNOWN_MAC, candidate)


def announcement(mac: bytes, address: int) -> bytes:
    """Return an announcement (RFC 3927 2.4): a request with the address as sender and target."""
    return _frame(REQUEST, mac, address, UNKNOWN_MAC, address)


def reply(
    mac: bytes, address: int, to_mac: bytes, to_ip: int, destination: bytes = BROADCAST
) -> bytes:
    """Return a reply that the address is at this MAC, sent by broadcast (RFC 3927 2.5)."""
    return _frame(REPLY, mac, address, to_mac, to_ip, destination)


# RFC 3927 2.5: every ARP packet with a link-local sender is a link-layer broadcast, replies too, so
# that every host hears a conflict.
def _frame(
    operation: int,
    sender_mac: bytes,
    sender_ip: int,
    target_mac: bytes,
    target_ip: int,
    destination: bytes = BROADCAST,
) -> bytes:
    return _FRAME.pack(
        destination,
        sender_mac,
        _IPV4_ON_ETHERNET,
        operation,
        sender_mac,
        sender_ip,
        target_mac,
        target_ip,
    )
