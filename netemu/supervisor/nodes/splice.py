"""Puts a relay's two ends into a wire, and takes them out again. Runs in the supervisor.

    machine ── port                         ── bridge     as it is
    machine ── port-guest ~relay~ port-relay ── port ── bridge     spliced

The port's link keeps its index and its carrier under another name; a new pair takes its name, its
place on the bridge and its guard. Where the guard follows names (Linux 6.16) the machine's end
notices nothing. On an older kernel a link has to be down to be renamed: the guest sees its carrier
go and come back, and claims again.

Nothing here is to be called in the loop: it waits for nft and for the kernel's locks.
"""

import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from typing import Final

from msgspec import Struct, field

from netemu.errors import NetemuError, NotSo
from netemu.kernel import guard, links, netlink, nft, packet
from netemu.kernel.errors import KernelError
from netemu.kernel.namespaces import inside

# Links of a namespace are numbered by who makes them: ports from 100 and from 1 << 24.
_indices: Final = count(1 << 28)


class Place(Struct, frozen=True):
    """A port: its namespace, its name, its link's index, and the index of its bridge.

    `settle` gives what tells a link how to behave as this port. `rules` guard the port where the
    guard does not follow names, and `no_rules` take the chains away.
    """

    net: int
    port: str
    link: int
    bridge: int
    settle: Callable[[int], Sequence[netlink.Message]]
    rules: str
    no_rules: str


class Splice(Struct):
    """A relay's way into the wire of a port."""

    place: Place
    entered: bool = False
    relay_link: int = field(default_factory=lambda: next(_indices))
    port_link: int = field(default_factory=lambda: next(_indices))

    @property
    def guest_end(self) -> str:
        """The name of the link that is the other end of the machine's."""
        return f"{self.place.port}-guest" if self.entered else self.place.port

    @property
    def relay_end(self) -> str:
        """The name of the node's end of the relay."""
        return f"{self.place.port}-relay"

    def open(self) -> tuple[socket.socket, socket.socket]:
        """The sockets that a relay needs: of the guest's end, and of the node's.

        Raises NotSo if the wire does not exist.
        """
        with inside(self.place.net):
            try:
                guest = packet.on_wire(self.guest_end)
            except KernelError as error:
                if error.errno != errno.ENODEV:
                    raise
                raise NotSo("the guest has removed its interface: reboot it") from None
            try:
                return guest, packet.on_wire(self.relay_end)
            except BaseException:
                guest.close()
                raise


def make(splices: Sequence[Splice]) -> None:
    """Make the pairs, beside the wires. What was made is removed again if one fails."""
    try:
        for net, some in _by_net(splices):
            pairs = (links.pair(s.relay_end, s.relay_link, _new(s), s.port_link) for s in some)
            netlink.run_in(net, *pairs)
    except BaseException:
        _remove_pairs(splices)
        raise


def enter(splices: Sequence[Splice]) -> None:
    """Have frames pass by the relay from now on. If that fails, they pass as before."""
    try:
        for net, some in _by_net(splices):
            _enter(net, some)
    except BaseException:
        with suppress(NetemuError):
            leave(splices)
        raise


def _enter(net: int, splices: Sequence[Splice]) -> None:
    live = nft.follows_names()
    if live:
        nft.load(_deaf(splices), net)
    with inside(net), netlink.Netlink.open() as kernel:
        for one in splices:
            place = one.place
            if not live:
                kernel.run((links.down(place.port, place.link),))
            # By its name it is deaf at once, and no longer the guard's.
            kernel.run(
                (
                    links.place(place.link, f"{place.port}-guest", 0),
                    links.place(one.port_link, place.port, place.bridge),
                    *place.settle(one.port_link),
                )
            )
            one.entered = True
    if not live:
        for one in splices:
            nft.unload(one.place.no_rules, net)
        rules = "\n".join(one.place.rules for one in splices)
        nft.load(f"{_deaf(splices)}\n{rules}", net)
    with inside(net), netlink.Netlink.open() as kernel:
        for one in splices:
            kernel.run(
                (links.up(one.relay_end, one.relay_link), links.up(one.place.port, one.port_link))
            )
            if not live:
                kernel.run((links.up(one.guest_end, one.place.link),))


def leave(splices: Sequence[Splice]) -> None:
    """Have frames pass as if there had been no relay."""
    live = nft.follows_names()
    for net, some in _by_net(splices):
        with inside(net), netlink.Netlink.open() as kernel:
            for one in some:
                place = one.place
                if not live:
                    kernel.run((links.no_carrier(one.guest_end, place.link),))
                kernel.run((links.no_link(one.relay_end, one.relay_link),))
                kernel.run(_if_there(_back(place) if live else _aside(place)))
        nft.unload(_no_longer_deaf(some), net)
        if not live:
            for one in some:
                nft.unload(one.place.no_rules, net)
            nft.load("\n".join(one.place.rules for one in some), net)
            with inside(net), netlink.Netlink.open() as kernel:
                for one in some:
                    ready = (*_back(one.place), links.up(one.place.port, one.place.link))
                    kernel.run(_if_there(ready))
        for one in some:
            one.entered = False


def _back(place: Place) -> Sequence[netlink.Message]:
    return links.place(place.link, place.port, place.bridge), *place.settle(place.link)


def _aside(place: Place) -> Sequence[netlink.Message]:
    return (links.place(place.link, place.port, 0),)


def _if_there(messages: Sequence[netlink.Message]) -> Iterator[netlink.Message]:
    """A guest can destroy its wire at any time."""
    return (message._replace(tolerate=errno.ENODEV) for message in messages)


def drop(splices: Sequence[Splice]) -> None:
    """Take the pairs away, as the ports' links are about to be."""
    _remove_pairs(splices)
    for net, some in _by_net(splices):
        nft.unload(_no_longer_deaf(some), net)


def _remove_pairs(splices: Sequence[Splice]) -> None:
    for net, some in _by_net(splices):
        netlink.run_in(net, *(links.no_link(one.relay_end, one.relay_link) for one in some))


def _by_net(splices: Sequence[Splice]) -> Iterator[tuple[int, Sequence[Splice]]]:
    """Those of one namespace, so many at a time as one call of nft takes."""
    by_net: dict[int, list[Splice]] = {}
    for one in splices:
        by_net.setdefault(one.place.net, []).append(one)
    for net, some in by_net.items():
        for start in range(0, len(some), guard.PORTS_AT_ONCE):
            yield net, some[start : start + guard.PORTS_AT_ONCE]


def _new(splice: Splice) -> str:
    return f"{splice.place.port}-new"


# Packet sockets hear before nft does: the relay hears there, and the node's own stack nothing.


def _deaf(splices: Sequence[Splice]) -> str:
    chains = "\n".join(
        f'    chain {end}_{one.place.port} {{ type filter hook ingress device "{one.place.port}-'
        f'{end}" priority 0; policy drop; }}'
        for one in splices
        for end in ("guest", "relay")
    )
    return f"table netdev relay {{\n{chains}\n}}"


def _no_longer_deaf(splices: Sequence[Splice]) -> str:
    return "\n".join(
        f"delete chain netdev relay {end}_{one.place.port}"
        for one in splices
        for end in ("guest", "relay")
    )
