"""The host agent: takes commands, stores and publishes them, and expires events.

It runs in a process of its own, one for each node. It has two listening sockets: `command` for
controllers, and `feed` for subscribers (responders and watchers). A responder may also send a
guest's approval of an event that the guest can see, and no other command. `commands` and `model`
decide what to do, `transactions` stores it, `peers` checks who may send what. This module has the
sockets, the timers, and the order: stored, then published, then acknowledged.

Commands that arrive while the repository is busy, on any connection, share the next commit.
"""

import asyncio
import contextlib
import logging
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from hostagent.channel.messages import (
    HEARTBEAT_INTERVAL,
    Answer,
    Delta,
    Done,
    Failed,
    Heartbeat,
    Polls,
    Responders,
    encode,
)
from hostagent.channel.requests import ListPolls, ListResponders, Schedule
from hostagent.model import MAX_GUESTS
from hostagent.peers import MAX_BUFFERED, Door, Peer
from hostagent.polls_asked import PollsAsked
from hostagent.rates import Rate
from hostagent.repository import Repository
from hostagent.transactions import Outcome, Request, Transactions

log = logging.getLogger(__name__)

HELLO_TIMEOUT: Final = 5.0
"""Seconds for a new connection to send Hello."""

MAX_CONNECTIONS: Final[dict[Door, int]] = {"command": 64, "feed": 96}
"""Each holds a descriptor and buffers. A node has a few controllers and watchers, and up to 64
processes of a responder."""

CHANGES: Final = 10.0
CHANGES_AT_ONCE: Final = 128
"""Approvals and writes a second from one guest, and in a burst: each one that passes costs a
commit. A guest sees few events, and one POST may approve up to the dialect's MAX_APPROVALS."""

_KEEP_FILE: Final[dict[str, Any]] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
"""The maker of a listening socket removes its file. Since Python 3.13 a server would remove it, by
a name that may be another file here, or none."""


class Agent:
    """One node's agent, on the running loop."""

    def __init__(
        self,
        node: str,
        repository: Repository,
        *,
        wall: Callable[[], float] | None = None,
        executor: Executor | None = None,
    ) -> None:
        """Serve `repository` under the name of `node`.

        `wall` returns the machine's time in epoch seconds (default: `time.time`). `executor` runs
        the repository's work, one call at a time (default: a thread).
        """
        self.node = node
        self._transactions = Transactions(repository, node, time.time if wall is None else wall)
        self._executor = executor
        self._connections: dict[Door, dict[Peer, None]] = {"command": {}, "feed": {}}
        self._batch: list[tuple[Peer, Request]] = []
        self._joining: list[Peer] = []  # they wait for a snapshot
        self._sequence = 0  # of the last delta published
        self._due = False
        self._ending = False
        self._working: asyncio.Task[None] | None = None
        self._next_change: asyncio.TimerHandle | None = None
        self._polls = PollsAsked()
        self._changes = Rate(CHANGES, CHANGES_AT_ONCE, MAX_GUESTS)

    async def serve(
        self,
        command: socket.socket,
        feed: socket.socket,
        stop: asyncio.Event,
        ready: Callable[[], None] = lambda: None,
        more: Sequence[socket.socket] = (),
    ) -> None:
        """Serve on two listening unix sockets until `stop` is set; then close everything.

        `more` are further command sockets. `ready` is called once all are served.
        """
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            if self._executor is None:
                self._executor = stack.enter_context(ThreadPoolExecutor(1, "repository"))
            await self._wake()  # what fell due while no agent ran
            doors: list[tuple[Door, socket.socket]] = [("command", command), ("feed", feed)]
            doors += [("command", one) for one in more]
            servers = [
                await loop.create_unix_server(partial(Peer, self, door), sock=sock, **_KEEP_FILE)
                for door, sock in doors
            ]
            ready()
            try:
                while not stop.is_set():
                    self._beat()
                    try:
                        await asyncio.wait_for(stop.wait(), HEARTBEAT_INTERVAL)
                    except TimeoutError:
                        pass
            finally:
                for server in servers:
                    server.close()
                self._ending = True
                if self._working is not None:  # answer what was received before the end
                    await self._working
                if self._next_change is not None:
                    self._next_change.cancel()
                for connection in [c for group in self._connections.values() for c in group]:
                    connection.close()
                await asyncio.sleep(0)

    def admit(self, connection: Peer) -> bool:
        """Accept a connection if there is room for it."""
        group = self._connections[connection.door]
        if len(group) >= MAX_CONNECTIONS[connection.door]:
            return False
        group[connection] = None
        return True

    def polled(self, connection: Peer, polls: Polls) -> None:
        """A responder has said what a guest has asked."""
        self._polls.answered(connection, polls)

    def forget(self, connection: Peer) -> None:
        """The connection is gone."""
        self._polls.gone(connection)
        self._connections[connection.door].pop(connection, None)

    def subscribe(self, connection: Peer) -> None:
        """Send a new subscriber a snapshot, and from then on each delta, without a gap."""
        self._joining.append(connection)
        self._wake()

    def may_change(self, guest: str) -> bool:
        """Whether the guest is within its rate of approvals and writes."""
        return self._changes.allows(guest, asyncio.get_running_loop().time())

    def submit(self, connection: Peer, request: Request) -> None:
        """Have a request carried out and answered, in one batch with those that wait."""
        if not self._ending:
            self._batch.append((connection, request))
            self._wake()

    # The repository works in a thread, one transaction after the other, so that a slow disk does
    # not stop the loop and its heartbeats.

    def _wake(self) -> "asyncio.Task[None]":
        """Have the repository do what waits and what has fallen due."""
        self._due = True
        if self._working is None:
            self._working = asyncio.get_running_loop().create_task(self._work())
        return self._working

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._due:
                self._due = False
                batch, self._batch = self._batch, []
                joining, self._joining = self._joining, []
                requests = [request for _, request in batch]
                outcome = await loop.run_in_executor(
                    self._executor, self._transactions.run, requests, bool(joining)
                )
                self._tell(outcome, batch, joining)
        finally:
            self._working = None

    # What is sent

    def _tell(
        self,
        outcome: Outcome,
        batch: Sequence[tuple[Peer, Request]],
        joining: Iterable[Peer],
    ) -> None:
        """Publish, then answer: subscribers get a change before its command is answered."""
        self._publish(outcome.deltas)
        self._sequence = outcome.sequence
        for connection in joining:
            self._join(connection, outcome.snapshot)
        for (connection, request), answers in zip(batch, outcome.answers, strict=True):
            if isinstance(request, ListPolls) and not answers:
                self._polls.ask(connection, request.guest, self._connections["feed"])
                continue
            if isinstance(request, ListResponders):
                connection.send(answers[0] if answers else self._responders())
            else:
                connection.send_all(answers)
            if isinstance(request, Failed):
                connection.close()
            else:
                connection.resume()
                _log(request, answers)
        self._arm(outcome.change_in)

    def _join(self, connection: Peer, frames: Sequence[bytes]) -> None:
        if not frames:  # the repository cannot be read: the subscriber will come back
            connection.close()
            return
        size = sum(map(len, frames))
        connection.write(frames, MAX_BUFFERED + size)
        connection.subscribed = True
        log.info("feed: a %s has subscribed, snapshot of %d bytes", connection.role, size)

    def _responders(self) -> Responders:
        feed = self._connections["feed"]
        applied = tuple(one.applied for one in feed if one.role == "responder" and one.subscribed)
        return Responders(sequence=self._sequence, applied=applied)

    def _publish(self, deltas: Iterable[Delta]) -> None:
        for delta in deltas:
            for event in delta.events:
                log.info("event %s %s: %s", event.id, event.type, event.status)
            self._to_subscribers(encode(delta))

    def _to_subscribers(self, frame: bytes) -> None:
        for connection in list(self._connections["feed"]):
            if connection.subscribed:
                connection.write([frame])

    def _arm(self, delay: float) -> None:
        if self._next_change is not None:
            self._next_change.cancel()
        # No timer beyond the next beat, which checks anyway: this machine's clock may be set.
        if delay < HEARTBEAT_INTERVAL:
            loop = asyncio.get_running_loop()
            self._next_change = loop.call_later(max(delay, 0.0), self._wake)

    def _beat(self) -> None:
        """Every HEARTBEAT_INTERVAL: send heartbeats, and drop connections that sent no Hello."""
        self._to_subscribers(encode(Heartbeat(sequence=self._sequence)))
        self._wake()
        now = asyncio.get_running_loop().time()
        for group in self._connections.values():
            for connection in list(group):
                if not connection.welcomed and now - connection.since > HELLO_TIMEOUT:
                    connection.close()


def _log(request: Request, answers: Sequence[Answer]) -> None:
    name = type(request).__name__.lower()
    for answer in answers:
        if isinstance(answer, Failed):
            log.info("%s refused: %s", name, answer.reason)
        elif isinstance(answer, Done) and not isinstance(request, Schedule):
            log.info("%s done", name)  # a new event is logged where it is published
