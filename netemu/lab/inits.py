"""The guests' first processes: each is started with a guest's first command, and ends with it all.

A guest that runs nothing needs none: its claims are the lab's to run.
"""

import os
import select
import signal

from netemu.kernel.factory import Factory


class Inits:
    """Which guests have a first process, and how their namespaces are entered."""

    def __init__(self, factory: Factory) -> None:
        self._factory = factory
        self._running: dict[str, tuple[int, dict[str, int]]] = {}

    def namespaces(self, guest: str, net: int) -> dict[str, int]:
        """Descriptors of the guest's namespaces by kind; its first process is started if need be.

        `net` is the guest's network namespace. The descriptors stay this object's.
        """
        if guest in self._running:
            pidfd, namespaces = self._running[guest]
            if _alive(pidfd):
                return namespaces
            self.end(guest)
        self._running[guest] = self._factory.boot(net, guest)
        return self._running[guest][1]

    def end(self, guest: str) -> None:
        """End the guest's processes: with the first one the kernel ends all."""
        if guest in self._running:
            pidfd, namespaces = self._running.pop(guest)
            if _alive(pidfd):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            for descriptor in (pidfd, *namespaces.values()):
                os.close(descriptor)


def _alive(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return not poll.poll(0)
