"""A peer of the agent: one connection to one of its sockets, and what it may send there.

Runs in the agent's event loop. It only checks requests and passes them to the agent.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Final, Literal, Protocol, TypeAlias, cast

from hostagent import credentials
from hostagent.channel.frames import Decoder, FrameError
from hostagent.channel.messages import (
    VERSION,
    Applied,
    Failed,
    Hello,
    Message,
    MessageError,
    Polls,
    Role,
    Used,
    Welcome,
    decode,
    encode,
)
from hostagent.channel.requests import Approve, Command, Query, Write
from hostagent.transactions import Request

log = logging.getLogger(__name__)

Door: TypeAlias = Literal["command", "feed"]

ROLES: Final[dict[Door, tuple[Role, ...]]] = {
    "command": ("controller",),
    "feed": ("responder", "watcher"),
}
"""The roles that each socket accepts."""

MAX_BUFFERED: Final = 4 << 20
"""Bytes that may wait for a slow peer, in addition to one snapshot or list: a few of the longest
frames. A peer further behind is dropped; a subscriber then connects again for a new snapshot."""


class Server(Protocol):
    """The agent that the peers are connected to."""

    node: str

    def admit(self, connection: "Peer") -> bool:
        """Take a connection in, if there is room for it."""

    def forget(self, connection: "Peer") -> None:
        """The connection is gone."""

    def subscribe(self, connection: "Peer") -> None:
        """Send all that is known, and from then on each delta."""

    def may_change(self, guest: str) -> bool:
        """Whether the guest is within its rate of approvals and writes."""

    def polled(self, connection: "Peer", polls: Polls) -> None:
        """A responder has said what a guest has asked."""

    def submit(self, connection: "Peer", request: Request) -> None:
        """Have a request done and answered."""


class Peer(asyncio.Protocol):
    """A peer, with one of the roles that its socket accepts.

    Nothing more is read from it while one of its requests waits for the repository.
    """

    def __init__(self, agent: Server, door: Door) -> None:
        self._agent = agent
        self.door = door
        self.role: Role = ROLES[door][0]  # until Hello says which
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self._refused = False
        self.welcomed = False
        self.subscribed = False  # it has its snapshot, and gets every delta
        self.applied = 0  # the last delta that a responder says it has applied
        self._bound = MAX_BUFFERED
        self.since = asyncio.get_running_loop().time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not credentials.may_connect(transport.get_extra_info("socket")):
            log.warning("%s: refused a connection of another user", self.door)
            self._transport.abort()
            return
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
        elif self.role == "controller" and isinstance(message, Command | Query):
            self._submit(message)
        elif self.role == "responder" and isinstance(message, Applied):
            self.applied = message.sequence
        elif self.role == "responder" and isinstance(message, Polls):
            self._agent.polled(self, message)
        elif self.role == "responder" and isinstance(message, Used):
            self._submit(message)
        elif (
            self.role == "responder"
            and isinstance(message, Approve | Write)
            and message.guest is not None
        ):
            if self._agent.may_change(message.guest):
                self._submit(message)
            else:
                reason = f"guest {message.guest} approves or writes too often"
                self.send(Failed(code="busy", reason=reason, command_id=message.command_id))
        else:
            kind = type(message).__name__.lower()
            self._refuse("bad-message", f"a {self.role} may not send {kind} here")

    def _refuse(self, code: str, reason: str) -> None:
        """Refuse the connection once earlier requests are answered, and close it."""
        log.warning("%s: refused: %s", self.role, reason)
        self._refused = True
        self._submit(Failed(code=code, reason=reason))

    def _submit(self, request: Request) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
        self._agent.submit(self, request)

    def resume(self) -> None:
        """Read on: all requests so far are answered."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def send(self, message: Message) -> None:
        self.write([encode(message)])

    def send_all(self, messages: Iterable[Message]) -> None:
        """Send the parts of one answer; all of it may wait to be read."""
        frames = [encode(message) for message in messages]
        self.write(frames, MAX_BUFFERED + sum(map(len, frames)))

    def write(self, frames: Sequence[bytes], bound: int = MAX_BUFFERED) -> None:
        """Send frames; drop a peer that is then further behind than `bound` or an earlier one."""
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
