"""The controller for everyone else: every call blocks."""

import socket
import time
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


class SyncController:
    """Commands one node's agent, plainly: every call blocks until its answer or its timeout."""

    def __init__(self, path: Path | str, timeout: float = TIMEOUT) -> None:
        """Connect to the agent's command socket; raises AgentUnreachable, CommandRefused."""
        self.path = Path(path)
        self.timeout = timeout
        self.node = ""
        self._conversation = Conversation()
        self._socket: socket.socket | None = None
        try:
            self._open(time.monotonic() + timeout)
        except OSError as error:  # TimeoutError is one
            self.close()
            raise AgentUnreachable(path, error) from error
        except CommandRefused:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection. A later call opens a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> "SyncController":
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def place(self, guests: Iterable[Guest], command_id: str | None = None) -> None:
        """Put guests on the node, or change those already there.

        One command, unless the guests' properties are too much for one frame: then several.
        """
        for command in placements(guests, command_id):
            self._ask(command)

    def withdraw(
        self, names: Iterable[str], command_id: str | None = None
    ) -> dict[str, tuple[int, int]]:
        """Take guests off the node; those that are not there are passed over.

        Gives the incarnation and the edits that each had at last, for the node that adopts it.
        """
        command = Withdraw(command_id=new_id(command_id), names=tuple(names))
        return done(self._ask(command)).left

    def adopt(
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
            self._ask(command)

    def schedule(
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
            self._ask(
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

    def start(self, event_id: str, command_id: str | None = None) -> Event:
        """Start a scheduled event at once."""
        return event_of(self._ask(Start(command_id=new_id(command_id), event_id=event_id)))

    def complete(self, event_id: str, command_id: str | None = None) -> Event:
        """End a started event."""
        return event_of(self._ask(Complete(command_id=new_id(command_id), event_id=event_id)))

    def cancel(self, event_id: str, command_id: str | None = None) -> Event:
        """Take back a scheduled event."""
        return event_of(self._ask(Cancel(command_id=new_id(command_id), event_id=event_id)))

    def approve(self, event_id: str, command_id: str | None = None) -> Event:
        """Start a scheduled event on a guest's behalf; one that has started stays so."""
        return event_of(self._ask(Approve(command_id=new_id(command_id), event_id=event_id)))

    def advance(self, seconds: float, command_id: str | None = None) -> float:
        """Move the metadata plane's clock forward; gives its time now, epoch seconds."""
        return done(self._ask(Advance(command_id=new_id(command_id), seconds=seconds))).now

    def now(self) -> Clock:
        """Give the metadata plane's time, and how far it is ahead of the machine's."""
        return clock_of(self._ask(Now()))

    def events(self, *, history: bool = False) -> tuple[Event, ...]:
        """Give the events not ended, with `history` also those that have."""
        return events_of(self._ask(ListEvents(history=history)))

    def guests(self) -> tuple[Placed, ...]:
        """Give the guests on the node with their incarnations."""
        return guests_of(self._ask(ListGuests()))

    def _open(self, deadline: float) -> None:
        self._conversation = Conversation()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_left(deadline))
        self._socket.connect(str(self.path))
        (welcome,) = check(self._exchange(self._conversation.greeting(), deadline))
        assert isinstance(welcome, Welcome)
        self.node = welcome.node

    def _exchange(self, frame: bytes, deadline: float) -> list[Answer | Welcome]:
        assert self._socket is not None
        self._socket.settimeout(_left(deadline))
        self._socket.sendall(frame)
        while True:
            self._socket.settimeout(_left(deadline))
            answers = self._conversation.feed(self._socket.recv(CHUNK))
            if answers is not None:
                return answers

    def _ask(self, request: Command | Query) -> list[Answer | Welcome]:
        frame = encode(request)
        deadline = time.monotonic() + self.timeout
        problem: OSError = TimeoutError("no answer in time")
        while True:
            try:
                if self._socket is None:
                    self._open(deadline)
                return check(self._exchange(frame, deadline))
            except TimeoutError as error:
                self.close()
                raise AgentUnreachable(self.path, problem) from error
            except OSError as error:
                problem = error
                self.close()
                time.sleep(min(RETRY_DELAY, max(deadline - time.monotonic(), 0.0)))
            except BaseException as error:
                if not isinstance(error, CommandRefused):
                    self.close()
                raise


def _left(deadline: float) -> float:
    """Seconds until the deadline; raises TimeoutError when it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
