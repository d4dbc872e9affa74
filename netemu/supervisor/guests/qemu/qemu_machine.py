"""A machine with a kernel of its own, emulated by QEMU behind a tap. Runs in the supervisor.

QEMU runs in namespaces of the guest's own, whose network has no link. What it has of the outside
are descriptors: the tap, and sockets without a name, whose other ends are here. A user who may not
open /dev/net/tun has a veth there, and a relay beside QEMU: see `netemu.kernel.emulator_wire`.
"""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final

from netemu.errors import MachineCannot, NetemuError, NotSo
from netemu.kernel import emulator_wire, links, netlink, tap
from netemu.kernel.factory_client import Factory, Program
from netemu.kernel.namespaces import inside
from netemu.linklocal.guest_shell import GuestShell
from netemu.supervisor.guests.endings import Ending
from netemu.supervisor.guests.etc_hosts import Names
from netemu.supervisor.guests.guest_init import GuestInit
from netemu.supervisor.guests.machine import Capability, Command, Done, Port
from netemu.supervisor.guests.qemu import command
from netemu.supervisor.guests.qemu.console import Console
from netemu.supervisor.guests.qemu.guest_agent import GuestAgent
from netemu.supervisor.guests.qemu.identity import dmi
from netemu.supervisor.guests.qemu.json_peer import JsonPeer
from netemu.topology import VirtualMachine

log = logging.getLogger(__name__)

# QEMU starts in a quarter of a second; beside others on a busy machine in some seconds.
_STARTING: Final = 30.0
# It answers within milliseconds, unless it hangs.
_ANSWERING: Final = 5.0
# Seconds until its power button is pressed again: a system that still boots does not hear it.
_PRESSED_AGAIN: Final = 10.0
# Linux resets a machine in several ways, one after another: it is one reboot.
_ONE_RESET: Final = 2.0
_THE_MACHINE: Final = "the machine"
_BY_ITSELF: Final = ("guest-reset", "guest-shutdown", "guest-panic")
_ENVIRONMENT: Final = {
    "HOME": "/",
    "TMPDIR": "/run",
    # One arena for all threads: each other one would map 64 MiB.
    "MALLOC_ARENA_MAX": "1",
}


class QemuMachine:
    """The machine of the guest `name`. `net` is a network namespace without a link, its own now."""

    capabilities: frozenset[Capability] = frozenset({Capability.CONSOLE})

    def __init__(self, name: str, machine: VirtualMachine, net: int, factory: Factory) -> None:
        self.name = name
        self._machine = machine
        self._net = net
        self._factory = factory
        self._init = GuestInit(name, factory)
        self._tap: int | None = None
        self._wire: socket.socket | None = None  # in the place of a tap
        self._mac = ""
        self._told: Callable[[str, bool], None] = lambda _words, _off: None
        self._monitor: JsonPeer | None = None
        self._agent: JsonPeer | None = None
        self._runner: GuestAgent | None = None
        self._console: Console | None = None
        self._off = asyncio.Event()  # the present boot is over
        self._ending = False  # it was asked to end, or is ended
        self._reset = -_ONE_RESET  # when it was reset last
        self._by_itself = ""  # how it ends, if it is the machine's own wish

    def listen(self, told: Callable[[str, bool], None]) -> None:
        """Have `told` called with what the machine does by itself, and whether it is off then."""
        self._told = told

    async def renew(self) -> None:
        """Have a new namespace, and no tap: nothing is left of the boot before."""
        self.cut()
        (net,) = await self._factory.guests(1)
        os.close(self._net)
        self._net = net
        # The kernel waits for all who read the tap's link.
        await asyncio.to_thread(self._close_wire)

    def _close_wire(self) -> None:
        if self._tap is not None:
            made, self._tap = self._tap, None
            os.close(made)
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def attach(self, node: int, port: Port) -> None:
        """Make a tap that is the port. Its other end is the emulator's."""
        self._mac = port.mac
        if not tap.allowed():
            wire = links.wire(port.name, port.index, port.bridge, self._net, port.mac, self.name)
            self._wire = emulator_wire.make(node, self._net, wire, port.name)
            return
        with inside(node), netlink.Netlink.open() as kernel:
            self._tap = tap.make(port.name, port.index)
            kernel.run((links.place(port.index, port.name, port.bridge),))

    def claim(self, start: Callable[[int], GuestShell]) -> GuestShell | None:
        """Its own system claims."""
        return None

    async def boot(self, program: Program | None, names: Callable[[], Names]) -> None:
        """Start the emulator. `program` says where its output goes. Raises MachineCannot."""
        self.cut()
        assert program is not None
        self._init.names = names
        self._off = asyncio.Event()
        self._ending, self._by_itself = False, ""
        disk = await asyncio.to_thread(self._disk)
        with ExitStack() as theirs:
            monitor, agent, console = (_pair(theirs) for _ in range(3))
            hear, tell = os.pipe()
            theirs.callback(os.close, tell)
            self._console = Console(console[0], hear, os.dup(program.output))
            self._monitor = JsonPeer(monitor[0], self._event, self._emulator_ended)
            self._agent = JsonPeer(agent[0])
            self._runner = GuestAgent(self._agent)
            wire, carried = self._hand_over(theirs)
            emulator = Program(
                command.words(
                    command.find(),
                    self.name,
                    self._mac,
                    self._machine,
                    disk,
                    dmi(self._machine, self.name, names().properties),
                    tap=not carried,
                ),
                "/",
                _ENVIRONMENT,
                tell,
                [wire, monitor[1].fileno(), console[1].fileno(), agent[1].fileno()],
                command.bytes_mapped(self._machine),
                self._machine.files,
                carried,
            )
            await self._init.boot(self._net, emulator)
        try:
            await self._monitor.ask("qmp_capabilities", _STARTING)
        except NotSo:
            why = self._console.last_line or f"no answer within {_STARTING:g} s"
            self.cut()
            if os.strerror(errno.EACCES) in why:
                why += ": in root's lab, the emulator reads what everybody may ('chmod o+r')"
            raise MachineCannot(f"{self.name}: its emulator does not start: {why}") from None

    def _hand_over(self, theirs: ExitStack) -> tuple[int, Sequence[int]]:
        """The emulator's end of its wire, and between what a relay is to carry frames, if any."""
        if self._wire is None:
            assert self._tap is not None
            return self._tap, ()
        emulators, relays = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        theirs.callback(emulators.close)
        theirs.callback(relays.close)
        return emulators.fileno(), (self._wire.fileno(), relays.fileno())

    def _disk(self) -> str:
        for path in self._machine.files:
            if not os.access(path, os.R_OK):
                raise MachineCannot(f"{self.name}: {path}: there is no such file to read")
        return command.disk_format(self._machine.image) if self._machine.image else "raw"

    def _event(self, told: Mapping[str, Any]) -> None:
        data = told.get("data")
        reason = data.get("reason") if isinstance(data, dict) else None
        match told.get("event"):
            case "RESET" if reason in _BY_ITSELF:
                now = asyncio.get_running_loop().time()
                if now >= self._reset + _ONE_RESET:
                    self._told("rebooted by itself", False)
                self._reset = now
            case "SHUTDOWN" if reason in _BY_ITSELF:
                self._by_itself = "turned itself off"

    def _emulator_ended(self) -> None:
        """The emulator has ended without being killed."""
        if not self._ending:
            last = self._console.last_line if self._console is not None else ""
            ended = f"its emulator has ended{f': {last}' if last else ''}"
            self._told(self._by_itself or ended, True)
        self._off.set()

    async def freeze(self) -> None:
        """Stop its processors. Raises MachineCannot."""
        if self._monitor is not None and not self._off.is_set():
            try:
                await self._monitor.ask("stop", _ANSWERING)
            except NetemuError as error:
                raise MachineCannot(f"{self.name}: {error}") from None

    def thaw(self) -> None:
        """Have them go on."""
        if self._monitor is not None and not self._off.is_set():
            self._thawing = asyncio.get_running_loop().create_task(self._thaw(self._monitor))

    async def _thaw(self, monitor: JsonPeer) -> None:
        try:
            await monitor.ask("cont", _ANSWERING)
        except NetemuError as error:
            if monitor is self._monitor:  # it was not cut meanwhile
                log.error("%s: it stays frozen: %s", self.name, error)

    async def shut_down(self, grace: float) -> Ending | None:
        """Press its power button, and wait until it is off."""
        monitor, off = self._monitor, self._off
        if monitor is None or off.is_set():
            return None
        loop = asyncio.get_running_loop()
        begun = loop.time()
        self._ending = True
        try:
            async with asyncio.timeout(grace):
                while not off.is_set():
                    # An emulator on a busy machine, or one that ends, may not answer in time.
                    with suppress(NotSo):
                        await monitor.ask("system_powerdown", _ANSWERING)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(off.wait(), _PRESSED_AGAIN)
        except TimeoutError:
            return Ending((), (_THE_MACHINE,), round(loop.time() - begun, 1))
        if monitor is not self._monitor:  # it was cut
            return None
        took = round(loop.time() - begun, 1)
        return Ending(((_THE_MACHINE, took),), (), took)

    def cut(self) -> None:
        """End the emulator."""
        self._ending = True
        monitor, agent, console = self._monitor, self._agent, self._console
        self._monitor = self._agent = self._runner = self._console = None
        self._init.end()
        for one in (monitor, agent, console):
            if one is not None:
                one.close()
        self._off.set()

    def remove(self) -> None:
        """Give its namespace and its tap back."""
        self.cut()
        os.close(self._net)
        self._close_wire()

    async def enter(self) -> Mapping[str, int]:
        """Nobody can: it has a kernel of its own."""
        raise NotSo(f"{self.name} has a kernel of its own: its namespaces are not this one's")

    async def dial(self, host: str, port: int) -> socket.socket:
        """Nobody can."""
        raise OSError(f"{self.name} has a kernel of its own")

    def hung_up(self, host: str) -> None:
        """Nothing was dialled."""

    async def run(self, asked: Command) -> Done:
        """Run a command by the guest agent. Raises NotSo."""
        if self._runner is None or self._off.is_set():
            raise NotSo(f"{self.name} is off: nothing can be run in it")
        try:
            return await self._runner.run(asked)
        except NotSo as error:
            raise NotSo(f"{self.name}: {error}") from None

    @property
    def last_words(self) -> str:
        """The last line on its console; "" if there is none."""
        return "" if self._console is None else self._console.last_words

    def console(self) -> socket.socket:
        """A socket that is its serial console. Raises NotSo."""
        if self._console is None:
            raise NotSo(f"{self.name} is off: it has no console")
        return self._console.attach()


def _pair(theirs: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Two ends of a socket, the first of them ours; the other is closed with `theirs`."""
    ours, other = socket.socketpair()
    theirs.callback(other.close)
    ours.setblocking(False)
    return ours, other
