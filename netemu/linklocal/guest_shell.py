"""Runs a guest's claimant: its packet socket, its timers, and its address. In the lab's supervisor.

The socket's filter accepts only ARP about the claimant's address. It has no thread of its own, and
nothing polls.
"""

import asyncio
import errno
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Self

from netemu.errors import NetemuError
from netemu.kernel import addressing, links, netlink, packet, sockets
from netemu.kernel.namespaces import inside, inside_that_of
from netemu.linklocal import addresses, arp, bpf
from netemu.linklocal.claimant import Cease, Claimant, Effects, Listen, Send, Use
from netemu.linklocal.deadline import Deadline
from netemu.linklocal.fair_timer import FairTimer

log = logging.getLogger(__name__)

# Frames read from a socket before the loop turns to others, so that a flood delays no other guest.
_AT_A_TIME: Final = 32
# Seconds between looks whether an interface with a carrier can send yet. Mostly it soon can.
# If the guest's root removed the interface, it never can, so the looks get rare.
_SOON, _LATER = 0.005, 1.0


class GuestShell:
    """Carries out what a guest's claimant decides, in the guest's network namespace `net`.

    `changed` is called when the claimant's state or address may have changed. `lost` is called as
    soon as the interface is set down. The node's end of the wire may miss an interface that is soon
    up again (the kernel reports carriers once a second), but its link was activated again
    (RFC 3927 section 2.2).
    """

    def __init__(
        self,
        net: int,
        claimant: Claimant,
        name: str,
        *,
        turns: FairTimer,
        changed: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self.claimant = claimant
        self._net = net
        self._name = name
        self._changed = changed
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._deadline = Deadline(partial(turns.take, self._due))
        self._activation: asyncio.TimerHandle | None = None
        self._paused = False
        self._off = False
        self._changes: deque[Callable[[], None]] = deque()
        self._changing = False

    def open(self) -> Self:
        """Open the socket on the guest's interface, and begin to read it. Returns itself."""
        with inside(self._net):
            self._socket = packet.on_guest(bpf.nothing())
        self._loop.add_reader(self._socket, self._readable)
        return self

    @property
    def packet_socket(self) -> int:
        """Return the descriptor of the socket on the guest's interface."""
        return self._socket.fileno()

    def link(self, *, up: bool) -> None:
        """The wire has gained or lost its carrier."""
        if self._activation is not None:
            self._activation.cancel()
            self._activation = None
        if up:
            self._activate(_SOON)
        else:
            self._carry_out(self.claimant.link_down(self._loop.time()))

    def _activate(self, patience: float) -> None:
        """Begin the claim (RFC 3927 section 2.2) as soon as the interface can send its probes."""
        if packet.can_send(self._socket):
            self._activation = None
            self._carry_out(self.claimant.link_up(self._loop.time()))
        else:
            self._activation = self._loop.call_later(
                patience, self._activate, min(2 * patience, _LATER)
            )

    def pause(self) -> None:
        """Read nothing and let no time pass: the guest is frozen."""
        self._paused = True
        self._loop.remove_reader(self._socket)
        self._arm()

    def resume(self) -> None:
        """Continue; what fell due meanwhile is due now."""
        self._paused = False
        self._loop.add_reader(self._socket, self._readable)
        self._arm()

    def shut_down(self) -> None:
        """The guest is off: send nothing more. Its address ends with its namespace."""
        self._off = True

    def close(self) -> None:
        """Stop; the guest keeps its address."""
        self._deadline.set(None)
        if self._activation is not None:
            self._activation.cancel()
        self._loop.remove_reader(self._socket)
        # Not in the loop: closing a packet socket waits for the kernel's readers, some 13 ms.
        self._change(self._socket.close)

    def _readable(self) -> None:
        for _ in range(_AT_A_TIME):
            try:
                frame = self._socket.recv(2048)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENETDOWN:
                    self._lost()
                return
            heard = arp.parse(frame)
            if heard is not None:
                self._carry_out(self.claimant.receive(heard, self._loop.time()))

    def _due(self) -> None:
        """Do what the timer was for; the claimant checks what has changed since."""
        if not self._paused:
            self._carry_out(self.claimant.expire(self._loop.time()))

    def _carry_out(self, effects: Effects) -> None:
        before = self.claimant.state
        for effect in effects:
            if self._off:
                continue
            match effect:
                case Send(frame):
                    self._send(frame)
                case Listen(address):
                    program = (
                        bpf.nothing()
                        if address is None
                        else bpf.concerns(self.claimant.mac, address)
                    )
                    packet.attach(self._socket, program)
                case Use(address):
                    self._change(partial(self._use, addresses.to_text(address)))
                case Cease(address):
                    self._change(partial(self._cease, addresses.to_text(address)))
        self._arm()
        if effects or before is not self.claimant.state:
            self._changed()

    def _arm(self) -> None:
        self._deadline.set(None if self._paused else self.claimant.deadline)

    def _send(self, frame: bytes) -> None:
        try:
            self._socket.send(frame)
        except OSError as error:  # the link has just gone down
            log.debug("%s: a frame is lost: %s", self._name, error)

    # Changes in the guest's kernel are made one after another and not in the loop: they take longer
    # the more sockets, addresses and routes the guest has.

    def _change(self, change: Callable[[], None]) -> None:
        self._changes.append(change)
        if not self._changing:
            self._next_change()

    def _next_change(self, error: BaseException | None = None) -> None:
        if error is not None:
            log.warning("%s: %s", self._name, error)
        self._changing = bool(self._changes)
        if self._changes:
            made = self._loop.run_in_executor(None, self._changes.popleft())
            made.add_done_callback(lambda made: self._next_change(made.exception()))

    def _use(self, address: str) -> None:
        if self._off:
            return
        try:
            with inside_that_of(self._socket), netlink.Netlink.open() as kernel:
                kernel.run(
                    (
                        addressing.address(
                            links.GUEST_INDEX,
                            address,
                            addresses.PREFIX_LENGTH,
                            addresses.BROADCAST_TEXT,
                        ),
                        addressing.direct_route(links.GUEST_INDEX),
                    )
                )
            log.info("%s: uses %s", self._name, address)
        except (NetemuError, OSError) as error:  # its root may have taken the interface away
            log.warning("%s: cannot use %s: %s", self._name, address, error)

    def _cease(self, address: str) -> None:
        if self._off:
            return
        try:
            with inside_that_of(self._socket), netlink.Netlink.open() as kernel:
                sockets.reset_connections(address)
                kernel.run(
                    (
                        addressing.no_address(
                            links.GUEST_INDEX,
                            address,
                            addresses.PREFIX_LENGTH,
                            addresses.BROADCAST_TEXT,
                        ),
                    )
                )
            log.info("%s: no longer uses %s", self._name, address)
        except (NetemuError, OSError) as error:
            log.warning("%s: cannot remove %s: %s", self._name, address, error)
