"""A guest's first process: started with the guest's first command; when it ends, all of the guest
ends. Runs in the supervisor.

A guest that runs nothing needs none: the lab runs its claims.
"""

import asyncio
import logging
import os
import select
import signal
from collections.abc import Callable
from typing import Final

import msgspec

from netemu.errors import MachineCannot
from netemu.kernel.factory_client import PATIENCE, Factory, Program
from netemu.supervisor.guests.endings import Ending
from netemu.supervisor.guests.etc_hosts import Names

log = logging.getLogger(__name__)

_REPORT: Final = 65536


class GuestInit:
    """Whether a guest has a first process, and how its namespaces are entered.

    `names` gives the guest's host name and its /etc/hosts when the process starts.
    """

    def __init__(self, guest: str, factory: Factory) -> None:
        self.names: Callable[[], Names] = lambda: Names(guest, "")
        self._guest = guest
        self._factory = factory
        self._running: tuple[int, dict[str, int]] | None = None
        self._tracer: int | None = None
        self._frozen = False
        self._freezing: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[bytes] | None = None  # by themselves, or their grace is over

    async def boot(self, net: int, program: Program | None = None) -> None:
        """Start the first process, which starts `program`; `net` is the network namespace.

        Whatever ran in the guest is ended.
        """
        self.end()
        hostname, hosts, resolver, _ = self.names()
        self._running = await self._factory.boot(
            net, self._guest, hostname=hostname, hosts=hosts, resolver=resolver, program=program
        )
        # What was in its mounts is memory: it is given back with the last descriptor.
        asyncio.get_running_loop().add_reader(self._running[0], self.end)

    async def namespaces(self, net: int) -> dict[str, int]:
        """Descriptors of the guest's namespaces by kind; its first process is started if need be.

        The descriptors stay this object's.
        """
        if self._running is None or not _alive(self._running[0]):
            await self.boot(net)
        assert self._running is not None
        return self._running[1]

    async def freeze(self) -> None:
        """Freeze the guest's processes. Raises MachineCannot if that fails."""
        if self._running is None:
            return
        self._frozen = True
        _, namespaces = self._running
        self._tracer = await self._factory.freeze(namespaces["pid"])
        asyncio.get_running_loop().add_reader(self._tracer, self._tracer_ended)

    def thaw(self) -> None:
        """Let them go on."""
        self._frozen = False
        self._let_go(signal.SIGTERM)

    async def shut_down(self, grace: float) -> Ending | None:
        """Ask the guest's programs to end, and give them so many seconds: what they did.

        None if there was nobody to ask, or `end` came before. Raises MachineCannot.
        """
        if self._running is None or self._frozen or not _alive(self._running[0]):
            return None
        hear, tell = os.pipe()
        loop = asyncio.get_running_loop()
        try:
            await self._ask_to_end(grace, tell)
            self._ended = loop.create_future()
            loop.add_reader(hear, self._report, hear)
            async with asyncio.timeout(grace + PATIENCE):
                said = await self._ended
        except TimeoutError:
            return None
        finally:
            loop.remove_reader(hear)
            os.close(hear)
            self._ended = None
        return msgspec.json.decode(said, type=Ending) if said else None

    async def _ask_to_end(self, grace: float, tell: int) -> None:
        assert self._running is not None
        first, namespaces = self._running
        # Copies: `end` may close what it has while the question waits for its turn.
        copies = [os.dup(namespaces["pid"]), os.dup(first), tell]
        try:
            await self._factory.end(copies[0], copies[1], grace, tell)
        finally:
            for descriptor in copies:
                os.close(descriptor)

    def _report(self, hear: int) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(os.read(hear, _REPORT))

    def end(self) -> None:
        """End the guest's processes at once: when the first one ends, the kernel ends all."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(b"")
        if self._running is not None:
            pidfd, namespaces = self._running
            self._running = None
            asyncio.get_running_loop().remove_reader(pidfd)
            _send(pidfd, signal.SIGKILL)
            for descriptor in (pidfd, *namespaces.values()):
                os.close(descriptor)
        self._frozen = False
        self._let_go(signal.SIGKILL)

    def _tracer_ended(self) -> None:
        self._let_go(signal.SIGKILL)
        if self._frozen:
            self._freezing = asyncio.get_running_loop().create_task(self._again())

    async def _again(self) -> None:
        """Freeze a guest again whose tracer has ended, which lets its processes go on."""
        log.warning("%s: what held its processes has ended; they are held again", self._guest)
        try:
            await self.freeze()
        except MachineCannot as error:
            log.error("%s: its processes go on: %s", self._guest, error)
        else:
            if not self._frozen:  # it was thawed meanwhile
                self.thaw()

    def _let_go(self, number: signal.Signals) -> None:
        tracer, self._tracer = self._tracer, None
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
