"""The node's side of address conflict detection: which port has which address.

In the manner of RFC 6620 (FCFS SAVI): first come, first served, and what decides is the order in
which the node heard the probes. Unlike there, a port has one address, and an address is not asked
after at its old port before it is given to another: a port that is gone is said to be gone.

Guests that do not hear each other (policy responder-only) cannot detect a conflict themselves.
The oracle hears every probe and answers one for an address that another port has. That the node
answers for a guest is a stated deviation from RFC 3927's "same link".

What a port has, it has until it is granted another address, or is gone. A probe that is refused
costs it nothing: looking whether an address is taken is not moving.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import Final

from netemu.linklocal import addresses, arp
from netemu.linklocal.arp import Arp
from netemu.linklocal.timing import Timing

# How long an address is held for its prober before the binding is made, in units of PROBE_MIN and
# counted from the first probe. The earliest announcement comes 2 x PROBE_MIN + ANNOUNCE_WAIT after
# the first probe (see timing.py), and the guard must know the binding by then: this leaves all of
# ANNOUNCE_WAIT (2 s) to tell it. And it is late enough that a second probe was due, and that a
# guest which gave the candidate up at once never costs a rule. If the first probe was lost and
# the second heard, ANNOUNCE_WAIT - PROBE_MIN (1 s) is left; if only the last was heard, nothing,
# and the first announcement may be dropped: the second passes.
TENTATIVE_LIFETIME: Final = 2.0

# Bindings that fall due this soon after the first are given with it, in units of PROBE_MIN: one
# call of nft costs some 18 ms whatever it carries. What comes a little early is still reserved.
BATCH_WINDOW: Final = 0.1


@dataclass(frozen=True, slots=True)
class Binding:
    """A port (the mark of its ingress), the MAC behind it and the address it may speak from."""

    port: int
    mac: bytes
    address: int


class Bind(Binding):
    """From now on this port may speak from this address."""

    __slots__ = ()


class Unbind(Binding):
    """From now on this port may no longer speak from this address."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell this prober that the address is taken, by `Oracle.frame`, out of this port alone.

    On any other port its holder would hear the node claim it: a conflict.
    """

    port: int
    mac: bytes
    address: int


@dataclass(frozen=True, slots=True)
class Announce:
    """Say to all ports, by `Oracle.frame`, whose address this is: the node's."""

    address: int


Effect = Bind | Unbind | Refuse | Announce
Effects = tuple[Effect, ...]


@dataclass(frozen=True, slots=True)
class _Tentative:
    """An address that is held for the port that probes for it."""

    binding: Binding
    due: float


class Oracle:
    """The bindings of one node: at most one entry a port, tentative or bound.

    It is to be fed the frames that the node's guard let pass, with the port they came by, so a
    port's MAC is the port's own and a sender IP other than 0 is one that was bound to it.
    """

    __slots__ = (
        "_addresses",
        "_last_defence",
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
        self._ports: dict[int, Binding] = {}
        self._addresses: dict[int, Binding] = {}
        # By port in the order of their due times, since the lifetime is the same for all.
        self._tentative_ports: dict[int, _Tentative] = {}
        self._tentative_addresses: dict[int, Binding] = {}
        self._last_defence = -inf

    @property
    def by_port(self) -> Mapping[int, Binding]:
        """The bindings made (not the tentative ones), by port. A live view."""
        return MappingProxyType(self._ports)

    @property
    def by_address(self) -> Mapping[int, Binding]:
        """The bindings made (not the tentative ones), by address. A live view."""
        return MappingProxyType(self._addresses)

    @property
    def deadline(self) -> float | None:
        """When to call `expire`, seconds; None: there is nothing to wait for."""
        for tentative in self._tentative_ports.values():
            return tentative.due
        return None

    def heard(self, port: int, packet: Arp, now: float) -> Effects:
        """A frame came in by this port. Only probes for addresses of the range mean anything."""
        wanted = packet.target_ip
        # The node's own address: its kernel answers a probe for it (RFC 3927 2.2.1), whether or
        # not anybody runs this, and two answers would say no more than one.
        if not packet.is_probe or wanted == self.own or not addresses.claimable(wanted):
            return ()
        asked = Binding(port, packet.sender_mac, wanted)
        holder = self._addresses.get(wanted) or self._tentative_addresses.get(wanted)
        if holder == asked:  # the second and third probe, or a link that came up again
            return ()
        if holder is not None and holder.port != port:
            return (Refuse(port, packet.sender_mac, wanted),)
        released = self._release(port)
        due = now + TENTATIVE_LIFETIME * self._timing.probe_min
        self._tentative_ports[port] = _Tentative(asked, due)
        self._tentative_addresses[wanted] = asked
        return released

    def expire(self, now: float) -> Effects:
        """Time passed: bind what is due, and what is due so soon that it is better done with it."""
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

    def port_down(self, port: int, now: float) -> Effects:
        """The port is gone, and with it what it had."""
        return self._release(port)

    def conflict_on_own(self, now: float) -> Effects:
        """Somebody claimed the node's address (a frame that the guard drops): defend it.

        RFC 5227 2.4 (c): for ever, by at most one announcement in DEFEND_INTERVAL.
        """
        if now - self._last_defence < self._timing.defend_interval:
            return ()
        self._last_defence = now
        return (Announce(self.own),)

    def frame(self, effect: Refuse | Announce) -> bytes:
        """The Ethernet frame that says what the effect means.

        A refusal comes from the node's own MAC, so that it tells nothing of the guest that has
        the address, and is addressed to the prober; the port's egress makes it a broadcast
        (RFC 3927 2.5).
        """
        if isinstance(effect, Announce):
            return arp.announcement(self.own_mac, effect.address)
        return arp.reply(
            self.own_mac, effect.address, effect.mac, arp.UNSPECIFIED, destination=effect.mac
        )

    def _release(self, port: int) -> Effects:
        """Take from the port what it has."""
        if (tentative := self._tentative_ports.pop(port, None)) is not None:
            del self._tentative_addresses[tentative.binding.address]
            return ()
        if (binding := self._ports.pop(port, None)) is not None:
            del self._addresses[binding.address]
            return (Unbind(port, binding.mac, binding.address),)
        return ()
