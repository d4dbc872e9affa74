"""Commands to the agents of a whole lab: one event may concern guests of several nodes.

Each node's agent knows of its own guests only, so an event of guests on two nodes is scheduled,
under one ID, with both agents, and shown as one.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Self
from uuid import uuid4

from msgspec.structs import replace

from hostagent.controller import AgentUnreachable, CommandRefused, SyncController
from hostagent.model import FINAL, Event, EventSource, EventStatus, EventType
from netemu.client import labs
from netemu.errors import BadInput, NotSo


class Maintenance:
    """What befalls the guests of one running lab; a context manager. All raise NetemuError."""

    def __init__(self, lab: str) -> None:
        told = labs.status(lab)
        self._lab = lab
        self._node_of = {
            guest["name"]: node["name"] for node in told["nodes"] for guest in node["guests"]
        }
        failed = {node["name"] for node in told["nodes"] if node.get("state") == "failed"}
        # Of a node that has failed nobody answers, and its guests will be elsewhere.
        self._sockets = {
            node: path for node, path in labs.agents(lab).items() if node not in failed
        }
        self._open = ExitStack()
        self._controllers: dict[str, SyncController] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def schedule(
        self,
        guests: Iterable[str],
        kind: EventType,
        *,
        notice: float | None,
        duration: float | None,
        source: EventSource = EventSource.PLATFORM,
        description: str = "",
        notice_only: bool = False,
    ) -> Event:
        """Plan an event in `notice` seconds (None: the type's least), of `duration` seconds.

        A notice of 0 starts it at once, as a hardware failure would; `notice_only` tells the guests
        and does nothing to them. If one of several nodes refuses, it is taken back from the others.
        """
        by_node: dict[str, list[str]] = {}
        for guest in dict.fromkeys(guests):
            if guest not in self._node_of:
                raise BadInput(f"{guest}: lab {self._lab} has no such guest")
            if self._node_of[guest] not in self._sockets:
                raise NotSo(f"{guest}: its node {self._node_of[guest]} has failed")
            by_node.setdefault(self._node_of[guest], []).append(guest)
        if not by_node:
            raise BadInput("an event concerns at least one guest")
        concerned = [guest for names in by_node.values() for guest in names]
        sets = self._spread(by_node)
        event_id = str(uuid4())
        planned: list[Event] = []
        try:
            for node, names in by_node.items():
                with _in_our_words():
                    event = self._agent(node).schedule(
                        names,
                        kind,
                        notice=notice,
                        duration=duration,
                        source=source,
                        description=description,
                        event_id=event_id,
                        elsewhere=[one for one in concerned if one not in names] if sets else (),
                        sets_elsewhere=sets,
                        notice_only=notice_only,
                    )
                planned.append(event)
        except NotSo:
            for node, event in zip(by_node, planned, strict=False):
                started = event.status is EventStatus.STARTED
                end = SyncController.complete if started else SyncController.cancel
                try:
                    end(self._agent(node), event_id)
                except (CommandRefused, AgentUnreachable):  # what went wrong first is what is told
                    continue
            raise
        return _merged(planned)

    def _spread(self, by_node: dict[str, list[str]]) -> list[str]:
        """Add the nodes whose guests see the event for it concerns one of their availability set's.

        Gives the sets.
        """
        with _in_our_words():
            placed = {
                node: {one.guest.name: one.guest.availability_set for one in agent.guests()}
                for node, agent in ((node, self._agent(node)) for node in self._sockets)
            }
        own = {placed[node].get(guest) for node, guests in by_node.items() for guest in guests}
        sets = sorted(one for one in own if one is not None)
        for node, members in placed.items():
            if not set(sets).isdisjoint(filter(None, members.values())):
                by_node.setdefault(node, [])
        return sets

    def events(self, *, history: bool = False) -> list[Event]:
        """Give the events that have not ended, with `history` also others; earliest first."""
        found: dict[str, list[Event]] = {}
        for node in self._sockets:
            with _in_our_words():
                for event in self._agent(node).events(history=history):
                    found.setdefault(event.id, []).append(event)
        return sorted((_merged(same) for same in found.values()), key=lambda one: one.not_before)

    def approve(self, event_id: str) -> Event:
        """Start a scheduled event as its guests would; one that has started stays so."""
        return self._each(event_id, SyncController.approve)

    def start(self, event_id: str) -> Event:
        """Start a scheduled event now."""
        return self._each(event_id, SyncController.start)

    def complete(self, event_id: str) -> Event:
        """End a started event."""
        return self._each(event_id, SyncController.complete)

    def cancel(self, event_id: str) -> Event:
        """Take back a scheduled event."""
        return self._each(event_id, SyncController.cancel)

    def advance(self, seconds: float) -> float:
        """Move the metadata plane's clock forward on all nodes; gives its time then.

        Notices begin, events start and end, tokens expire; TCP and RFC 3927 take their time as
        ever. If a node does not do it, the others have: the error says which.
        """
        agents = {node: self._agent(node) for node in self._sockets}
        if not agents:
            raise NotSo(f"lab {self._lab}: no node runs")
        with _in_our_words():
            ahead = max(agent.now().clock_offset for agent in agents.values())
        moments: list[float] = []
        for node, agent in agents.items():
            try:
                with _in_our_words():
                    moment = agent.advance_to(ahead)
                    if not moments:
                        # The first node says how far, so that two who move the clock at once both
                        # do. The others follow it, and none that knows already moves twice.
                        moment = agent.advance(seconds)
                        ahead = agent.now().clock_offset
                    moments.append(moment)
            except NotSo as error:
                moved = list(agents)[: len(moments)]
                so_far = f"; moved already: {', '.join(moved)}" if moved else ""
                raise NotSo(f"{node}: its clock is not moved: {error}{so_far}") from None
        return max(moments)

    def now(self) -> dict[str, float]:
        """Give the metadata plane's time at each node, in seconds since the epoch."""
        with _in_our_words():
            return {node: self._agent(node).now().now for node in self._sockets}

    def _each(self, event_id: str, act: Callable[[SyncController, str], Event]) -> Event:
        """Do it at every agent that has the event; `event_id` may be a beginning of the ID.

        A guest's approval, or a node that was away, leaves the event further at one agent than at
        another: those behind are brought up first, and those where it has ended are left alone.
        """
        holders: dict[str, list[tuple[SyncController, Event]]] = {}
        for node in self._sockets:
            with _in_our_words():
                for event in self._agent(node).events(history=True):
                    if event.id.startswith(event_id):
                        holders.setdefault(event.id, []).append((self._agent(node), event))
        if not holders:
            raise NotSo(f"{event_id}: lab {self._lab} has no such event")
        if len(holders) > 1:
            raise BadInput(f"{event_id}: begins the IDs of {len(holders)} events; write it whole")
        ((whole, known),) = holders.items()
        lasting = [(agent, event) for agent, event in known if event.status not in FINAL] or known
        started = any(event.status is EventStatus.STARTED for _, event in lasting)
        moved: list[Event] = []
        with _in_our_words():
            for agent, event in lasting:
                if started and event.status is EventStatus.SCHEDULED:
                    _move(agent, whole, SyncController.start, EventStatus.STARTED)
            for agent, _ in lasting:
                reached = moved[0].status if moved else None
                moved.append(_move(agent, whole, act, reached))
        return _merged(moved)

    def _agent(self, node: str) -> SyncController:
        if node not in self._controllers:
            with _in_our_words():
                controller = SyncController(self._sockets[node])
            self._controllers[node] = self._open.enter_context(controller)
        return self._controllers[node]


def _move(
    agent: SyncController,
    event_id: str,
    act: Callable[[SyncController, str], Event],
    reached: EventStatus | None,
) -> Event:
    """Have an agent move an event on, unless it has `reached` that already.

    The lab brings agents that are behind to where others are, and may have been quicker.
    """
    try:
        return act(agent, event_id)
    except CommandRefused:
        for event in agent.events(history=True):
            if event.id == event_id and event.status is reached:
                return event
        raise


@contextmanager
def _in_our_words() -> Iterator[None]:
    """What an agent refuses, or that it does not answer, as an error of the lab."""
    try:
        yield
    except CommandRefused as error:
        raise (BadInput if error.bad_input else NotSo)(str(error)) from None
    except AgentUnreachable as error:
        raise NotSo(str(error)) from None


def _merged(same: list[Event]) -> Event:
    """One event out of what each node's agent says of it: it has started once it has anywhere, and
    lasts as long as it does anywhere.
    """
    lasting = [event for event in same if event.status not in FINAL] or same
    started = [event for event in lasting if event.status is EventStatus.STARTED]
    guests = tuple(dict.fromkeys(guest for event in same for guest in event.guests))
    return replace((started or lasting)[0], guests=guests)
