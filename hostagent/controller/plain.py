"""The controller without asyncio: every call blocks. Runs in the caller's process."""

import socket
import time
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


class SyncController:
    """Commands one node's agent; every call blocks until its answer or its timeout."""

    def __init__(
        self,
        path: Path | str,
        timeout: float = TIMEOUT,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        """Connect to the agent's command socket; raises AgentUnreachable, CommandRefused.

        `new_id` makes the ids of commands and events; each must be unique (default: random).
        """
        self.path = Path(path)
        self.timeout = timeout
        self.node = ""
        self._new_id = random_id if new_id is None else new_id
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
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def place(self, guests: Iterable[Guest], command_id: str | None = None) -> int:
        """Put guests on the node, or change those already there.

        One command, unless the guests' properties are too much for one frame: then several. Returns
        the sequence number of the change; see `responders`.
        """
        sequence = 0
        for command in placements(guests, self._id(command_id)):
            sequence = done(self._ask(command)).sequence
        return sequence

    def withdraw(
        self, names: Iterable[str], command_id: str | None = None
    ) -> dict[str, tuple[int, int]]:
        """Take guests off the node; unknown names are ignored.

        Returns the last incarnation and edits of each, for the node that adopts it.
        """
        command = Withdraw(command_id=self._id(command_id), names=tuple(names))
        return done(self._ask(command)).left

    def adopt(
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
            sequence = done(self._ask(command)).sequence
        return sequence

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
        sets, whose members on this node see it. `notice_only`: announce it, and do nothing to the
        guests.
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
                    self._id(event_id),
                    self._id(command_id),
                    elsewhere,
                    sets_elsewhere,
                    notice_only,
                )
            )
        )

    def start(self, event_id: str, command_id: str | None = None) -> Event:
        """Start a scheduled event at once."""
        return self._move(Start, event_id, command_id)

    def complete(self, event_id: str, command_id: str | None = None) -> Event:
        """End a started event."""
        return self._move(Complete, event_id, command_id)

    def cancel(self, event_id: str, command_id: str | None = None) -> Event:
        """Cancel a scheduled event."""
        return self._move(Cancel, event_id, command_id)

    def approve(self, event_id: str, command_id: str | None = None) -> Event:
        """Start a scheduled event on a guest's behalf; one that has started stays so."""
        return self._move(Approve, event_id, command_id)

    def advance(self, seconds: float, command_id: str | None = None) -> float:
        """Move the metadata plane's clock forward; returns its time then, epoch seconds."""
        command = Advance(command_id=self._id(command_id), seconds=seconds)
        return done(self._ask(command)).now

    def advance_to(self, clock_offset: float, command_id: str | None = None) -> float:
        """Set the clock `clock_offset` seconds ahead of the machine's, unless it is ahead by more.

        Returns its time then. Unlike `advance`, it may be repeated, and sent to many nodes.
        """
        command = Advance(command_id=self._id(command_id), to=clock_offset)
        return done(self._ask(command)).now

    def now(self) -> Clock:
        """Return the metadata plane's time, and how far it is ahead of the machine's."""
        return clock_of(self._ask(Now()))

    def events(self, *, history: bool = False) -> tuple[Event, ...]:
        """Return the events that have not ended, with `history` also those that have."""
        return events_of(self._ask(ListEvents(history=history)))

    def guests(self) -> tuple[Placed, ...]:
        """Return the guests on the node with their incarnations."""
        return guests_of(self._ask(ListGuests()))

    def responders(self) -> Responders:
        """Return the last sequence number of the agent and of each connected responder process.

        A guest that boots on a node where it was before may get old answers until every responder
        of the node has applied the sequence that `adopt` or `place` returned.
        """
        return responders_of(self._ask(ListResponders()))

    def _id(self, given: str | None) -> str:
        return self._new_id() if given is None else given

    def _move(self, kind: type[Transition], event_id: str, command_id: str | None) -> Event:
        command = kind(command_id=self._id(command_id), event_id=event_id)
        return event_of(self._ask(command))

    def _open(self, deadline: float) -> None:
        self._conversation = Conversation()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_left(deadline))
        self._socket.connect(str(self.path))
        (welcome,) = check(self._exchange(GREETING, deadline))
        assert isinstance(welcome, Welcome)
        self.node = welcome.node

    def _exchange(self, question: Question, deadline: float) -> list[Answer | Welcome]:
        assert self._socket is not None
        self._socket.settimeout(_left(deadline))
        self._socket.sendall(self._conversation.ask(question))
        while True:
            self._socket.settimeout(_left(deadline))
            answers = self._conversation.feed(self._socket.recv(CHUNK))
            if answers is not None:
                return answers

    def _ask(self, request: Command | Query) -> list[Answer | Welcome]:
        deadline = time.monotonic() + self.timeout
        problem: OSError = TimeoutError("no answer in time")
        while True:
            try:
                if self._socket is None:
                    self._open(deadline)
                return check(self._exchange(request, deadline))
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
    """Return the seconds until the deadline; raises TimeoutError when it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
