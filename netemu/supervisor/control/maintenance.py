"""Commands of events: each is told to the agents of all nodes whose guests it concerns.

Runs in the supervisor, which owns the lab's events: a command comes by the control socket, and its
answer is what the agents have stored.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final
from uuid import uuid4

from hostagent.controller import calls
from hostagent.controller.calls import Call
from hostagent.model import FINAL, Event, EventStatus
from netemu.errors import BadInput, NotSo
from netemu.supervisor.control.agent_feeds import AgentFeeds
from netemu.supervisor.control.store import AgentRefuses, Store
from netemu.supervisor.nodes.wiring import WiredNode
from netemu.topology import Node
from netemu.wire.event_questions import Schedule

Act = Callable[[str], Call[Event]]

# What a node on another machine has come to is known here some tenths of a second later.
_TOLD_WITHIN: Final = 3.0
_LOOK: Final = 0.1

_ACTS: dict[str, Act] = {
    "approve": calls.approve,
    "start": calls.start,
    "complete": calls.complete,
    "cancel": calls.cancel,
}


class Maintenance:
    """The events of one lab. All raise NetemuError.

    `belongs` is asked of a guest and a node on another machine: it may have left that since.
    """

    def __init__(
        self,
        lab: str,
        store: Store,
        nodes: Sequence[WiredNode],
        feeds: AgentFeeds,
        elsewhere: Iterable[Node] = (),
    ) -> None:
        self._lab = lab
        self._store = store
        self._nodes = {wired.node.name: wired for wired in nodes}
        self._feeds = feeds
        self._elsewhere = {node.name: node for node in elsewhere}  # on other machines
        self.belongs: Callable[[str, str], bool] = lambda _guest, _node: True
        self._clock = asyncio.Lock()
        self._ahead = 0.0

    def events(self, *, history: bool = False) -> list[Event]:
        """Return the events that have not ended, with `history` also others; earliest first."""
        return sorted(
            (one for one in self._feeds.events().values() if history or one.status not in FINAL),
            key=lambda one: one.not_before,
        )

    async def schedule(self, wanted: Schedule) -> Event:
        """Plan an event.

        A notice of 0 starts it at once, as a hardware failure would. If one of several nodes
        refuses, it is taken back from the others.
        """
        homes = {guest: node for node in self._everywhere() for guest in self._guests(node)}
        concerned = list(dict.fromkeys(wanted.guests))
        by_node: dict[str, list[str]] = {}
        for guest in concerned:
            if guest not in homes:
                raise BadInput(f"{guest}: lab {self._lab} has no such guest")
            if self._store.away(homes[guest]):
                raise NotSo(f"{guest}: its node {self._store.absence(homes[guest])}")
            by_node.setdefault(homes[guest], []).append(guest)
        if not by_node:
            raise BadInput("an event concerns at least one guest")
        machines = {self._machine(node) for node in by_node}
        if len(machines) > 1 and wanted.duration is None and not wanted.notice_only:
            # None of them knows when all have carried it out.
            raise BadInput("its guests are on several machines: an event of such has a duration")
        sets = self._sets(concerned)
        for node in self._seen_by(sets):
            by_node.setdefault(node, [])
        event_id = str(uuid4())
        planned: list[str] = []
        try:
            for node, names in by_node.items():
                plan = calls.schedule(
                    names,
                    wanted.kind,
                    notice=wanted.notice,
                    duration=wanted.duration,
                    source=wanted.source,
                    description=wanted.description,
                    event_id=event_id,
                    elsewhere=[one for one in concerned if one not in names] if sets else (),
                    sets_elsewhere=sets,
                    notice_only=wanted.notice_only,
                )
                planned.append(node)
                event = await self._store.append(node, plan)
                self._feeds.lab.acknowledged(node, event)
        except NotSo:
            await self._take_back(planned, event_id, started=wanted.notice == 0)
            raise
        return self._feeds.events()[event_id]

    def _sets(self, guests: Iterable[str]) -> list[str]:
        """The availability sets that these guests are of."""
        of = {name: it for node in self._everywhere() for name, it in self._guests(node).items()}
        return sorted({one for guest in guests if (one := of[guest]) is not None})

    def _seen_by(self, sets: Sequence[str]) -> list[str]:
        """The nodes some of whose guests see an event because it concerns one of their set's."""
        sets_of = set(sets)
        return [
            name
            for name in self._everywhere()
            if not self._store.away(name) and not sets_of.isdisjoint(self._guests(name).values())
        ]

    def _everywhere(self) -> list[str]:
        """The nodes here, and then those on other machines."""
        return [*self._nodes, *self._elsewhere]

    def _guests(self, node: str) -> Mapping[str, str | None]:
        """The guests of a node, and their availability sets."""
        if node in self._nodes:
            return {one.guest.name: one.guest.availability_set for one in self._nodes[node].guests}
        known = [one.guest for one in self._feeds.known(node).guests]
        guests = known or self._elsewhere[node].guests
        return {one.name: one.availability_set for one in guests if self.belongs(one.name, node)}

    def guests_on(self, node: str) -> Sequence[str]:
        """The guests that a node on another machine has told of, and that are still there."""
        known = [one.guest.name for one in self._feeds.known(node).guests]
        return [name for name in known if self.belongs(name, node)]

    def elsewhere(self) -> dict[str, Sequence[str]]:
        """The guests of each node on another machine."""
        return {node: list(self._guests(node)) for node in self._elsewhere}

    def _machine(self, node: str) -> str | None:
        return self._elsewhere[node].machine if node in self._elsewhere else "this one"

    async def _take_back(self, nodes: Iterable[str], event_id: str, *, started: bool) -> None:
        """Undo it at these nodes. The caller tells of the first error, and of none from here."""
        for node in nodes:
            try:
                end = calls.complete if started else calls.cancel
                event = await self._store.append(node, end(event_id))
                self._feeds.lab.acknowledged(node, event)
            except NotSo:
                continue

    async def transition(self, verb: str, event_id: str) -> Event:
        """Approve, start, complete or cancel an event; `event_id` may be a beginning of the ID.

        It is done at each agent that has the event. Where it has not come as far as elsewhere it is
        first brought there; where it has ended it is left alone.
        """
        if verb not in _ACTS:
            raise BadInput(f"{verb}: an event can be {', '.join(_ACTS)}d")
        whole = self._whole_id(event_id)
        copies = self._feeds.lab.at(whole)
        live = {node: event for node, event in copies.items() if not self._store.away(node)}
        if not live:
            raise NotSo(f"{whole}: its node {', '.join(map(self._store.absence, copies))}")
        lasting = {node: one for node, one in live.items() if one.status not in FINAL} or live
        started = any(one.status is EventStatus.STARTED for one in lasting.values())
        reached: EventStatus | None = None
        for node, event in lasting.items():
            if started and event.status is EventStatus.SCHEDULED:
                await self._act(node, whole, calls.start, EventStatus.STARTED)
        for node in lasting:
            reached = (await self._act(node, whole, _ACTS[verb], reached)).status
        return self._feeds.events()[whole]

    async def _act(self, node: str, event_id: str, act: Act, reached: EventStatus | None) -> Event:
        """Have an agent move an event on, unless it has `reached` that already.

        The lab brings agents that are behind to where others are, and may have been quicker.
        """
        try:
            event = await self._store.append(node, act(event_id))
        except AgentRefuses:
            already = await self._reached(node, event_id, reached)
            if already is None:
                raise
            event = already
        self._feeds.lab.acknowledged(node, event)
        return event

    async def _reached(self, node: str, event_id: str, reached: EventStatus | None) -> Event | None:
        """The event as a node's agent has it, if it has come so far; None: it has not."""
        now = asyncio.get_running_loop().time
        end = now() + _TOLD_WITHIN
        while reached is not None:
            known = await self._store.append(node, calls.events(history=True))
            for event in known:
                if event.id == event_id and event.status is reached:
                    return event
            if node in self._nodes or now() > end:
                break
            await asyncio.sleep(_LOOK)
        return None

    def _whole_id(self, event_id: str) -> str:
        if not event_id:
            raise BadInput("the ID of an event is not empty; 'netemu maintenance list' shows them")
        known = self._feeds.events()
        found = (
            [event_id] if event_id in known else [one for one in known if one.startswith(event_id)]
        )
        if not found:
            raise NotSo(f"{event_id}: lab {self._lab} has no such event")
        if len(found) > 1:
            raise BadInput(f"{event_id}: begins the IDs of {len(found)} events; write it whole")
        return found[0]

    # The clock.

    async def advance(self, seconds: float) -> float:
        """Move the metadata plane's clock forward on all nodes. Returns its time then.

        Notices begin, events start and end, tokens expire; TCP and RFC 3927 take their time as
        ever. If a node does not do it, the others have: the error says which.
        """
        running = [node for node in self._everywhere() if not self._store.away(node)]
        if not running:
            raise NotSo(f"lab {self._lab}: no node runs")
        async with self._clock:  # two who move it at once both do
            to = max(self._feeds.clock_offset, self._ahead) + seconds
            moments: list[float] = []
            for node in running:
                try:
                    moments.append(await self._store.append(node, calls.advance_to(to)))
                except NotSo as error:
                    if isinstance(error, AgentRefuses) and error.bad_input:
                        raise BadInput(str(error)) from None
                    moved = running[: len(moments)]
                    so_far = f"; moved already: {', '.join(moved)}" if moved else ""
                    raise NotSo(f"{node}: its clock is not moved: {error}{so_far}") from None
                self._ahead = to
        return max(moments)

    async def now(self) -> dict[str, float]:
        """Return the metadata plane's time at each node, in seconds since the epoch.

        Where no node runs it is the lab's, under the name "".
        """
        times: dict[str, float] = {}
        for node in self._nodes:
            if not self._store.away(node):
                times[node] = (await self._store.append(node, calls.now())).now
        return times or {"": self._feeds.now()}
