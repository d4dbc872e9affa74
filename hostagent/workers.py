"""Several processes that serve as one: they start alike and end together."""

import asyncio
import os
import socket
from collections.abc import Callable


class Workers:
    """This process and those that share its work; `number` is this process's own, from 0."""

    def __init__(self, number: int, links: list[socket.socket]) -> None:
        self.number = number
        self._links = links  # the first process has one to each other

    @classmethod
    def fork(cls, count: int) -> "Workers":
        """Become `count` processes. What they share must be open already, and no loop or thread may
        run.
        """
        links: list[socket.socket] = []
        for number in range(1, count):
            ours, theirs = socket.socketpair()
            if os.fork() == 0:
                for link in (*links, ours):
                    link.close()
                return cls(number, [theirs])
            theirs.close()
            links.append(ours)
        return cls(0, links)

    def watch(self, gone: Callable[[], None]) -> None:
        """Call `gone` on the running loop when the first process or, in the first, any other has
        ended: its end of the link is closed then, however it ended.
        """
        loop = asyncio.get_running_loop()

        def ended(link: socket.socket) -> None:
            loop.remove_reader(link)
            gone()

        for link in self._links:
            loop.add_reader(link, ended, link)

    def close(self) -> None:
        """In the first process: have the others end, and wait until they have."""
        for link in self._links:
            link.close()
        if self.number == 0:
            for _ in self._links:
                os.wait()
