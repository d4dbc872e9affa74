"""Tells each node's agent which guests it has, again after each change."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from hostagent.channel.messages import Left
from hostagent.controller import calls
from hostagent.model import Guest as PlacedGuest
from hostagent.model import sees
from netemu.errors import BadInput, NotSo
from netemu.supervisor.control.store import (
    PASSING,
    AgentRefuses,
    AgentSilent,
    Known,
    NodeFailed,
    Store,
)
from netemu.supervisor.nodes.claims import Claims
from netemu.supervisor.nodes.wiring import WiredNode
from netemu.topology import Guest

log = logging.getLogger(__name__)

# Many addresses change at once when a lab's guests are rebooted: one command tells them all.
_BURST: Final = 0.1
# An agent that has refused, or is being started again, is told again.
_FIRST_RETRY: Final = 0.05
_LAST_RETRY: Final = 5.0
# How long a guest that comes to a node waits for the node's responder to know of it. A responder
# that hangs is started again within ten seconds.
_APPLIED_WITHIN: Final = 15.0
_PAUSE: Final = 0.05


class Placement:
    """What the agents of `nodes` have been told, by node and guest.

    A guest is placed with its port, and with its properties: those of the lab file or of `set`,
    its MAC, and the address that it was last bound to. With `by_address` that address is also what
    the responder knows it by. `removed` is called with each guest that is gone for good.
    """

    def __init__(
        self,
        store: Store,
        nodes: Sequence[WiredNode],
        claims: Claims,
        *,
        by_address: bool = False,
    ) -> None:
        self.removed: Callable[[str], None] = lambda _guest: None
        self._store = store
        self._locks = {wired.node.name: asyncio.Lock() for wired in nodes}
        self._nodes = {wired.node.name: wired for wired in nodes}
        self._claims = claims
        self._by_address = by_address
        self._properties = {
            one.guest.name: dict(one.guest.properties) for wired in nodes for one in wired.guests
        }
        self._addresses: dict[str, str] = {}
        self._told: dict[str, dict[str, PlacedGuest]] = defaultdict(dict)
        self._unwanted: dict[str, set[str]] = defaultdict(set)  # guests that a node may still know
        self._gone: set[str] = set()  # guests that are on no node any more
        self._stale = {name: asyncio.Event() for name in self._nodes}

    async def tell_all(self) -> None:
        """Tell every agent the present placement, once it is there. Raises NotSo if one refuses."""
        try:
            async with asyncio.TaskGroup() as group:
                for node in self._nodes:
                    group.create_task(self._tell_patiently(node))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _tell_patiently(self, node: str) -> None:
        pause = _FIRST_RETRY
        while True:
            try:
                return await self.tell(node)
            except AgentSilent:  # it is being started
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LAST_RETRY)

    async def follow(self) -> None:
        """Have the agents know of every change from now on, for as long as the lab is up."""
        async with asyncio.TaskGroup() as group:
            for node in self._nodes:
                group.create_task(self._keep_told(node))
            while True:
                change = self._claims.change
                for stale in self._stale.values():
                    stale.set()
                await change.wait()
                await asyncio.sleep(_BURST)

    async def _keep_told(self, node: str) -> None:
        pause, problem = _FIRST_RETRY, ""
        while True:
            await self._stale[node].wait()
            self._stale[node].clear()
            try:
                await self.tell(node)
            except NotSo as error:
                if str(error) != problem:
                    problem = str(error)
                    log.warning("placing guests: %s", problem)
                self._stale[node].set()
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LAST_RETRY)
            else:
                pause, problem = _FIRST_RETRY, ""

    def properties(self, guest: str) -> dict[str, str]:
        """The properties that the lab file or `change` has given to the guest."""
        return dict(self._properties[guest])

    async def change(self, guest: str, changes: Mapping[str, str]) -> None:
        """Change properties; an empty value takes one away. Returns when the agent has stored
        it. If its node has failed, the guest's next agent is told.

        Raises BadInput or NotSo if the agent refuses; then nothing has changed.
        """
        while True:
            node = self._home(guest)
            async with self._locks[node]:
                if self._home(guest) == node:  # it has not moved meanwhile
                    return await self._change(node, guest, changes)

    async def _change(self, node: str, guest: str, changes: Mapping[str, str]) -> None:
        merged = {**self._properties[guest], **changes}
        after = {key: value for key, value in merged.items() if value}
        # The tables of properties and regions are large, and few labs change any.
        from netemu.wire.lab_file import wrong_together

        if wrong := wrong_together(after):
            raise BadInput(f"{guest}: {wrong}")
        (known,) = (one.guest for one in self._nodes[node].guests if one.guest.name == guest)
        placed = self._placed(known, after)
        self._told[node].pop(guest, None)  # until the outcome is known
        try:
            await self._store.settle(node, calls.place([placed]), patient=False)
            self._told[node][guest] = placed
        except NodeFailed:
            pass
        except (AgentSilent, AgentRefuses) as error:
            self._stale[node].set()
            wrong_input = isinstance(error, AgentRefuses) and error.bad_input
            raise (BadInput if wrong_input else NotSo)(f"{guest}: {error}") from None
        self._properties[guest] = after

    def _home(self, guest: str) -> str:
        return next(
            name
            for name, wired in self._nodes.items()
            if any(one.guest.name == guest for one in wired.guests)
        )

    async def tell(self, node: str) -> None:
        """Tell the node's agent the present placement. Raises AgentSilent, AgentRefuses."""
        async with self._locks[node]:
            if self._store.away(node):
                return
            wired = self._nodes[node]
            here = [one.guest for one in wired.guests if one.guest.name not in self._gone]
            self._unwanted[node].difference_update(guest.name for guest in here)
            told = self._told[node]
            current = [self._placed(guest) for guest in here]
            news = [one for one in current if told.get(one.name) != one]
            for one in news:
                told.pop(one.name, None)  # until the outcome is known
            try:
                if news:
                    await self._place(node, news)
                if unwanted := sorted(self._unwanted[node]):
                    await self._store.append(node, calls.withdraw(unwanted))
                    self._unwanted[node].difference_update(unwanted)
            except NodeFailed:
                pass

    async def _place(self, node: str, news: Sequence[PlacedGuest]) -> None:
        """Together, or else one by one: what is refused of one is not refused of the others."""
        try:
            await self._store.append(node, calls.place(news))
            self._told[node].update((one.name, one) for one in news)
        except AgentRefuses as error:
            if len(news) == 1 or error.code in PASSING:
                raise
            problem: AgentRefuses | None = None
            for one in news:
                try:
                    await self._place(node, (one,))
                except AgentRefuses as refusal:
                    problem = problem or refusal
            if problem is not None:
                raise problem from None

    # Guests that change places.

    def admit(self, guest: str, properties: Mapping[str, str]) -> None:
        """Note a guest that comes from another machine, with these properties."""
        found = ("mac", "address")  # the lab sets them itself
        self._properties[guest] = {
            key: value for key, value in properties.items() if key not in found
        }
        self._gone.discard(guest)

    async def adopt(
        self,
        node: str,
        guests: Iterable[Guest],
        known: Known,
        earlier: Mapping[str, tuple[str, ...]] = calls.NONE_BEFORE,
    ) -> int:
        """Have a node's agent take over guests, with what was `known` of them elsewhere.

        It is stored there then. `earlier` are the faults with which guests came that are there
        already. Returns the sequence as of which responders know of it.
        Raises NodeFailed, AgentRefuses and AgentSilent; then none of them is to be there.
        """
        before = {placed.guest.name: placed for placed in known.guests}
        arriving = [guest for guest in guests if guest.name in before]
        async with self._locks[node]:
            placed = [replace(before[one.name], guest=self._placed(one)) for one in arriving]
            concerned = [
                event for event in known.events if any(sees(one.guest, event) for one in placed)
            ]
            take = calls.adopt(placed, concerned, known.clock_offset, before=earlier)
            try:
                sequence = await self._store.settle(node, take)
            except (AgentRefuses, AgentSilent):  # of several commands the first may be done
                self.disown(node, (guest.name for guest in arriving))
                raise
            self._told[node].update((one.guest.name, one.guest) for one in placed)
            self._unwanted[node].difference_update(guest.name for guest in arriving)
            return sequence

    async def withdraw(
        self, node: str, guests: Iterable[str], command_id: str
    ) -> Mapping[str, Left]:
        """Have a node's agent forget guests: they are elsewhere.

        Returns what it knew last of each that it had. Raises NodeFailed, AgentRefuses and
        AgentSilent.
        """
        names = tuple(guests)
        async with self._locks[node]:
            for name in names:
                self._told[node].pop(name, None)
            return await self._store.settle(node, calls.withdraw(names, command_id))

    def disown(self, node: str, guests: Iterable[str]) -> None:
        """Have the node's agent forget guests that it may know and that are not on the node, and
        know of those that are.
        """
        self._unwanted[node].update(guests)
        self._stale[node].set()

    async def remove(self, node: str, guest: str) -> None:
        """Have its agent forget a guest that has gone for good: now, or as soon as it can."""
        self._gone.add(guest)
        self.removed(guest)
        self.disown(node, (guest,))
        try:
            await self.tell(node)
        except NotSo as error:  # `follow` goes on with it
            log.info("%s is not forgotten yet: %s", guest, error)

    async def applied(self, node: str, sequence: int, responders: int) -> None:
        """Wait until all responders of a node answer from what was so as of `sequence`.

        A guest that returns to a node would else be told what was so before it left. Bounded:
        a responder that does not come up is no reason to keep a guest off.
        """
        try:
            async with asyncio.timeout(_APPLIED_WITHIN):
                while True:
                    applied = (await self._store.append(node, calls.responders())).applied
                    if len(applied) >= responders and min(applied, default=sequence) >= sequence:
                        return
                    await asyncio.sleep(_PAUSE)
        except (TimeoutError, NotSo) as error:
            log.warning("%s: its responder may be behind: %s", node, error or "it is not heard")

    def restore(self, node: str) -> None:
        """The node is back, and knows what it knew, or nothing: it is told all of it again."""
        self._told[node].clear()
        self._unwanted[node].clear()
        self._stale[node].set()

    def _placed(self, guest: Guest, properties: Mapping[str, str] | None = None) -> PlacedGuest:
        address = self._claims.address(guest)
        if address is not None and self._claims.bound(guest):
            self._addresses[guest.name] = address
        known = self._addresses.get(guest.name)
        found = {"mac": guest.mac, **({} if known is None else {"address": known})}
        given = self._properties[guest.name] if properties is None else properties
        return PlacedGuest(
            name=guest.name,
            port=guest.mark,
            address=known if self._by_address else None,
            update_domain=guest.update_domain,
            fault_domain=guest.fault_domain,
            availability_set=guest.availability_set,
            properties={**given, **found},
        )
