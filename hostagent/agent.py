"""The host agent: takes commands, stores them, publishes them, and lets them run out.

Two listening sockets: `command` for controllers, and `feed` for responders and watchers, who may
subscribe. A responder may also pass on that a guest approves of an event which it can see; nothing
else is commanded there. What to do is decided elsewhere (`commands`, `model`); here are the
sockets, the timers, and the order: stored, then published, then acknowledged.

Commands that arrive in one pass of the loop, on whatever connections, share one commit.
"""

import asyncio
import logging
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, Literal, TypeAlias, cast

from hostagent.channel.frames import Decoder, FrameError
from hostagent.channel.messages import (
    HEARTBEAT_INTERVAL,
    VERSION,
    Adopt,
    Advance,
    Answer,
    Approve,
    Cancel,
    Command,
    Complete,
    Delta,
    Failed,
    Heartbeat,
    Hello,
    ListEvents,
    ListGuests,
    Message,
    MessageError,
    Now,
    Place,
    Query,
    Role,
    Schedule,
    Start,
    Welcome,
    Withdraw,
    decode,
    encode,
    snapshot,
)
from hostagent.commands import execute, look_up
from hostagent.model import MAX_GUESTS
from hostagent.rates import Rate
from hostagent.repository import Repository

log = logging.getLogger(__name__)

HELLO_TIMEOUT: Final = 5.0
"""Seconds for a new connection to say who it is."""

Door: TypeAlias = Literal["command", "feed"]

ROLES: Final[dict[Door, tuple[Role, ...]]] = {
    "command": ("controller",),
    "feed": ("responder", "watcher"),
}
"""Who may come in by which socket."""

MAX_CONNECTIONS: Final[dict[Door, int]] = {"command": 64, "feed": 96}
"""Each holds a descriptor and buffers. A node has a few controllers and watchers, and up to 64
processes of a responder."""

MAX_BUFFERED: Final = 4 << 20
"""Bytes that wait for a peer that does not read, beyond one snapshot or list, however large: some
frames of the longest kind. A peer further behind is dropped; a subscriber comes back for a new
snapshot."""

APPROVALS: Final = 10.0
APPROVALS_AT_ONCE: Final = 128
"""Approvals a second from one guest, and at once: each that is not refused here costs a commit. A
guest sees few events, and one POST may approve as many as MAX_APPROVALS of the dialect."""

_KEEP_FILE: Final[dict[str, Any]] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
"""A listening socket's file belongs to its maker. Since Python 3.13 a server looks the file up when
it starts and removes it when it ends, by a name that may mean another file here, or none."""

_REQUESTS: Final = (
    Place,
    Withdraw,
    Adopt,
    Schedule,
    Start,
    Complete,
    Cancel,
    Approve,
    Advance,
    Now,
    ListEvents,
    ListGuests,
)


class Agent:
    """One node's agent, on the running loop. `wall` gives real time, epoch seconds."""

    def __init__(
        self, node: str, repository: Repository, wall: Callable[[], float] = time.time
    ) -> None:
        """Serve `repository` under the name of `node`."""
        self.node = node
        self._repository = repository
        self._wall = wall
        self._connections: dict[Door, set[_Connection]] = {"command": set(), "feed": set()}
        self._batch: list[tuple[_Connection, Command | Query | Failed]] = []
        self._next_change: asyncio.TimerHandle | None = None
        self._approvals = Rate(APPROVALS, APPROVALS_AT_ONCE, MAX_GUESTS)

    async def serve(
        self,
        command: socket.socket,
        feed: socket.socket,
        stop: asyncio.Event,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """Serve on two listening unix sockets until `stop` is set; then close everything.

        `ready` is called once both are served.
        """
        loop = asyncio.get_running_loop()
        self._run([])  # what fell due while no agent ran
        doors: list[tuple[Door, socket.socket]] = [("command", command), ("feed", feed)]
        servers = [
            await loop.create_unix_server(partial(_Connection, self, door), sock=sock, **_KEEP_FILE)
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
            if self._batch:
                self._commit()  # what was received before the end is still answered
            if self._next_change is not None:
                self._next_change.cancel()
            for connection in [c for group in self._connections.values() for c in group]:
                connection.close()
            await asyncio.sleep(0)

    def admit(self, connection: "_Connection") -> bool:
        """Take a connection in, if there is room for it."""
        group = self._connections[connection.door]
        if len(group) >= MAX_CONNECTIONS[connection.door]:
            return False
        group.add(connection)
        return True

    def forget(self, connection: "_Connection") -> None:
        """The connection is gone."""
        self._connections[connection.door].discard(connection)

    def subscribe(self, connection: "_Connection") -> None:
        """Send a new subscriber all that is known. Deltas follow on from it: one thread, no gap."""
        repository = self._repository
        parts = snapshot(
            sequence=repository.sequence,
            node=self.node,
            clock_offset=repository.clock_offset,
            guests=repository.guests(),
            events=repository.events(),
        )
        size = connection.send_all(parts)
        log.info("feed: a %s has subscribed, snapshot of %d bytes", connection.role, size)

    def may_approve(self, guest: str) -> bool:
        """Whether the guest has not approved too often of late."""
        return self._approvals.allows(guest, asyncio.get_running_loop().time())

    def submit(self, connection: "_Connection", request: Command | Query | Failed) -> None:
        """Queue a request for the end of this pass of the loop; Failed: answer that, and close."""
        if not self._batch:
            asyncio.get_running_loop().call_soon(self._commit)
        self._batch.append((connection, request))

    def _commit(self) -> None:
        batch, self._batch = self._batch, []
        if batch:
            self._run(batch)

    def _run(self, batch: list[tuple["_Connection", Command | Query | Failed]]) -> None:
        """Do what has fallen due, then the batch, in one transaction; publish; answer."""
        wall = self._wall()
        repository = self._repository
        deltas: list[Delta] = []
        answers: list[tuple[_Connection, list[Answer]]] = []
        next_change: float | None = None
        try:
            with repository.transaction():
                deltas += repository.settle(wall + repository.clock_offset)
                for connection, request in batch:
                    if isinstance(request, (Now, ListEvents, ListGuests)):
                        answers.append((connection, look_up(repository, request, wall)))
                    elif isinstance(request, Failed):
                        answers.append((connection, [request]))
                    else:
                        done, changes = execute(repository, request, wall)
                        deltas += changes
                        answers.append((connection, [done]))
                        self._log(request, done)
            next_change = repository.next_change()
        except Exception:
            # Nothing is stored, so nothing is published or acknowledged. The next beat tries again.
            log.exception("repository: a transaction of %d requests failed", len(batch))
            deltas = []
            answers = [
                (connection, [Failed(code="repository", reason="the repository has failed")])
                for connection, _ in batch
            ]
        self._publish(deltas)
        for connection, answer in answers:
            connection.send_all(answer)
        for connection, request in batch:
            if isinstance(request, Failed):
                connection.close()
        if next_change is not None:
            self._arm(next_change - wall - repository.clock_offset)

    def _publish(self, deltas: list[Delta]) -> None:
        for delta in deltas:
            frame = encode(delta)
            for event in delta.events:
                log.info("event %s %s: %s", event.id, event.type, event.status)
            for connection in list(self._connections["feed"]):
                if connection.welcomed:
                    connection.write([frame])

    def _arm(self, delay: float) -> None:
        if self._next_change is not None:
            self._next_change.cancel()
        # No timer beyond the next beat, which looks anyway: this machine's clock may be set.
        if delay < HEARTBEAT_INTERVAL:
            loop = asyncio.get_running_loop()
            self._next_change = loop.call_later(max(delay, 0.0), self._run, [])

    def _beat(self) -> None:
        """Every HEARTBEAT_INTERVAL: tell the subscribers that we live, and look after the rest."""
        self._run([])
        frame = encode(Heartbeat(sequence=self._repository.sequence))
        for connection in list(self._connections["feed"]):
            if connection.welcomed:
                connection.write([frame])
        now = asyncio.get_running_loop().time()
        for group in self._connections.values():
            for connection in list(group):
                if not connection.welcomed and now - connection.since > HELLO_TIMEOUT:
                    connection.close()

    def _log(self, command: Command, answer: Answer) -> None:
        if isinstance(answer, Failed):
            log.info("%s refused: %s", type(command).__name__.lower(), answer.reason)
        elif not isinstance(command, Schedule):  # its event is logged where it is published
            log.info("%s done", type(command).__name__.lower())


class _Connection(asyncio.Protocol):
    """A peer, who may be whom the socket is for that it came in by."""

    def __init__(self, agent: Agent, door: Door) -> None:
        self._agent = agent
        self.door = door
        self.role: Role = ROLES[door][0]  # until it says which
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self._refused = False
        self.welcomed = False
        self._bound = MAX_BUFFERED
        self.since = asyncio.get_running_loop().time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self._agent.admit(self):
            log.warning("%s: too many connections", self.door)
            self.send(Failed(code="busy", reason=f"too many {self.door} connections"))
            self.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        self._agent.forget(self)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        try:
            for obj in self._decoder.feed(data):
                self._received(decode(obj))
                if self._refused:
                    return
        except FrameError as error:
            self._refuse("bad-frame", str(error))
        except MessageError as error:
            self._refuse("bad-message", str(error))

    def _received(self, message: Message) -> None:
        if not self.welcomed:
            if not isinstance(message, Hello):
                self._refuse("bad-message", "the first message must be hello")
            elif message.version != VERSION:
                self._refuse("version", f"version {message.version}; this agent speaks {VERSION}")
            elif message.role not in ROLES[self.door]:
                self._refuse("role", f"this socket is for a {' or a '.join(ROLES[self.door])}")
            else:
                self.role = message.role
                self.send(Welcome(version=VERSION, node=self._agent.node))
                if self.door == "feed":
                    self._agent.subscribe(self)
                self.welcomed = True
        elif self.role == "controller" and isinstance(message, _REQUESTS):
            self._agent.submit(self, message)
        elif (
            self.role == "responder" and isinstance(message, Approve) and message.guest is not None
        ):
            if self._agent.may_approve(message.guest):
                self._agent.submit(self, message)
            else:
                reason = f"guest {message.guest} approves too often"
                self.send(Failed(code="busy", reason=reason, command_id=message.command_id))
        else:
            kind = type(message).__name__.lower()
            self._refuse("bad-message", f"a {self.role} may not send {kind} here")

    def _refuse(self, code: str, reason: str) -> None:
        """Answer, after what was asked before, that this cannot be, and close."""
        log.warning("%s: refused: %s", self.role, reason)
        self._refused = True
        self._agent.submit(self, Failed(code=code, reason=reason))

    def send(self, message: Message) -> None:
        self.write([encode(message)])

    def send_all(self, messages: Iterable[Message]) -> int:
        """Send the parts of a whole, which as a whole may wait to be read; give its bytes."""
        frames = [encode(message) for message in messages]
        size = sum(map(len, frames))
        self.write(frames, MAX_BUFFERED + size)
        return size

    def write(self, frames: Sequence[bytes], bound: int = MAX_BUFFERED) -> None:
        """Send frames; drop a peer that is then further behind than `bound`, or an earlier one."""
        if self._transport is None or self._transport.is_closing():
            return
        still_behind = self._transport.get_write_buffer_size() > 0
        self._bound = max(bound, self._bound) if still_behind else bound
        self._transport.writelines(frames)
        waiting = self._transport.get_write_buffer_size()
        if waiting > self._bound:
            log.warning("%s: dropped, %d bytes behind", self.role, waiting)
            self._transport.abort()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
