"""The guests' first processes: each is started with a guest's first command, and ends with it all.

A guest that runs nothing needs none: its claims are the lab's to run.
"""

import asyncio
import logging
import os
import select
import signal
from collections.abc import Callable

from netemu.errors import MachineCannot
from netemu.kernel.factory_client import Factory, Program

log = logging.getLogger(__name__)


class GuestInits:
    """Which guests have a first process, and how their namespaces are entered.

    `hosts` gives what is to stand in the /etc/hosts of a guest that boots.
    """

    def __init__(self, factory: Factory, hosts: Callable[[str], str]) -> None:
        self._factory = factory
        self._hosts = hosts
        self._running: dict[str, tuple[int, dict[str, int]]] = {}
        self._tracers: dict[str, int] = {}
        self._frozen: set[str] = set()
        self._freezing: set[asyncio.Task[None]] = set()

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

    async def freeze(self, guest: str) -> None:
        """Hold the guest's processes where they are. Raises MachineCannot if that cannot be."""
        if guest not in self._running:
            return
        self._frozen.add(guest)
        _, namespaces = self._running[guest]
        tracer = self._tracers[guest] = await self._factory.freeze(namespaces["pid"])
        asyncio.get_running_loop().add_reader(tracer, self._tracer_ended, guest)

    def thaw(self, guest: str) -> None:
        """Have them go on."""
        self._frozen.discard(guest)
        self._let_go(guest, signal.SIGTERM)

    def end(self, guest: str) -> None:
        """End the guest's processes: with the first one the kernel ends all."""
        if guest in self._running:
            pidfd, namespaces = self._running.pop(guest)
            _send(pidfd, signal.SIGKILL)
            for descriptor in (pidfd, *namespaces.values()):
                os.close(descriptor)
        self._frozen.discard(guest)
        self._let_go(guest, signal.SIGKILL)

    def _tracer_ended(self, guest: str) -> None:
        self._let_go(guest, signal.SIGKILL)
        if guest in self._frozen:
            task = asyncio.get_running_loop().create_task(self._again(guest))
            self._freezing.add(task)
            task.add_done_callback(self._freezing.discard)

    async def _again(self, guest: str) -> None:
        """Freeze a guest again whose tracer has ended, so that its processes go on."""
        log.warning("%s: what held its processes has ended; they are held again", guest)
        try:
            await self.freeze(guest)
        except MachineCannot as error:
            log.error("%s: its processes go on: %s", guest, error)
        else:
            if guest not in self._frozen:  # it was thawed meanwhile
                self.thaw(guest)

    def _let_go(self, guest: str, number: signal.Signals) -> None:
        tracer = self._tracers.pop(guest, None)
        if tracer is not None:
            asyncio.get_running_loop().remove_reader(tracer)
            _send(tracer, number)
            os.close(tracer)


def _send(pidfd: int, number: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass


def _alive(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return not poll.poll(0)
