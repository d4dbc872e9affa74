"""The policies, written down a second time: what may be seen of a guest's frames, and where.

The guard is a list of what passes; this is a predicate over frames that were seen, made without
looking at it. Where the two differ one of them is wrong.
"""

from collections.abc import Iterable

from netemu.conformance.labstage import LabStage
from netemu.conformance.probe import Place
from netemu.topology import Policy

ALL = b"\xff" * 6
_ARP, _IPV4 = b"\x08\x06", b"\x08\x00"
_REQUEST, _REPLY = b"\0\1", b"\0\2"
_IGMP, _TCP, _ICMP, _UDP = 2, 6, 1, 17
# What is a router's to say (RFC 792, RFC 1256), and an error that a host may say of itself.
_ROUTERS = (3, 4, 5, 9, 10, 11, 12)
_UNREACHABLE, _OF_A_HOST = 3, (2, 3, 9, 10, 13)
_DHCP = (67, 68)


def octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def address(text: str) -> bytes:
    return bytes(map(int, text.split(".")))


class Law:
    """What may be seen of the attacker's frames, and of what they make others say.

    `unicast`: the node's answers by ARP need not be broadcasts, as where no guard makes them so.
    """

    def __init__(self, stage: LabStage, *, unicast: bool = False) -> None:
        self.peers = stage.policy is Policy.SAME_NODE
        self.unicast = unicast
        self.stage = stage
        self.mac, self.own = octets(stage.m1), address(stage.i1)
        self.bridge, self.responder = octets(stage.bridge), address(stage.md)
        self.guests = {one.place: one for one in stage.cast.guests}
        self.near = {octets(one.mac) for one in stage.cast.guests if one is not stage.cast.far}
        self.far = {one for one in (stage.cast.far_node,) if one}
        if stage.cast.far:
            self.far.add(stage.cast.far.place)
        # Ports from which a guest has spoken: what comes to another was never asked for there.
        self.opened: dict[Place, set[bytes]] = {}

    def broken(self, heard: Iterable[tuple[Place, bool, bytes]]) -> list[str]:
        """What was heard and should not have been, a line each."""
        found = list(heard)
        for place, outgoing, frame in found:
            if outgoing and frame[12:14] == _IPV4 and frame[23] == _TCP:
                self.opened.setdefault(place, set()).add(frame[34:36])
        return [
            f"{place.name}, {'out' if outgoing else 'in'}: {frame.hex()}"
            for place, outgoing, frame in found
            if not self._lawful(place, outgoing, frame)
        ]

    def _lawful(self, place: Place, outgoing: bool, frame: bytes) -> bool:
        source = frame[6:12]
        ours = self.stage.token in frame or source == self.mac
        if place in self.far:
            return not ours
        if outgoing:
            # A guest may say what it likes; what the node says is an answer of its responder's.
            return place is not self.stage.node or self.from_node(frame)
        if place is self.stage.attacker:
            return self.from_node(frame, place) or (self.peers and source in self.near)
        if source == self.bridge and place is not self.stage.node:
            return self.from_node(frame, place)
        if ours:
            return self.allows(place, frame)
        return source in self.near

    def from_node(self, frame: bytes, to: Place | None = None) -> bool:
        """Whether the node may say this, or a guest hear it."""
        if frame[6:12] != self.bridge:
            return False
        if frame[12:14] == _ARP:
            in_range = frame[28:30] == b"\xa9\xfe"
            # RFC 3927 section 2.5; on its way through the node it is still the kernel's own.
            widely = to is None or self.unicast or frame[:6] == ALL
            return in_range and frame[22:28] == self.bridge and widely
        answer = (
            frame[12:15] == b"\x08\0\x45"
            and frame[23] == _TCP
            and frame[26:30] == self.responder
            and frame[34:36] == b"\0\x50"
        )
        if to is None or not answer:
            return answer
        guest = self.guests[to]
        asked = to is self.stage.attacker or frame[36:38] in self.opened.get(to, set())
        for_it = frame[:6] == octets(guest.mac) and frame[30:34] == address(guest.address)
        return for_it and asked and frame[22] == 1

    def allows(self, place: Place, frame: bytes) -> bool:
        """Whether a frame of the attacker's may be seen at the node, or at a guest of it."""
        if frame[6:12] != self.mac:
            return False
        if place is self.stage.node:
            return self._arp(frame, self.bridge) or self._request(frame) or self._shout(frame)
        return self.peers and self._to_peer(octets(self.guests[place].mac), place, frame)

    def _to_peer(self, mac: bytes, place: Place, frame: bytes) -> bool:
        if self._shout(frame) or self._arp(frame, mac):
            return True
        unicast = frame[:6] == mac and self._ip(frame) and self._harmless(frame)
        return unicast and frame[30:34] == address(self.guests[place].address)

    def _arp(self, frame: bytes, to: bytes) -> bool:
        if frame[12:20] != bytes.fromhex("0806000108000604") or frame[22:28] != self.mac:
            return False
        if len(frame) < 42:
            return False
        operation, sender, target = frame[20:22], frame[28:32], frame[38:42]
        in_range = target[:2] == b"\xa9\xfe"
        if sender == bytes(4):
            claimable = in_range and 1 <= target[2] <= 254
            return operation == _REQUEST and frame[:6] == ALL and claimable
        if sender != self.own or frame[:6] not in (ALL, to):
            return False
        if self.peers:
            return operation in (_REQUEST, _REPLY) and in_range
        return operation == _REQUEST and target in (self.own, self.responder)

    def _ip(self, frame: bytes) -> bool:
        """IPv4 without options or fragments, from its own address, within its length."""
        if frame[12:15] != b"\x08\0\x45" or frame[26:30] != self.own or frame[23] == _IGMP:
            return False
        length, fragment = int.from_bytes(frame[16:18]), int.from_bytes(frame[20:22])
        return 20 <= length <= len(frame) - 14 and not fragment & 0xBFFF

    def _harmless(self, frame: bytes) -> bool:
        """No router, no DHCP, and no error about what somebody has with somebody else."""
        if frame[23] == _ICMP and frame[34] in _ROUTERS:
            return _is_own_error(frame, self.own) and not frame[0] & 1
        if frame[23] == _UDP:
            ports = int.from_bytes(frame[34:36]), int.from_bytes(frame[36:38])
            return not set(ports) & set(_DHCP)
        return True

    def _request(self, frame: bytes) -> bool:
        to_responder = frame[:6] == self.bridge and frame[30:34] == self.responder
        return self._ip(frame) and to_responder and frame[23] == _TCP and frame[36:38] == b"\0\x50"

    def _shout(self, frame: bytes) -> bool:
        if not self.peers or not self._ip(frame) or not self._harmless(frame):
            return False
        if frame[:6] == ALL:
            return frame[30:34] in (ALL[:4], b"\xa9\xfe\xff\xff")
        return frame[:3] == b"\x01\0\x5e" and frame[3] < 0x80 and 224 <= frame[30] <= 239


class TenantLaw:
    """What may be seen of a guest's frames on the tenant network: its own, as who it is there."""

    def __init__(self, mac: str, own: str, token: bytes) -> None:
        self.mac, self.own, self.token = octets(mac), address(own), token

    def allows(self, to: str, frame: bytes) -> bool:
        """Whether this may come by the eth1 of another guest, whose MAC there is `to`."""
        if self.token not in frame and frame[6:12] != self.mac:
            return True
        if frame[6:12] != self.mac:
            return False
        return self._arp(frame, octets(to)) or self._ip(frame, octets(to))

    def _arp(self, frame: bytes, to: bytes) -> bool:
        plain = frame[12:20] == bytes.fromhex("0806000108000604") and len(frame) >= 42
        own = frame[22:28] == self.mac and frame[28:32] == self.own
        known = frame[20:22] in (_REQUEST, _REPLY) and _is_tenant(frame[38:42])
        return plain and own and known and frame[:6] in (ALL, to)

    def _ip(self, frame: bytes, to: bytes) -> bool:
        if frame[:6] != to or frame[12:15] != b"\x08\0\x45" or frame[23] == _IGMP:
            return False
        length = int.from_bytes(frame[16:18])
        own = frame[26:30] == self.own and _is_tenant(frame[30:34])
        fragment = int.from_bytes(frame[20:22]) & 0x3FFF
        if frame[23] == _ICMP and not fragment & 0x1FFF and frame[34] in _ROUTERS:
            link_local = frame[54:56] == b"\xa9\xfe"
            own = own and not fragment and not link_local and _is_own_error(frame, self.own)
        return own and 20 <= length <= len(frame) - 14


def _is_own_error(frame: bytes, own: bytes) -> bool:
    """Whether an ICMP error is a host's, and quotes what was sent to that host."""
    return frame[34] == _UNREACHABLE and frame[35] in _OF_A_HOST and frame[58:62] == own


def _is_tenant(octets_: bytes) -> bool:
    return len(octets_) == 4 and octets_[0] == 198 and octets_[1] in (18, 19)
