"""Watches a node: follows what its agent knows, and sends no commands."""

import time
from collections.abc import Callable
from pathlib import Path

from hostagent import subscription
from hostagent.channel.messages import Delta, Heartbeat, Message, MessageError, Snapshot
from hostagent.channel.replica import Replica


class Watch(Replica):
    """A node's guests and events (active and ended), kept up to date over its agent's feed socket.

    The knowledge stays while the agent is away. `connected`: the agent is there. `heard`: when its
    last message came (on `clock`; None: never), including the heartbeats every two seconds.
    """

    def __init__(
        self, changed: Callable[[], None], *, clock: Callable[[], float] | None = None
    ) -> None:
        """Know nothing until `follow` runs.

        `changed` is called at the first snapshot, at each change, and when the connection is lost.
        """
        super().__init__()
        self.connected = False
        self.heard: float | None = None
        self._changed = changed
        self._clock = time.monotonic if clock is None else clock

    async def follow(self, path: Path | str) -> None:
        """Follow the agent whose feed socket is at `path`, until cancelled, on any event loop.

        Connects again when needed.
        """
        try:
            await subscription.follow(Path(path), "watcher", self)
        finally:
            self.connected = False

    def welcomed(self, send: Callable[[bytes], None]) -> None:
        """Do nothing: a watcher sends nothing."""

    def received(self, message: Message) -> None:
        """Apply a message of the agent; raises Gap, MessageError."""
        if not isinstance(message, (Snapshot, Delta, Heartbeat)):
            raise MessageError(f"{type(message).__name__.lower()} is not a message for a watcher")
        changed = self.take(message)
        self.heard = self._clock()
        if isinstance(message, Snapshot) and not message.more:
            self.connected = True
        if changed:
            self._changed()

    def lost(self) -> None:
        """The connection is gone."""
        self.interrupted()
        if self.connected:
            self.connected = False
            self._changed()
