"""The node's side of address conflict detection: which port has which address. Pure.

This is RFC 6620's SAVI (FCFS): first come, first served, in the order in which the node heard the
probes. It differs in two points. A port has one address. An address is not probed at its old port
before another port gets it: the caller says when a port is gone.

Guests that do not hear each other (policy responder-only) cannot detect a conflict themselves.
The oracle hears every probe, and answers a probe for an address that another port has. In this the
node deviates from RFC 3927's "same link".

A port keeps its address until it is granted another one or is gone. A refused probe does not cost
it the address.

A claim whose probes are all lost is heard of by its ARP: see `Oracle.spoke`.
"""

from collections.abc import Mapping
from math import inf
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from netemu.interfaces import Mark
from netemu.linklocal import addresses, arp
from netemu.linklocal.arp import Arp
from netemu.linklocal.timing import Timing

# How long an address is reserved before the binding is made, in units of PROBE_MIN from the first
# probe. The guard must know the binding before the first announcement, which comes at the earliest
# 2 x PROBE_MIN + ANNOUNCE_WAIT after the first probe (see timing.py): this leaves ANNOUNCE_WAIT
# (2 s). By then a second probe was due, so a guest that gives a candidate up at once costs no rule.
# If the first probe was lost, ANNOUNCE_WAIT - PROBE_MIN (1 s) is left. If only the last probe was
# heard, the first announcement may be dropped; the second passes.
TENTATIVE_LIFETIME: Final = 2.0

# Bindings that fall due this soon after the first are made with it, in units of PROBE_MIN: one call
# of nft costs some 18 ms, however many it makes.
BATCH_WINDOW: Final = 0.1


# Draws for a lease: of a thousand guests on a node, each finds one of 65,024 addresses free.
_DRAWS: Final = 32


class Binding(Struct, frozen=True):
    """A port (the mark of its ingress), its MAC, and the address that it may send from."""

    port: Mark
    mac: bytes
    address: int


class Bind(Binding, frozen=True):
    """From now on this port may send from this address."""


class Unbind(Binding, frozen=True):
    """From now on this port may not send from this address."""


class Refuse(Struct, frozen=True):
    """Send `Oracle.frame` to this prober, out of this port only: the address is taken.

    On another port the holder would hear the node claim its address, which is a conflict.
    """

    port: Mark
    mac: bytes
    address: int


class Announce(Struct, frozen=True):
    """Send `Oracle.frame` to all ports: the address is the node's."""

    address: int


Effect = Bind | Unbind | Refuse | Announce
Effects = tuple[Effect, ...]


class _Tentative(Struct, frozen=True):
    """An address that is reserved for the port that probes for it."""

    binding: Binding
    due: float


class Oracle:
    """The bindings of one node: at most one for each port, tentative or bound.

    Feed it the frames that the node's guard let pass, with their ingress port. The guard makes sure
    that the MAC is the port's own, and that a sender IP other than 0 is bound to it.
    """

    __slots__ = (
        "_addresses",
        "_last_defence",
        "_last_spoken",
        "_ports",
        "_tentative_addresses",
        "_tentative_ports",
        "_timing",
        "own",
        "own_mac",
    )

    def __init__(self, *, own: int, own_mac: bytes, timing: Timing) -> None:
        self.own = own
        self.own_mac = own_mac
        self._timing = timing
        self._ports: dict[Mark, Binding] = {}
        self._addresses: dict[int, Binding] = {}
        # By port, in the order of their due times: all have the same lifetime.
        self._tentative_ports: dict[Mark, _Tentative] = {}
        self._tentative_addresses: dict[int, Binding] = {}
        self._last_defence = -inf
        self._last_spoken: dict[Mark, float] = {}  # by port

    @property
    def by_port(self) -> Mapping[Mark, Binding]:
        """The bindings made (not the tentative ones), by port. A live view."""
        return MappingProxyType(self._ports)

    @property
    def by_address(self) -> Mapping[int, Binding]:
        """The bindings made (not the tentative ones), by address. A live view."""
        return MappingProxyType(self._addresses)

    @property
    def deadline(self) -> float | None:
        """When to call `expire`, seconds; None: not at all."""
        for tentative in self._tentative_ports.values():
            return tentative.due
        return None

    def heard(self, port: Mark, packet: Arp, now: float) -> Effects:
        """Take a frame that came in by this port. Only probes for addresses of the range count."""
        wanted = packet.target_ip
        # The node's kernel answers probes for the node's own address (RFC 3927 2.2.1).
        if not packet.is_probe or wanted == self.own or not addresses.claimable(wanted):
            return ()
        return self._ask(port, packet.sender_mac, wanted, now)

    def spoke(self, port: Mark, packet: Arp, now: float) -> Effects:
        """Take a frame that was heard before the guard; the caller has checked the sender's MAC.

        A host of RFC 3927 never probes again: if all its probes were lost it uses an address that
        is bound to nobody, and the guard drops all that it says. RFC 6620 lets data trigger a
        binding, too: such a frame counts as a probe, at most once in PROBE_MIN. Of a port that has
        another address only an announcement counts.
        """
        spoken = packet.sender_ip
        if spoken == self.own or not addresses.claimable(spoken):
            return ()
        tentative = self._tentative_ports.get(port)
        held = self._ports.get(port) if tentative is None else tentative.binding
        if held is not None and (held.address == spoken or packet.target_ip != spoken):
            return ()
        if now - self._last_spoken.get(port, -inf) < self._timing.probe_min:
            return ()
        self._last_spoken[port] = now
        return self._ask(port, packet.sender_mac, spoken, now)

    def _ask(self, port: Mark, mac: bytes, wanted: int, now: float) -> Effects:
        """Reserve the address for the port, or refuse it."""
        asked = Binding(port, mac, wanted)
        holder = self._addresses.get(wanted) or self._tentative_addresses.get(wanted)
        if holder == asked:  # a further probe, or the link came up again
            return ()
        if holder is not None and holder.port != port:
            return (Refuse(port, mac, wanted),)
        released = self._release(port)
        due = now + TENTATIVE_LIFETIME * self._timing.probe_min
        self._tentative_ports[port] = _Tentative(asked, due)
        self._tentative_addresses[wanted] = asked
        return released

    def lease(self, port: Mark, mac: bytes, *, grant: bool) -> tuple[int | None, Effects]:
        """The address of this port, for DHCP: the one that it has, or is about to have.

        If a port has none, the first free address that its MAC draws is bound to it if it is to be
        granted; None if there is no free one.
        """
        tentative = self._tentative_ports.get(port)
        held = self._ports.get(port) if tentative is None else tentative.binding
        if held is not None:
            return held.address, ()
        if not grant:
            return None, ()
        for draw in range(_DRAWS):
            wanted = addresses.candidate(mac, draw)
            if not (
                wanted == self.own
                or wanted in self._addresses
                or wanted in self._tentative_addresses
            ):
                self._ports[port] = self._addresses[wanted] = Binding(port, mac, wanted)
                return wanted, (Bind(port, mac, wanted),)
        return None, ()

    def expire(self, now: float) -> Effects:
        """Bind what is due now or within BATCH_WINDOW."""
        deadline = self.deadline
        if deadline is None or now < deadline:
            return ()
        horizon = now + BATCH_WINDOW * self._timing.probe_min
        bound: list[Effect] = []
        for port, tentative in list(self._tentative_ports.items()):
            if tentative.due > horizon:
                break
            binding = tentative.binding
            del self._tentative_ports[port], self._tentative_addresses[binding.address]
            self._ports[port] = self._addresses[binding.address] = binding
            bound.append(Bind(port, binding.mac, binding.address))
        return tuple(bound)

    def port_down(self, port: Mark, now: float) -> Effects:
        """The port is gone: release its address."""
        self._last_spoken.pop(port, None)
        return self._release(port)

    def conflict_on_own(self, now: float) -> Effects:
        """Defend the node's address against a claim, which the guard has dropped.

        RFC 5227 2.4 (c): without end, by at most one announcement in DEFEND_INTERVAL.
        """
        if now - self._last_defence < self._timing.defend_interval:
            return ()
        self._last_defence = now
        return (Announce(self.own),)

    def frame(self, effect: Refuse | Announce) -> bytes:
        """Return the Ethernet frame for the effect.

        A refusal comes from the node's own MAC, so that it discloses nothing of the guest that has
        the address. It is addressed to the prober; the port's egress makes it a broadcast
        (RFC 3927 2.5).
        """
        if isinstance(effect, Announce):
            return arp.announcement(self.own_mac, effect.address)
        return arp.reply(
            self.own_mac, effect.address, effect.mac, arp.UNSPECIFIED, destination=effect.mac
        )

    def _release(self, port: Mark) -> Effects:
        """Release the port's address, tentative or bound."""
        if (tentative := self._tentative_ports.pop(port, None)) is not None:
            del self._tentative_addresses[tentative.binding.address]
            return ()
        if (binding := self._ports.pop(port, None)) is not None:
            del self._addresses[binding.address]
            return (Unbind(port, binding.mac, binding.address),)
        return ()
