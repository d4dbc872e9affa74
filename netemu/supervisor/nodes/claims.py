"""The lab's claims: the claimants of all guests and the oracles of all nodes. Runs in the
supervisor.
"""

import asyncio
import random
from functools import partial
from typing import Self

from netemu.interfaces import Mark, octets
from netemu.kernel.factory import BATCH
from netemu.kernel.factory_client import Factory
from netemu.linklocal import addresses
from netemu.linklocal.claimant import Claimant
from netemu.linklocal.fair_timer import FairTimer
from netemu.linklocal.guest_shell import GuestShell
from netemu.linklocal.node_shell import NodeShell, is_bound
from netemu.linklocal.oracle import Binding, Oracle
from netemu.linklocal.timing import Timing
from netemu.supervisor.nodes.leases import Leases
from netemu.supervisor.nodes.name_server import NameServer
from netemu.supervisor.nodes.wiring import BRIDGE_INDEX, WiredGuest, WiredNode
from netemu.topology import Guest
from netemu.wire.progress import Progress


class Claims:
    """Which guest holds which address."""

    def __init__(self, timing: Timing, *, resets: bool = True, by_mark: bool = True) -> None:
        self._resets = resets
        self._by_mark = by_mark
        self._changed = asyncio.Event()
        self._timing = timing
        self._turns = FairTimer()
        # Waiting times only (RFC 3927 section 2.2.1); addresses are drawn from each guest's MAC.
        self._jitter = random.Random()
        self._guests: dict[Mark, GuestShell] = {}  # of machines that do not claim by themselves
        self._nodes: dict[Mark, NodeShell] = {}  # by guest
        self._shells: dict[str, NodeShell] = {}  # by node
        self._leases: list[Leases] = []
        self._name_servers: list[NameServer] = []

    def begin(self, nodes: list[WiredNode]) -> Self:
        """Let guests whose ports have carriers claim, and nodes listen."""
        # A guest may move to any node.
        dhcp = any(wired.guest.dhcp for node in nodes for wired in node.guests)
        for node in nodes:
            for wired in node.guests:
                last = wired.guest.last_address
                self._begin(wired, None if last is None else addresses.from_text(last))
            shell = NodeShell(
                node.net,
                Oracle(own=addresses.METADATA, own_mac=octets(node.node.mac), timing=self._timing),
                node.node.name,
                timing=self._timing,
                ports={wired.guest.mark: wired.guest.port for wired in node.guests},
                macs={wired.guest.mark: octets(wired.guest.mac) for wired in node.guests},
                links=node.links,
                carrier=self._carrier,
                changed=self._note_change,
                resets=self._resets,
            ).open(BRIDGE_INDEX)
            self._shells[node.node.name] = shell
            if dhcp:
                claims_for = self._guests.__contains__
                leases = Leases(node, shell, claims_for, by_mark=self._by_mark)
                self._leases.append(leases.open())
                self._name_servers.append(NameServer(node).open())
            self._nodes |= {wired.guest.mark: shell for wired in node.guests}
        return self

    async def hold(self, factory: Factory) -> None:
        """Have the packet sockets closed in parallel when the lab ends; see `Factory.hold`."""
        held = [one for shell in self._shells.values() for one in shell.packet_sockets]
        held += [guest.packet_socket for guest in self._guests.values()]
        share = min(BATCH, max(_FEWEST_HELD, -(-len(held) // _MOST_HOLDERS)))
        if len(held) > share:
            for start in range(0, len(held), share):
                await factory.hold(held[start : start + share])

    def _begin(self, wired: WiredGuest, remembered: int | None) -> None:
        """Have a guest claim, unless its machine does it by itself."""
        shell = wired.machine.claim(partial(self._shell, wired.guest, remembered))
        if shell is not None:
            self._guests[wired.guest.mark] = shell

    def _shell(self, guest: Guest, remembered: int | None, net: int) -> GuestShell:
        claimant = Claimant(
            octets(guest.mac), timing=self._timing, jitter=self._jitter, remembered=remembered
        )
        return GuestShell(
            net,
            claimant,
            guest.name,
            turns=self._turns,
            changed=self._note_change,
            lost=partial(self._lost, guest.mark),
        ).open()

    def _carrier(self, mark: Mark, up: bool) -> None:
        if mark in self._guests:
            self._guests[mark].link(up=up)

    def _lost(self, mark: Mark) -> None:
        if mark in self._nodes:
            self._nodes[mark].lost(mark)

    # A guest's life.

    def pause(self, guest: Guest) -> None:
        """The guest is frozen: suspend its claim."""
        if guest.mark in self._guests:
            self._guests[guest.mark].pause()

    def resume(self, guest: Guest) -> None:
        """The guest runs again: resume its claim."""
        if guest.mark in self._guests:
            self._guests[guest.mark].resume()

    def unplug(self, guest: Guest) -> None:
        """The guest is off: free what it had on its node."""
        if guest.mark in self._guests:
            self._guests[guest.mark].shut_down()
        node = self._nodes.pop(guest.mark, None)
        if node is not None:
            node.unplug(guest.mark)

    def forget(self, guest: Guest) -> None:
        """The guest is on another machine."""
        if (shell := self._guests.pop(guest.mark, None)) is not None:
            shell.close()

    def boot(self, wired: WiredGuest, node: WiredNode) -> None:
        """The guest boots, in a new namespace and by a wire to `node`: it claims again.

        It remembers the address that it had (RFC 3927 section 2.1).
        """
        guest = wired.guest
        self.unplug(guest)
        before = self._guests.get(guest.mark)
        if before is not None:
            remembered = before.claimant.remembered
        elif guest.last_address is not None:
            remembered = addresses.from_text(guest.last_address)
        else:
            remembered = None
        self._begin(wired, remembered)
        if before is not None:
            before.close()
        shell = self._nodes[guest.mark] = self._shells[node.node.name]
        shell.plug(guest.mark, guest.port, octets(guest.mac), wired.port_index)

    @property
    def change(self) -> asyncio.Event:
        """Set at the next change of any claim. Take it before looking, then wait for it."""
        return self._changed

    def _note_change(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def address(self, guest: Guest) -> str | None:
        """The address that the guest uses, or None."""
        shell = self._guests.get(guest.mark)
        user = self._held(guest) if shell is None else shell.claimant
        return None if user is None or user.address is None else addresses.to_text(user.address)

    def _held(self, guest: Guest) -> Binding | None:
        """The address that its node has bound to its port, or None."""
        node = self._nodes.get(guest.mark)
        return None if node is None else node.oracle.by_port.get(guest.mark)

    def bound(self, guest: Guest) -> bool:
        """Whether its node has bound an address, and its claimant, if it is ours, agrees."""
        if guest.mark not in self._guests:
            return self._held(guest) is not None
        if guest.mark not in self._nodes:
            return False
        oracle = self._nodes[guest.mark].oracle
        return is_bound(self._guests[guest.mark].claimant, oracle, guest.mark)

    def state(self, guest: Guest) -> str:
        """`bound`, or the state of the claim: down, waiting, probing, announce-wait.

        A guest is `unbound` while its node has its address for nobody, or for another guest. So is
        one that claims by itself, as long as it has no address.
        """
        if self.bound(guest):
            return "bound"
        if guest.mark not in self._guests:
            return "unbound" if guest.mark in self._nodes else "down"
        claimant = self._guests[guest.mark].claimant
        return "unbound" if claimant.address is not None else str(claimant.state)

    async def all_bound(self, guests: list[Guest], progress: Progress) -> None:
        """Wait until every guest is bound."""
        waiting = list(guests)
        while True:
            change = self.change
            waiting = [guest for guest in waiting if not self.bound(guest)]
            progress.step("claiming addresses", len(guests) - len(waiting), len(guests))
            if not waiting:
                return
            await change.wait()
            # Many claims end at about the same time: look again a tenth of a second later.
            await asyncio.sleep(0.1)


# Processes that share the closing of packet sockets: none for a few sockets, and for the largest
# lab as many as close them in seconds.
_FEWEST_HELD, _MOST_HOLDERS = 32, 64
