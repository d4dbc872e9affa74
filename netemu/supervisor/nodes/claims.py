"""The lab's claims: every guest's claimant and every node's oracle, run in this process."""

import asyncio
import random
from functools import partial

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
from netemu.supervisor.nodes.wiring import BRIDGE_INDEX, WiredGuest, WiredNode
from netemu.topology import Guest
from netemu.wire.progress import Progress


class Claims:
    """Who holds what. Claims begin as soon as this is made: the ports have their carriers."""

    def __init__(self, nodes: list[WiredNode], timing: Timing, *, resets: bool = True) -> None:
        self._changed = asyncio.Event()
        self._timing = timing
        self._turns = FairTimer()
        # Waiting times only (RFC 3927 section 2.2.1); addresses are drawn from each guest's MAC.
        self._jitter = random.Random()
        self._guests: dict[Mark, GuestShell] = {}  # of machines that do not claim by themselves
        self._nodes: dict[Mark, NodeShell] = {}  # by guest
        self._shells: dict[str, NodeShell] = {}  # by node
        for node in nodes:
            for wired in node.guests:
                last = wired.guest.last_address
                self._begin(wired, None if last is None else addresses.from_text(last))
            shell = NodeShell(
                node.net,
                Oracle(own=addresses.METADATA, own_mac=octets(node.node.mac), timing=timing),
                node.node.name,
                timing=timing,
                bridge_index=BRIDGE_INDEX,
                ports={wired.guest.mark: wired.guest.port for wired in node.guests},
                macs={wired.guest.mark: octets(wired.guest.mac) for wired in node.guests},
                links=node.links,
                carrier=self._carrier,
                changed=self._note_change,
                resets=resets,
            )
            self._shells[node.node.name] = shell
            self._nodes |= {wired.guest.mark: shell for wired in node.guests}

    async def hold(self, factory: Factory) -> None:
        """Have the packet sockets closed side by side when the lab ends; see `Factory.hold`."""
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
        )

    def _carrier(self, mark: Mark, up: bool) -> None:
        if mark in self._guests:
            self._guests[mark].link(up=up)

    def _lost(self, mark: Mark) -> None:
        if mark in self._nodes:
            self._nodes[mark].lost(mark)

    # A guest's life.

    def pause(self, guest: Guest) -> None:
        """The guest is frozen, and its claim with it."""
        if guest.mark in self._guests:
            self._guests[guest.mark].pause()

    def resume(self, guest: Guest) -> None:
        """It goes on."""
        if guest.mark in self._guests:
            self._guests[guest.mark].resume()

    def unplug(self, guest: Guest) -> None:
        """The guest is off: what it had on its node is free at once."""
        if guest.mark in self._guests:
            self._guests[guest.mark].shut_down()
        node = self._nodes.pop(guest.mark, None)
        if node is not None:
            node.unplug(guest.mark)

    def boot(self, wired: WiredGuest, node: WiredNode) -> None:
        """The guest boots, in a namespace of its own and by a wire to `node`: it claims anew.

        What it remembers is the address that it had (RFC 3927 section 2.1).
        """
        guest = wired.guest
        self.unplug(guest)
        before = self._guests.get(guest.mark)
        self._begin(wired, None if before is None else before.claimant.remembered)
        if before is not None:
            before.close()
        shell = self._nodes[guest.mark] = self._shells[node.node.name]
        shell.plug(guest.mark, guest.port, octets(guest.mac), wired.port_index)

    @property
    def change(self) -> asyncio.Event:
        """Set at the next change of any claim. Whoever waits takes it first, and then looks."""
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
        """What its node has bound to its port."""
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
        """Give `bound`, or where the claim stands: down, waiting, probing, announce-wait.

        A guest that uses an address which its node has for nobody, or for another, is `unbound`;
        so is one that claims by itself, and has none yet.
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
            # Claims end in swarms: a tenth of a second later there is more to see at one look.
            await asyncio.sleep(0.1)


# Processes that share the closing of packet sockets: not for a handful of them, and no more than
# it takes to have the largest lab closed in seconds.
_FEWEST_HELD, _MOST_HOLDERS = 32, 64
