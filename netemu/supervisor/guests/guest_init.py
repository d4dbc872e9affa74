"""The guests' first processes: each is started with a guest's first command, and ends with it all.

A guest that runs nothing needs none: its claims are the lab's to run.
"""

import os
import select
import signal
from collections.abc import Callable

from netemu.kernel.factory import FREEZE, THAW
from netemu.kernel.factory_client import Factory, Program


class GuestInits:
    """Which guests have a first process, and how their namespaces are entered.

    `hosts` gives what is to stand in the /etc/hosts of a guest that boots.
    """

    def __init__(self, factory: Factory, hosts: Callable[[str], str]) -> None:
        self._factory = factory
        self._hosts = hosts
        self._running: dict[str, tuple[int, dict[str, int]]] = {}

    async def boot(self, guest: str, net: int, program: Program | None = None) -> None:
        """Start the guest's first process, which starts `program`; `net` is its network namespace.

        Whatever ran in the guest is ended.
        """
        self.end(guest)
        hosts = self._hosts(guest)
        self._running[guest] = await self._factory.boot(net, guest, hosts=hosts, program=program)

    async def namespaces(self, guest: str, net: int) -> dict[str, int]:
        """Descriptors of the guest's namespaces by kind; its first process is started if need be.

        The descriptors stay this object's.
        """
        if guest not in self._running or not _alive(self._running[guest][0]):
            await self.boot(guest, net)
        return self._running[guest][1]

    def freeze(self, guest: str) -> None:
        """Stop the guest's processes where they are."""
        self._send(guest, FREEZE)

    def thaw(self, guest: str) -> None:
        """Have them go on."""
        self._send(guest, THAW)

    def end(self, guest: str) -> None:
        """End the guest's processes: with the first one the kernel ends all."""
        self._send(guest, signal.SIGKILL)
        if guest in self._running:
            pidfd, namespaces = self._running.pop(guest)
            for descriptor in (pidfd, *namespaces.values()):
                os.close(descriptor)

    def _send(self, guest: str, number: signal.Signals) -> None:
        if guest in self._running and _alive(pidfd := self._running[guest][0]):
            signal.pidfd_send_signal(pidfd, number)


def _alive(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return not poll.poll(0)
