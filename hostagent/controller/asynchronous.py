"""The controller for asyncio."""

import asyncio
from collections.abc import Iterable
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
    Now,
    Placed,
    Query,
    Start,
    Welcome,
    Withdraw,
    encode,
)
from hostagent.controller.conversation import (
    CHUNK,
    RETRY_DELAY,
    TIMEOUT,
    AgentUnreachable,
    CommandRefused,
    Conversation,
    adoptions,
    check,
    clock_of,
    done,
    event_of,
    events_of,
    guests_of,
    new_id,
    placements,
    schedule,
)
from hostagent.model import Event, EventSource, EventType, Guest


class Controller:
    """Commands one node's agent; calls on one Controller wait for each other."""

    def __init__(self, path: Path | str, timeout: float = TIMEOUT) -> None:
        """Speak to the agent whose command socket is at `path`; `connect` makes one that does."""
        self.path = Path(path)
        self.timeout = timeout
        self.node = ""
        self._lock = asyncio.Lock()
        self._conversation = Conversation()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @classmethod
    async def connect(cls, path: Path | str, timeout: float = TIMEOUT) -> "Controller":  # noqa: ASYNC109
        """Connect, and learn the node's name; raises AgentUnreachable, CommandRefused."""
        controller = cls(path, timeout)
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
        """Give itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection."""
        await self.close()

    async def place(self, guests: Iterable[Guest], command_id: str | None = None) -> None:
        """Put guests on the node, or change those already there.

        One command, unless the guests' properties are too much for one frame: then several.
        """
        for command in placements(guests, command_id):
            await self._ask(command)

    async def withdraw(
        self, names: Iterable[str], command_id: str | None = None
    ) -> dict[str, tuple[int, int]]:
        """Take guests off the node; those that are not there are passed over.

        Gives the incarnation and the edits that each had at last, for the node that adopts it.
        """
        command = Withdraw(command_id=new_id(command_id), names=tuple(names))
        return done(await self._ask(command)).left

    async def adopt(
        self,
        guests: Iterable[Placed],
        events: Iterable[Event],
        clock_offset: float,
        command_id: str | None = None,
    ) -> None:
        """Put guests on the node that come from another, with what that node knew.

        Their incarnations go on above what they were. Events that are known here already become the
        further of the two; the clock is moved forward to `clock_offset` seconds ahead, if it is
        behind. One command, unless that is too much for one frame: then several.
        """
        for command in adoptions(guests, events, clock_offset, command_id):
            await self._ask(command)

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
        sets, whose members on this node see it. `notice_only`: it is told, and nothing is to be
        done to the guests.
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
                    event_id,
                    command_id,
                    elsewhere,
                    sets_elsewhere,
                    notice_only,
                )
            )
        )

    async def start(self, event_id: str, command_id: str | None = None) -> Event:
        """Start a scheduled event at once."""
        return event_of(await self._ask(Start(command_id=new_id(command_id), event_id=event_id)))

    async def complete(self, event_id: str, command_id: str | None = None) -> Event:
        """End a started event."""
        return event_of(await self._ask(Complete(command_id=new_id(command_id), event_id=event_id)))

    async def cancel(self, event_id: str, command_id: str | None = None) -> Event:
        """Take back a scheduled event."""
        return event_of(await self._ask(Cancel(command_id=new_id(command_id), event_id=event_id)))

    async def approve(self, event_id: str, command_id: str | None = None) -> Event:
        """Start a scheduled event on a guest's behalf; one that has started stays so."""
        return event_of(await self._ask(Approve(command_id=new_id(command_id), event_id=event_id)))

    async def advance(self, seconds: float, command_id: str | None = None) -> float:
        """Move the metadata plane's clock forward; gives its time now, epoch seconds."""
        command = Advance(command_id=new_id(command_id), seconds=seconds)
        return done(await self._ask(command)).now

    async def now(self) -> Clock:
        """Give the metadata plane's time, and how far it is ahead of the machine's."""
        return clock_of(await self._ask(Now()))

    async def events(self, *, history: bool = False) -> tuple[Event, ...]:
        """Give the events not ended, with `history` also those that have."""
        return events_of(await self._ask(ListEvents(history=history)))

    async def guests(self) -> tuple[Placed, ...]:
        """Give the guests on the node with their incarnations."""
        return guests_of(await self._ask(ListGuests()))

    async def _open(self) -> None:
        self._conversation = Conversation()
        self._streams = await asyncio.open_unix_connection(self.path)
        (welcome,) = check(await self._exchange(self._conversation.greeting()))
        assert isinstance(welcome, Welcome)
        self.node = welcome.node

    async def _exchange(self, frame: bytes) -> list[Answer | Welcome]:
        assert self._streams is not None
        reader, writer = self._streams
        writer.write(frame)
        await writer.drain()
        while (answers := self._conversation.feed(await reader.read(CHUNK))) is None:
            pass
        return answers

    async def _ask(self, request: Command | Query) -> list[Answer | Welcome]:
        frame = encode(request)
        problem: OSError = TimeoutError("no answer in time")
        try:
            async with asyncio.timeout(self.timeout), self._lock:
                while True:
                    try:
                        if self._streams is None:
                            await self._open()
                        return check(await self._exchange(frame))
                    except OSError as error:
                        problem = error
                        await self.close()
                        await asyncio.sleep(RETRY_DELAY)
                    except BaseException as error:
                        # Cut off half-way, the connection is out of step; a refusal leaves it in.
                        if not isinstance(error, CommandRefused):
                            await self.close()
                        raise
        except TimeoutError as error:
            raise AgentUnreachable(self.path, problem) from error
