"""A guest's wire, as another host of its link sees it: frames that come by it, and frames put on
it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from netemu.conformance.inside import Inside
from netemu.conformance.probe import Place
from netemu.linklocal import addresses, arp
from netemu.linklocal.arp import Arp

# A busy machine delays a frame by this much, at any time scale.
LATE: Final = 0.3
_EARLY: Final = 0.01


@dataclass(frozen=True, slots=True)
class Heard:
    """A frame of the guest: the time, the bytes, and the parsed ARP if it is ARP."""

    at: float
    frame: bytes
    arp: Arp | None


class Wire:
    """The wire of one port: `log` is what the guest has sent since `fresh`, `all` everything.

    `other` is the MAC of the host that is played.
    """

    def __init__(self, node: Place, port: str, other: bytes) -> None:
        self.other = other
        self.log: list[Heard] = []
        self.all: list[Heard] = []
        self._node = node
        self._port = port
        node.call(Inside.watch_port, port)

    def listen(self) -> list[Heard]:
        """Everything since the last `fresh`."""
        for at, frame in self._node.call(Inside.at_port, self._port):
            heard = Heard(at, frame, arp.parse(frame))
            self.log.append(heard)
            self.all.append(heard)
        return self.log

    def fresh(self) -> float:
        """Forget the frames so far. Returns the time of the wire's clock."""
        self.listen()
        self.log = []
        return time.time()

    def until(self, patience: float, wanted: Callable[[Heard], bool]) -> Heard | None:
        """The first frame heard since `fresh` that is wanted."""
        end = time.monotonic() + patience
        while True:
            found = next((one for one in self.listen() if wanted(one)), None)
            if found is not None or time.monotonic() > end:
                return found
            time.sleep(0.01)

    def say(self, *frames: bytes) -> None:
        self._node.call(Inside.inject, self._port, list(frames))

    def claims(self, address: int) -> bytes:
        """Another host's announcement of the address."""
        return arp.announcement(self.other, address)

    def asking(self, address: int) -> bytes:
        """An ordinary question for the address, by a host that has another."""
        asker = addresses.METADATA
        return frame_of(
            Arp(arp.REQUEST, self.other, asker, bytes(6), address, self.other, arp.BROADCAST)
        )


def is_probe(heard: Heard) -> bool:
    return heard.arp is not None and heard.arp.is_probe


def probe_after(moment: float) -> Callable[[Heard], bool]:
    return lambda heard: heard.at > moment and is_probe(heard)


def is_announcement(heard: Heard) -> bool:
    """A gratuitous request or reply: sender and target are one address."""
    return heard.arp is not None and 0 < heard.arp.sender_ip == heard.arp.target_ip


def asks_for(heard: Heard, address: int) -> bool:
    return (
        heard.arp is not None
        and heard.arp.operation == arp.REQUEST
        and heard.arp.target_ip == address
    )


def speaks_from(heard: Heard, address: int) -> bool:
    if heard.arp is not None:
        return heard.arp.sender_ip == address
    is_ip = heard.frame[12:14] == b"\x08\x00"
    return is_ip and heard.frame[26:30] == address.to_bytes(4, "big")


def probes_for_other(heard: Heard, address: int) -> bool:
    return is_probe(heard) and heard.arp is not None and heard.arp.target_ip != address


def reacts(address: int) -> Callable[[Heard], bool]:
    return lambda heard: (
        (is_announcement(heard) and speaks_from(heard, address)) or probes_for_other(heard, address)
    )


def is_reset(heard: Heard) -> bool:
    frame = heard.frame
    return frame[12:14] == b"\x08\x00" and frame[23] == 6 and bool(frame[47] & 4)


def within(seconds: float, least: float, most: float) -> bool:
    return least - _EARLY <= seconds <= most + LATE


def text(octets: bytes) -> str:
    return ".".join(str(one) for one in octets)


def frame_of(packet: Arp) -> bytes:
    return (
        packet.ether_destination
        + packet.ether_source
        + bytes.fromhex("0806000108000604")
        + packet.operation.to_bytes(2, "big")
        + packet.sender_mac
        + packet.sender_ip.to_bytes(4, "big")
        + packet.target_mac
        + packet.target_ip.to_bytes(4, "big")
    )
