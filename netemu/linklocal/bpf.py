"""Classic BPF programs, packed for SO_ATTACH_FILTER: a socket wakes only for relevant frames.

Each program is an array of the kernel's `struct sock_filter`, eight bytes an instruction, and runs
on whole Ethernet frames (AF_PACKET, SOCK_RAW). The programs accept what `arp.parse` accepts; the
tests compare the two. Pure.
"""

from collections.abc import Sequence
from typing import Final

from hostagent.classic_bpf import (
    JUMP_AT_LEAST,
    JUMP_EQUAL,
    LOAD_BYTE,
    LOAD_HALF,
    LOAD_LENGTH,
    LOAD_WORD,
    RETURN,
    Instruction,
    pack,
)
from netemu.linklocal import addresses, arp, dhcp

PACKET_TYPE: Final = 0xFFFF_F004  # SKF_AD_OFF + SKF_AD_PKTTYPE
LINK_INDEX: Final = 0xFFFF_F008  # SKF_AD_OFF + SKF_AD_IFINDEX
VLAN_TAGGED: Final = 0xFFFF_F030  # SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT
PACKET_OTHERHOST: Final = 3  # <linux/if_packet.h>
PACKET_OUTGOING: Final = 4

# Offsets in the frame. A load beyond its end drops it.
_TYPE: Final = 12
_HARDWARE_AND_PROTOCOL: Final = 14
_LENGTHS_AND_OPERATION: Final = 18
_SENDER_MAC: Final = 22
_SENDER_IP: Final = 28
_TARGET_IP: Final = 38

# … of IP and UDP
_VERSION_AND_LENGTH: Final = 14
_PROTOCOL: Final = 23
_PORTS: Final = 34

_WHOLE_FRAME: Final = 0xFFFF_FFFF

# Jump targets: the two returns that end every program, and the instruction that follows.
_ACCEPT: Final = -1
_DROP: Final = -2
_NEXT: Final = 0


def _load(code: int, k: int) -> Instruction:
    return (code, _NEXT, _NEXT, k)


def _only(code: int, at: int, value: int) -> tuple[Instruction, Instruction]:
    """Drop what does not hold this value there."""
    return _load(code, at), (JUMP_EQUAL, _NEXT, _DROP, value)


def _without(code: int, at: int, value: int) -> tuple[Instruction, Instruction]:
    """Drop what holds this value there."""
    return _load(code, at), (JUMP_EQUAL, _DROP, _NEXT, value)


def _frame(length: int, ethertype: int) -> tuple[Instruction, ...]:
    """Drop what is shorter or of another type."""
    longer = _load(LOAD_LENGTH, 0), (JUMP_AT_LEAST, _NEXT, _DROP, length)
    return (*longer, *_only(LOAD_HALF, _TYPE, ethertype))


_WELL_FORMED: Final[tuple[Instruction, ...]] = (
    *_frame(arp.FRAME_LENGTH, arp.ETHERTYPE),
    *_only(LOAD_WORD, _HARDWARE_AND_PROTOCOL, 0x0001_0800),
    _load(LOAD_WORD, _LENGTHS_AND_OPERATION),
    (JUMP_EQUAL, 1, _NEXT, 0x0604_0000 | arp.REQUEST),
    (JUMP_EQUAL, _NEXT, _DROP, 0x0604_0000 | arp.REPLY),
)

_INCOMING: Final = _without(LOAD_BYTE, PACKET_TYPE, PACKET_OUTGOING)

# A frame of a VLAN that has no device here arrives as ARP without its tag. Only its packet type
# shows that it is not of this link. The kernel's own ARP ignores it by the same test.
_FOR_THIS_HOST: Final = _without(LOAD_BYTE, PACKET_TYPE, PACKET_OTHERHOST)


def concerns(mac: bytes, address: int) -> bytes:
    """Accept ARP with this address as sender or target, unless this MAC sent it."""
    return _assemble(
        *_FOR_THIS_HOST,
        *_WELL_FORMED,
        _load(LOAD_WORD, _SENDER_IP),
        (JUMP_EQUAL, 2, _NEXT, address),
        _load(LOAD_WORD, _TARGET_IP),
        (JUMP_EQUAL, _NEXT, _DROP, address),
        _load(LOAD_WORD, _SENDER_MAC),
        (JUMP_EQUAL, _NEXT, _ACCEPT, int.from_bytes(mac[:4], "big")),
        _load(LOAD_HALF, _SENDER_MAC + 4),
        (JUMP_EQUAL, _DROP, _ACCEPT, int.from_bytes(mac[4:], "big")),
    )


def nothing() -> bytes:
    """Accept no frame."""
    return pack([(RETURN, 0, 0, 0)])


def probes() -> bytes:
    """Accept ARP probes only: requests whose sender IP is all zero (RFC 5227 1.1)."""
    return _assemble(
        *_FOR_THIS_HOST,
        *_WELL_FORMED,
        *_only(LOAD_WORD, _LENGTHS_AND_OPERATION, 0x0604_0000 | arp.REQUEST),
        _load(LOAD_WORD, _SENDER_IP),
        (JUMP_EQUAL, _ACCEPT, _DROP, arp.UNSPECIFIED),
    )


def speaks(own: int, without: Sequence[int] = ()) -> bytes:
    """Accept incoming ARP with a sender IP that a guest may claim, which `own` is not.

    For a tap on every port (ETH_P_ALL), which sees frames before the guard drops them, and tagged
    ones as if they had no tag. Links with an index in `without` are not heard.
    """
    unheard = ((JUMP_EQUAL, _DROP, _NEXT, index) for index in without)
    return _assemble(
        *((_load(LOAD_WORD, LINK_INDEX), *unheard) if without else ()),
        *_INCOMING,
        *_only(LOAD_BYTE, VLAN_TAGGED, 0),
        *_WELL_FORMED,
        *_without(LOAD_WORD, _SENDER_IP, own),
        (JUMP_AT_LEAST, _NEXT, _DROP, addresses.FIRST),
        (JUMP_AT_LEAST, _DROP, _ACCEPT, addresses.LAST + 1),
    )


def dhcp_requests() -> bytes:
    """Accept what DHCP clients say to a server: whole UDP over IPv4, 68 to 67."""
    return _assemble(
        *_INCOMING,
        *_FOR_THIS_HOST,
        *_frame(dhcp.SHORTEST, dhcp.ETHERTYPE),
        *_only(LOAD_BYTE, _VERSION_AND_LENGTH, 0x45),
        *_only(LOAD_BYTE, _PROTOCOL, dhcp.UDP),
        _load(LOAD_WORD, _PORTS),
        (JUMP_EQUAL, _ACCEPT, _DROP, dhcp.CLIENT_PORT << 16 | dhcp.SERVER_PORT),
    )


def claims_of(address: int) -> bytes:
    """Accept incoming ARP with this sender IP.

    For a tap on a port (ETH_P_ALL), which sees frames before the guard drops them. The tap also
    sees outgoing frames: those are ignored, as the node's own announcements are not a conflict.
    Frames addressed to another host count: poisoning a neighbour's cache is a claim, too.
    """
    return _assemble(
        *_INCOMING,
        *_WELL_FORMED,
        _load(LOAD_WORD, _SENDER_IP),
        (JUMP_EQUAL, _ACCEPT, _DROP, address),
    )


def _assemble(*lines: Instruction) -> bytes:
    """Pack the lines and the two returns. A jump is the number of instructions to skip."""
    accept = len(lines)

    def skip(at: int, target: int) -> int:
        if target >= 0:
            return target
        return accept + (target == _DROP) - at - 1

    placed = [
        (code, skip(at, if_true), skip(at, if_false), k)
        for at, (code, if_true, if_false, k) in enumerate(lines)
    ]
    return pack([*placed, (RETURN, 0, 0, _WHOLE_FRAME), (RETURN, 0, 0, 0)])
