"""Faults of the metadata service, on command, and what guests have asked of it.

Runs in the supervisor. It keeps nothing: the agents store the faults, and take them along when a
guest changes its node.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from hostagent.channel.messages import Poll
from hostagent.channel.requests import Placed
from hostagent.controller import calls
from hostagent.faults import Fault, is_over
from netemu.errors import BadInput, NotSo
from netemu.supervisor.control.agent_feeds import AgentFeeds
from netemu.supervisor.control.store import AgentRefuses, NodeFailed, Store
from netemu.supervisor.nodes.wiring import WiredNode
from netemu.topology import Lab
from netemu.wire.event_questions import FaultOfGuest
from netemu.wire.faults import planned


class Faults:
    """The faults of one lab's guests. `elsewhere` returns those of nodes on other machines."""

    def __init__(
        self,
        lab: Lab,
        store: Store,
        nodes: Sequence[WiredNode],
        feeds: AgentFeeds,
        elsewhere: Callable[[], Mapping[str, Sequence[str]]] = dict,
    ) -> None:
        self._lab = lab
        self._store = store
        self._nodes = nodes
        self._feeds = feeds
        self._elsewhere = elsewhere

    def guests_of_the_file(self) -> set[str]:
        """The guests that meet faults from the lab's start on."""
        return {name for entry in self._lab.faults for name in entry.get("guests") or self._names()}

    async def add_those_of_the_file(self) -> None:
        """Add what the lab file says, once the agents know the guests."""
        for entry in self._lab.faults:
            told = dict(entry)
            await self.add(told.pop("guests", None) or self._names(), planned(**told))

    async def add(self, guests: Iterable[str], faults: Sequence[Fault]) -> None:
        """Have requests of guests meet faults, whose times are seconds from now.

        Raises BadInput and NotSo; guests of other nodes may have been told then.
        """
        for node, names in self._by_node(guests).items():
            await self._add(node, names, faults)

    async def _add(self, node: str, names: Sequence[str], faults: Sequence[Fault]) -> None:
        told = True
        try:
            await self._store.settle(node, calls.add_faults(names, faults), patient=False)
        except AgentRefuses as error:
            if error.code != "unknown-guest" or self._by_node(names).keys() == {node}:
                raise
            told = False  # one has moved meanwhile
        for home, some in self._by_node(names).items():
            for name in () if told and home == node else some:
                try:
                    await self._add(home, (name,), faults)
                except AgentRefuses as error:
                    if error.code != "conflict":  # it took them along
                        raise

    async def clear(self, guests: Iterable[str], ids: Sequence[str]) -> None:
        """End faults: of these guests (none: of all) those with these IDs (none: all).

        An ID may be written by its beginning. Raises BadInput and NotSo; where one node is away,
        those of the others have ended.
        """
        known = {one.fault.id for one in await self.listed()}
        whole = [self._whole_id(one, known) for one in ids]
        away: NodeFailed | None = None
        for node, names in self._by_node(guests or self._homes()).items():
            try:
                await self._clear(node, names, whole)
            except NodeFailed as error:  # a guest that heals takes its faults along
                away = error
        if away is not None:
            raise NotSo(f"{away}: faults of its guests are not cleared")

    async def _clear(self, node: str, names: Sequence[str], ids: Sequence[str]) -> None:
        await self._store.settle(node, calls.clear_faults(names, ids), patient=False)
        for home, moved in self._by_node(names).items():
            if home != node:  # the agent may have forgotten them before it was told
                await self._clear(home, moved, ids)

    async def listed(self) -> list[FaultOfGuest]:
        """Return each guest's faults that are not over, with times of the metadata clock."""
        nodes = [*(wired.node.name for wired in self._nodes), *self._elsewhere()]
        known = await asyncio.gather(*map(self._placed, nodes))
        now, homes = self._feeds.now(), self._homes()
        return [
            FaultOfGuest(placed.guest.name, fault)
            for node, guests in zip(nodes, known, strict=True)
            for placed in guests
            if homes.get(placed.guest.name) == node
            for fault in placed.faults
            if not is_over(fault, now)
        ]

    async def _placed(self, node: str) -> Sequence[Placed]:
        """What the node's agent knows of its guests; if it is not there, what it said last."""
        try:
            return await self._store.append(node, calls.guests())
        except NotSo:
            return self._feeds.known(node).guests

    async def polls(self, guest: str) -> list[Poll]:
        """Return what a guest has asked, wherever it was: its nodes' responders have it."""
        nodes = [wired.node.name for wired in self._nodes if not self._store.away(wired.node.name)]
        told = await asyncio.gather(
            *(self._store.append(node, calls.polls(guest)) for node in nodes),
            return_exceptions=True,
        )
        for one in told:
            if isinstance(one, BaseException) and not isinstance(one, NotSo):
                raise one
        rows = [row for one in told if not isinstance(one, BaseException) for row in one]
        return sorted(rows, key=lambda row: row.at)

    def _names(self) -> list[str]:
        return [guest.name for guest in self._lab.guests]

    def _homes(self) -> dict[str, str]:
        """The node of each guest, on whichever machine."""
        there = {name: node for node, names in self._elsewhere().items() for name in names}
        here = {one.guest.name: wired.node.name for wired in self._nodes for one in wired.guests}
        return there | here

    def _by_node(self, guests: Iterable[str]) -> dict[str, list[str]]:
        home = self._homes()
        found: dict[str, list[str]] = {}
        for guest in dict.fromkeys(guests):
            if guest not in home:
                raise BadInput(f"{guest}: lab {self._lab.name} has no such guest")
            found.setdefault(home[guest], []).append(guest)
        return found

    def _whole_id(self, given: str, known: Iterable[str]) -> str:
        found = [one for one in known if given and one.startswith(given)]
        if len(found) != 1:
            kind = BadInput if found else NotSo
            raise kind(f"{given}: {len(found) or 'no'} faults have an ID that begins so")
        return found[0]
