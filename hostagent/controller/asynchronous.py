"""The controller for asyncio. Runs in the caller's process, on any event loop."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

from hostagent.channel.messages import (
    Advance,
    Answer,
    Approve,
    Cancel,
    Clock,
    Command,
    Complete,
    ListEvents,
    ListGuests,
    ListResponders,
    Now,
    Placed,
    Query,
    Responders,
    Start,
    Transition,
    Welcome,
    Withdraw,
)
from hostagent.controller.conversation import (
    CHUNK,
    GREETING,
    RETRY_DELAY,
    TIMEOUT,
    AgentUnreachable,
    CommandRefused,
    Conversation,
    Question,
    adoptions,
    check,
    clock_of,
    done,
    event_of,
    events_of,
    guests_of,
    placements,
    random_id,
    responders_of,
    schedule,
)
from hostagent.model import Event, EventSource, EventType, Guest


class Controller:
    """Commands one node's agent; calls on one Controller run one after another."""

    def __init__(
        self,
        path: Path | str,
        timeout: float = TIMEOUT,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        """Use the agent whose command socket is at `path`; `connect` also opens the connection.

        `new_id` makes the ids of commands and events; each must be unique (default: random).
        """
        self.path = Path(path)
        self.timeout = timeout
        self.node = ""
        self._new_id = random_id if new_id is None else new_id
        self._lock = asyncio.Lock()
        self._conversation = Conversation()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @classmethod
    async def connect(
        cls,
        path: Path | str,
        timeout: float = TIMEOUT,  # noqa: ASYNC109
        new_id: Callable[[], str] | None = None,
    ) -> "Controller":
        """Connect, and learn the node's name; raises AgentUnreachable, CommandRefused."""
        controller = cls(path, timeout, new_id)
        try:
            async with asyncio.timeout(timeout):
                await controller._open()
        except OSError as error:  # TimeoutError is one
            await controller.close()
            raise AgentUnreachable(path, error) from error
        except CommandRefused:
            await controller.close()
            raise
        return controller

    async def close(self) -> None:
        """Close the connection. A later call opens a new one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def __aenter__(self) -> "Controller":
        """Return itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection."""
        await self.close()

    async def place(self, guests: Iterable[Guest], command_id: str | None = None) -> int:
        """Put guests on the node, or change those already there.

        One command, unless the guests' properties are too much for one frame: then several. Returns
        the sequence number of the change; see `responders`.
        """
        sequence = 0
        for command in placements(guests, self._id(command_id)):
            sequence = done(await self._ask(command)).sequence
        return sequence

    async def withdraw(
        self, names: Iterable[str], command_id: str | None = None
    ) -> dict[str, tuple[int, int]]:
        """Take guests off the node; unknown names are ignored.

        Returns the last incarnation and edits of each, for the node that adopts it.
        """
        command = Withdraw(command_id=self._id(command_id), names=tuple(names))
        return done(await self._ask(command)).left

    async def adopt(
        self,
        guests: Iterable[Placed],
        events: Iterable[Event],
        clock_offset: float,
        command_id: str | None = None,
    ) -> int:
        """Put guests from another node on this one, with that node's events and clock.

        Their incarnations continue above their last ones. Of an event known on both nodes the
        version further along stays. The clock is moved forward to `clock_offset` seconds ahead if
        it is behind. One command, unless that is too much for one frame: then several. Returns the
        sequence number of the change; see `responders`.
        """
        sequence = 0
        for command in adoptions(guests, events, clock_offset, self._id(command_id)):
            sequence = done(await self._ask(command)).sequence
        return sequence

    async def schedule(
        self,
        guests: Iterable[str],
        event_type: EventType,
        *,
        notice: float | None = None,
        duration: float | None = None,
        source: EventSource = EventSource.PLATFORM,
        description: str = "",
        event_id: str | None = None,
        command_id: str | None = None,
        elsewhere: Iterable[str] = (),
        sets_elsewhere: Iterable[str] = (),
        notice_only: bool = False,
    ) -> Event:
        """Plan an event in `notice` seconds (None: the type's least notice; 0: start it now).

        `elsewhere` are guests of other nodes that it concerns, `sets_elsewhere` their availability
        sets, whose members on this node see it. `notice_only`: announce it, and do nothing to the
        guests.
        """
        return event_of(
            await self._ask(
                schedule(
                    guests,
                    event_type,
                    notice,
                    duration,
                    source,
                    description,
                    self._id(event_id),
                    self._id(command_id),
                    elsewhere,
                    sets_elsewhere,
                    notice_only,
                )
            )
        )

    async def start(self, event_id: str, command_id: str | None = None) -> Event:
        """Start a scheduled event at once."""
        return await self._move(Start, event_id, command_id)

    async def complete(self, event_id: str, command_id: str | None = None) -> Event:
        """End a started event."""
        return await self._move(Complete, event_id, command_id)

    async def cancel(self, event_id: str, command_id: str | None = None) -> Event:
        """Cancel a scheduled event."""
        return await self._move(Cancel, event_id, command_id)

    async def approve(self, event_id: str, command_id: str | None = None) -> Event:
        """Start a scheduled event on a guest's behalf; one that has started stays so."""
        return await self._move(Approve, event_id, command_id)

    async def advance(self, seconds: float, command_id: str | None = None) -> float:
        """Move the metadata plane's clock forward; returns its time then, epoch seconds."""
        command = Advance(command_id=self._id(command_id), seconds=seconds)
        return done(await self._ask(command)).now

    async def advance_to(self, clock_offset: float, command_id: str | None = None) -> float:
        """Set the clock `clock_offset` seconds ahead of the machine's, unless it is ahead by more.

        Returns its time then. Unlike `advance`, it may be repeated, and sent to many nodes.
        """
        command = Advance(command_id=self._id(command_id), to=clock_offset)
        return done(await self._ask(command)).now

    async def now(self) -> Clock:
        """Return the metadata plane's time, and how far it is ahead of the machine's."""
        return clock_of(await self._ask(Now()))

    async def events(self, *, history: bool = False) -> tuple[Event, ...]:
        """Return the events that have not ended, with `history` also those that have."""
        return events_of(await self._ask(ListEvents(history=history)))

    async def guests(self) -> tuple[Placed, ...]:
        """Return the guests on the node with their incarnations."""
        return guests_of(await self._ask(ListGuests()))

    async def responders(self) -> Responders:
        """Return the last sequence number of the agent and of each connected responder process.

        A guest that boots on a node where it was before may get old answers until every responder
        of the node has applied the sequence that `adopt` or `place` returned.
        """
        return responders_of(await self._ask(ListResponders()))

    def _id(self, given: str | None) -> str:
        return self._new_id() if given is None else given

    async def _move(self, kind: type[Transition], event_id: str, command_id: str | None) -> Event:
        command = kind(command_id=self._id(command_id), event_id=event_id)
        return event_of(await self._ask(command))

    async def _open(self) -> None:
        self._conversation = Conversation()
        self._streams = await asyncio.open_unix_connection(self.path)
        (welcome,) = check(await self._exchange(GREETING))
        assert isinstance(welcome, Welcome)
        self.node = welcome.node

    async def _exchange(self, question: Question) -> list[Answer | Welcome]:
        assert self._streams is not None
        reader, writer = self._streams
        writer.write(self._conversation.ask(question))
        await writer.drain()
        while (answers := self._conversation.feed(await reader.read(CHUNK))) is None:
            pass
        return answers

    async def _ask(self, request: Command | Query) -> list[Answer | Welcome]:
        problem: OSError = TimeoutError("no answer in time")
        try:
            async with asyncio.timeout(self.timeout), self._lock:
                while True:
                    try:
                        if self._streams is None:
                            await self._open()
                        return check(await self._exchange(request))
                    except OSError as error:
                        problem = error
                        await self.close()
                        await asyncio.sleep(RETRY_DELAY)
                    except BaseException as error:
                        # An interrupted exchange leaves the connection out of step; a refusal does
                        # not.
                        if not isinstance(error, CommandRefused):
                            await self.close()
                        raise
        except TimeoutError as error:
            raise AgentUnreachable(self.path, problem) from error
