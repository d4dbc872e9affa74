"""The seam at a port: what the lab asks of whatever hangs on it, of every kind of machine.

Runs in the supervisor. A node's bridge, ports and guard are the same for every kind; they are in
`netemu.supervisor.nodes`, which knows machines by this protocol alone.
"""

import socket
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

from msgspec import Struct

from netemu.kernel.factory_client import Program
from netemu.linklocal.guest_shell import GuestShell
from netemu.supervisor.guests.endings import Ending
from netemu.supervisor.guests.etc_hosts import Names


class Capability(StrEnum):
    """What only some kinds of machine can do."""

    ENTER = "enter"  # a client can run commands and make sockets in its namespaces
    DIAL = "dial"  # the lab can connect from it
    CONSOLE = "console"  # it is a MachineWithConsole


class Port(Struct, frozen=True):
    """A node's end of a wire, and what the machine's end is to be.

    `bridge` is the index of the bridge that the port is on. An end without `addresses` claims one.
    With `ipv6` it also has the link-local address that its MAC gives.
    """

    name: str
    index: int
    bridge: int
    mac: str
    interface: str
    addresses: Sequence[str] = ()
    ipv6: bool = False


class Command(NamedTuple):
    """A command to run in a machine: its words, its standard input, and its limit in seconds."""

    words: Sequence[str]
    given: bytes
    timeout: float


class Done(NamedTuple):
    """How a command ended, as a shell counts it, and what it printed.

    `code` is None if it was killed at its time limit.
    """

    code: int | None
    out: bytes
    err: bytes


class Machine(Protocol):
    """One guest's machine, over all its boots and moves.

    What cannot be done raises MachineCannot or OSError, and may be asked for again.
    """

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The capabilities that it has."""

    async def renew(self) -> None:
        """Take away what is left of the boot before, wires included. `attach` and `boot` follow."""

    def attach(self, node: int, port: Port) -> None:
        """Make a wire: the port, down, in the namespace `node`; and the machine's end, up.

        It waits for the kernel.
        """

    def claim(self, start: Callable[[int], GuestShell]) -> GuestShell | None:
        """Have a claimant started in the network namespace of the machine's end.

        None where the machine's own system claims: what its node has bound is its address.
        """

    async def boot(self, program: Program | None, names: Callable[[], Names]) -> None:
        """Start it, and `program` in it. `names` returns its names when they are needed.

        A machine with a console gets a program without a command, for its output.
        """

    async def freeze(self) -> None:
        """Hold its processes where they are."""

    def thaw(self) -> None:
        """Let its processes go on."""

    async def shut_down(self, grace: float) -> Ending | None:
        """Ask its programs to end, and wait for it so many seconds: what they did, if it is known.

        `cut` follows, or comes meanwhile.
        """

    def cut(self) -> None:
        """Cut its power: end all that runs in it, frozen or not."""

    def remove(self) -> None:
        """Give back what it holds: it boots no more."""

    async def enter(self) -> Mapping[str, int]:
        """Descriptors of its namespaces by kind, which stay the machine's: ENTER.

        `exec`, `shell`, `capture`, attackers and a client's sockets all get in by these.
        """

    async def dial(self, host: str, port: int) -> socket.socket:
        """Connect from the machine, without blocking: DIAL. Raises OSError."""

    def hung_up(self, host: str) -> None:
        """No more is dialled there: leave no trace of it in what guests share of the kernel."""


@runtime_checkable
class MachineWithConsole(Machine, Protocol):
    """A machine with a kernel of its own: CONSOLE. What its console says is the guest's log."""

    def listen(self, told: Callable[[str, bool], None]) -> None:
        """Call `told` with what the machine does by itself, and whether it is off then."""

    async def run(self, asked: Command) -> Done:
        """Run a command in it. Raises NotSo."""

    @property
    def last_words(self) -> str:
        """The last line on its console; "" if there is none."""

    def console(self) -> socket.socket:
        """Its console, which the caller closes. Raises NotSo."""
