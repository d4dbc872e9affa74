"""AgentFeeds a node: what its agent knows, as it changes, without a say in it."""

import time
from collections.abc import Callable
from pathlib import Path

from hostagent import subscription
from hostagent.channel.messages import Delta, Heartbeat, Message, MessageError, Snapshot
from hostagent.channel.replica import Replica


class Watch(Replica):
    """A node's guests and events (active and ended), kept up to date over its agent's feed socket.

    What is known stands while the agent is away: `connected` says whether it is there, `heard` when
    it last said anything (on `clock`; None: never), heartbeats included, which come every two
    seconds.
    """

    def __init__(
        self,
        path: Path | str,
        changed: Callable[[], None],
        *,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Watch the agent whose feed socket is at `path`, once `follow` runs.

        `changed` is called when all is known, at each change, and when the connection is lost.
        """
        super().__init__()
        self.path = Path(path)
        self.connected = False
        self.heard: float | None = None
        self._changed = changed
        self._clock = time.monotonic if clock is None else clock

    async def follow(self) -> None:
        """Keep up until cancelled, on whatever loop; connects again whenever that is needed."""
        try:
            await subscription.follow(self.path, "watcher", self)
        finally:
            self.connected = False

    def welcomed(self, send: Callable[[bytes], None]) -> None:
        """There is nothing to send."""

    def received(self, message: Message) -> None:
        """Take in what the agent says; raises Gap, MessageError."""
        if not isinstance(message, (Snapshot, Delta, Heartbeat)):
            raise MessageError(f"{type(message).__name__.lower()} is no message for a watcher")
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
