"""Asks the responders of a node what a guest has asked. Runs in the agent's event loop.

The agent keeps none of it. A responder that does not answer in time is left out.
"""

import asyncio
from collections.abc import Iterable
from itertools import count
from typing import Final

from hostagent.channel.messages import AskPolls, Poll, Polls
from hostagent.peers import Peer

TIMEOUT: Final = 2.0
"""Seconds for a responder to answer. It takes milliseconds, unless it hangs."""


class _Asked:
    def __init__(self, asker: Peer, timer: asyncio.TimerHandle) -> None:
        self.asker = asker
        self.timer = timer
        self.waiting: dict[Peer, None] = {}
        self.rows: list[Poll] = []


class PollsAsked:
    """The questions that are not answered yet, each of one controller's connection."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._asked: dict[int, _Asked] = {}

    def ask(self, asker: Peer, guest: str, feed: Iterable[Peer]) -> None:
        """Have `asker` answered once all responders have answered, or in TIMEOUT seconds."""
        number = next(self._numbers)
        timer = asyncio.get_running_loop().call_later(TIMEOUT, self._finish, number)
        asked = self._asked[number] = _Asked(asker, timer)
        for peer in feed:
            if peer.role == "responder" and peer.subscribed:
                asked.waiting[peer] = None
        for peer in list(asked.waiting):
            peer.send(AskPolls(number=number, guest=guest))
        if not asked.waiting:
            self._finish(number)

    def answered(self, peer: Peer, polls: Polls) -> None:
        """A responder has answered."""
        asked = self._asked.get(polls.number)
        if asked is not None and peer in asked.waiting:
            asked.rows += polls.polls
            self._without(peer, polls.number)

    def gone(self, peer: Peer) -> None:
        """The connection is gone: nothing is to come from it, or nobody to be answered."""
        for number, asked in list(self._asked.items()):
            if asked.asker is peer:
                asked.timer.cancel()
                del self._asked[number]
            elif peer in asked.waiting:
                self._without(peer, number)

    def _without(self, peer: Peer, number: int) -> None:
        waiting = self._asked[number].waiting
        del waiting[peer]
        if not waiting:
            self._finish(number)

    def _finish(self, number: int) -> None:
        asked = self._asked.pop(number)
        asked.timer.cancel()
        asked.asker.send(Polls(polls=tuple(sorted(asked.rows, key=lambda row: row.at))))
        asked.asker.resume()
