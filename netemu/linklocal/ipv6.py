"""IPv6 on a guest's link: the metadata service's addresses, and the guest's own. Pure."""

from ipaddress import IPv6Address
from typing import Final

from netemu.interfaces import octets

LINK_LOCAL: Final = "fe80::a9fe:a9fe"
"""Where OpenStack's guests ask, without any address but that of their link."""
UNIQUE_LOCAL: Final = "fd00:ec2::254"
"""Where EC2's guests ask."""
METADATA: Final = (LINK_LOCAL, UNIQUE_LOCAL)
PREFIX_LENGTH: Final = 64


def of_mac(mac: str) -> str:
    """The link-local address that a kernel derives from a MAC (RFC 4291, appendix A)."""
    first, *rest = octets(mac)
    identifier = bytes((first ^ 2, *rest[:2], 0xFF, 0xFE, *rest[2:]))
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + identifier))


def group(address: str) -> str:
    """The group in which the holder of an address is asked for (RFC 4291, section 2.7.1)."""
    return str(IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + _end(address)))


def group_mac(address: str) -> str:
    """The MAC of that group (RFC 2464, section 7)."""
    return (b"\x33\x33\xff" + _end(address)).hex(":")


def _end(address: str) -> bytes:
    return IPv6Address(address).packed[13:]
