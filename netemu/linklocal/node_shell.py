"""Runs a node's oracle: its packet sockets, its timer, and its bindings. In the lab's supervisor.

One socket is on the bridge, and receives what the guard let pass, with the port's mark; two hear
every port before the guard. None has a thread of its own, and nothing polls.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Self

from netemu.interfaces import Mark
from netemu.kernel import packet, sockets
from netemu.kernel.bindings import Binding, Bindings
from netemu.kernel.link_monitor import LinkMonitor
from netemu.kernel.namespaces import inside
from netemu.linklocal import addresses, arp, bpf
from netemu.linklocal.claimant import Claimant, State
from netemu.linklocal.deadline import Deadline
from netemu.linklocal.oracle import Announce, Bind, Oracle, Refuse, Unbind
from netemu.linklocal.oracle import Effects as OracleEffects
from netemu.linklocal.timing import Timing

log = logging.getLogger(__name__)

# Frames read from a socket before the loop turns to others, so that a flood delays no other guest.
# A node's socket, which its guests share, is emptied each time; the guard limits each guest's rate.
_AT_A_TIME, _OF_A_NODE = 32, 512
# A guest may send at any rate what is heard before the guard: so many frames at one look, and after
# a look that found so many a pause, seconds. The port that sent most of them, if it sent more than
# its share, is not heard there for a minute; not more than so many ports at a time.
_BEFORE_THE_GUARD, _PAUSE, _SHARE = 64, 0.02, 8
_UNHEARD_FOR, _MOST_UNHEARD = 60.0, 32
# Seconds until links whose changes were missed are dumped again. A dump of a thousand takes some
# 5 ms; a flood of changes must not cause one after another.
_LOOK_AGAIN: Final = 0.1


class NodeShell:
    """Carries out what a node's oracle decides, in the node's network namespace `net`.

    `open` makes its sockets there, and has the running loop read them.

    `ports` maps marks to port names, `macs` to the MACs of the guests there, and `links` the index
    of each port's link to its mark;
    `carrier(mark, up)` is called when a guest's wire comes up or goes down, `changed` when
    bindings have changed. `resets`: reset the connections of an address that is given up.
    """

    def __init__(
        self,
        net: int,
        oracle: Oracle,
        name: str,
        *,
        timing: Timing,
        ports: Mapping[Mark, str],
        macs: Mapping[Mark, bytes],
        links: Mapping[int, Mark],
        carrier: Callable[[Mark, bool], None],
        changed: Callable[[], None],
        resets: bool = True,
    ) -> None:
        self.oracle = oracle
        self._net = net
        self._resets = resets
        self._name = name
        self._timing = timing
        self._ports = dict(ports)
        self._macs = dict(macs)
        self._unheard: dict[int, str] = {}  # ports by the index of their link
        self._links = dict(links)
        self._carrier = carrier
        self._changed = changed
        self._has_carrier: dict[Mark, bool] = {}
        self._resetting: Counter[str] = Counter()  # addresses whose connections are being reset
        self._delayed: list[Binding] = []  # until their address is reset
        self._loop = asyncio.get_running_loop()
        self._deadline = Deadline(self._expired)
        self._look: asyncio.TimerHandle | None = None

    def open(self, bridge_index: int) -> Self:
        """Open the sockets, and begin. Returns itself."""
        with inside(self._net):
            self._socket = packet.on_bridge(bpf.probes())
            self._rivals = packet.on_every_port(bpf.claims_of(self.oracle.own))
            self._speech = packet.on_every_port(bpf.speaks(self.oracle.own))
            self._bindings = Bindings.open(bridge_index)
            self._monitor = LinkMonitor.open()
        self._loop.add_reader(self._socket, self._readable)
        self._loop.add_reader(self._rivals, self._contested)
        self._loop.add_reader(self._speech, self._spoken)
        self._loop.add_reader(self._monitor, self._links_changed)
        self._monitor.ask_all()
        self._look_again_if_owed()
        return self

    @property
    def packet_sockets(self) -> list[int]:
        """Return the descriptors of the sockets on the node's interfaces."""
        return [self._socket.fileno(), self._rivals.fileno(), self._speech.fileno()]

    def close(self) -> None:
        """Stop; the kernel keeps the bindings."""
        self._deadline.set(None)
        if self._look is not None:
            self._look.cancel()
        for source in (self._socket, self._rivals, self._speech, self._monitor):
            self._loop.remove_reader(source)
            source.close()
        self._bindings.close()

    def _readable(self) -> None:
        now = self._loop.time()
        effects: OracleEffects = ()
        for _ in range(_OF_A_NODE):
            try:
                frame, mark = packet.receive_marked(self._socket)
            except BlockingIOError:
                break
            except OSError as error:
                log.warning("%s: %s", self._name, error)
                break
            heard = arp.parse(frame)
            if heard is not None and mark in self._ports:
                effects += self.oracle.heard(mark, heard, now)
        self._carry_out(effects)

    def _contested(self) -> None:
        """Answer a claim of the responder's address, which the guard has dropped.

        There is one answer in DEFEND_INTERVAL. Until then the socket is not read, so that a flood
        only fills its queue. What the node says itself comes in again at a relay's end of an
        impaired wire, which is not a port.
        """
        ports = self._ports.values()
        for _ in range(_AT_A_TIME):
            try:
                _, (port, *_) = self._rivals.recvfrom(64)
            except OSError:
                return
            if port in ports:
                break
        else:
            return
        effects = self.oracle.conflict_on_own(self._loop.time())
        if effects:
            log.info("%s: defends its own address", self._name)
            self._carry_out(effects)
        self._loop.remove_reader(self._rivals)
        self._loop.call_later(self._timing.defend_interval, self._listen_again)

    def _listen_again(self) -> None:
        if self._rivals.fileno() < 0:
            return
        try:
            while self._rivals.recv(64):
                pass
        except OSError:
            pass
        self._loop.add_reader(self._rivals, self._contested)

    def _spoken(self) -> None:
        """Hear ARP before the guard: of a claim whose probes were all lost nothing else is heard.

        This is bounded (see above), for whatever a guest sends.
        """
        marks = {port: mark for mark, port in self._ports.items()}
        now = self._loop.time()
        effects: OracleEffects = ()
        heard: Counter[str] = Counter()
        for _ in range(_BEFORE_THE_GUARD):
            try:
                frame, (port, *_) = self._speech.recvfrom(64)
            except BlockingIOError:
                break
            except OSError as error:
                log.debug("%s: %s", self._name, error)
                break
            heard[port] += 1
            said, mark = arp.parse(frame), marks.get(port)
            if said is None or mark is None:
                continue
            if said.ether_source == said.sender_mac == self._macs[mark]:
                effects += self.oracle.spoke(mark, said, now)
        else:
            self._slow_down(heard)
        self._carry_out(effects)

    def _slow_down(self, heard: Counter[str]) -> None:
        ((port, count),) = heard.most_common(1)
        if count > _SHARE and len(self._unheard) < _MOST_UNHEARD:
            with inside(self._net), suppress(OSError):  # a link that is gone says no more
                self._hear_without({**self._unheard, socket.if_nametoindex(port): port})
                log.warning("%s: %s floods with ARP: unheard for a minute", self._name, port)
                self._loop.call_later(_UNHEARD_FOR, self._hear_again, port)
        self._loop.remove_reader(self._speech)
        self._loop.call_later(_PAUSE, self._go_on_hearing)

    def _go_on_hearing(self) -> None:
        if self._speech.fileno() >= 0:
            self._loop.add_reader(self._speech, self._spoken)

    def _hear_again(self, port: str) -> None:
        if self._speech.fileno() >= 0:
            rest = {index: other for index, other in self._unheard.items() if other != port}
            self._hear_without(rest)

    def _hear_without(self, unheard: dict[int, str]) -> None:
        self._unheard = unheard
        packet.attach(self._speech, bpf.speaks(self.oracle.own, tuple(unheard)))

    def lease(self, mark: Mark, mac: bytes, *, grant: bool) -> int | None:
        """The address of a port, for DHCP: see `Oracle.lease`. The guard knows it then."""
        address, effects = self.oracle.lease(mark, mac, grant=grant)
        self._carry_out(effects)
        return address

    def lost(self, mark: Mark) -> None:
        """The guest's end of this port's wire was set down; ask whether it is up again."""
        self._note(mark, up=False)
        self._ask(link for link, other in self._links.items() if other == mark)

    def plug(self, mark: Mark, port: str, mac: bytes, link: int) -> None:
        """Add a port, or note that another guest's namespace is behind it."""
        self._ports[mark], self._macs[mark] = port, mac
        self._links[link] = mark
        self._ask((link,))

    def unplug(self, mark: Mark) -> None:
        """Remove a port and release its address."""
        self._note(mark, up=False)
        self._has_carrier.pop(mark, None)
        self._ports.pop(mark, None)
        self._macs.pop(mark, None)
        self._links = {link: other for link, other in self._links.items() if other != mark}

    def _links_changed(self) -> None:
        told = ((self._links.get(index), up) for index, up in self._monitor.changes())
        self._note_all([(mark, up) for mark, up in told if mark is not None])
        self._look_again_if_owed()

    def _ask(self, links: Iterable[int]) -> None:
        for link in links:
            self._monitor.ask(link)
        self._look_again_if_owed()

    def _look_again_if_owed(self) -> None:
        if self._monitor.owed and self._look is None:
            self._look = self._loop.call_later(_LOOK_AGAIN, self._look_again)

    def _look_again(self) -> None:
        self._look = None
        self._monitor.ask_all()
        self._look_again_if_owed()

    def _note(self, mark: Mark, *, up: bool) -> None:
        self._note_all([(mark, up)])

    def _note_all(self, told: Iterable[tuple[Mark, bool]]) -> None:
        """Note carriers. Release all lost addresses at once: changing the guard takes ms."""
        changed = []
        effects: OracleEffects = ()
        for mark, up in told:
            if self._has_carrier.get(mark, False) is not up:
                self._has_carrier[mark] = up
                changed.append((mark, up))
                if not up:
                    effects += self.oracle.port_down(mark, self._loop.time())
        if effects:
            self._carry_out(effects)
        for mark, up in changed:
            self._carrier(mark, up)

    def _expired(self) -> None:
        self._carry_out(self.oracle.expire(self._loop.time()))

    def _carry_out(self, effects: OracleEffects) -> None:
        gone = [self._binding(effect) for effect in effects if isinstance(effect, Unbind)]
        new = [self._binding(effect) for effect in effects if isinstance(effect, Bind)]
        if gone:
            known = [one for one in gone if one not in self._delayed]
            self._delayed = [one for one in self._delayed if one not in gone]
            self._bindings.remove(known)
            if self._resets:
                self._reset([one.address for one in known])
        if new:
            self._delayed += [one for one in new if one.address in self._resetting]
            self._bindings.add([one for one in new if one.address not in self._resetting])
        for effect in effects:
            if isinstance(effect, Refuse | Announce):
                try:
                    self._socket.send(self.oracle.frame(effect))
                except OSError as error:
                    log.debug("%s: a frame is lost: %s", self._name, error)
        self._deadline.set(self.oracle.deadline)
        if gone or new:
            self._changed()

    def _reset(self, addresses: Sequence[str]) -> None:
        """Reset the connections with these addresses, not in the loop; new bindings wait for it.

        RFC 3927 section 5: the next holder of an address must not inherit its connections. The
        kernel looks through the sockets of all namespaces, which may take long.
        """

        def reset() -> None:
            with inside(self._net):
                sockets.reset_connections_with(addresses)

        self._resetting.update(addresses)
        done = self._loop.run_in_executor(None, reset)
        done.add_done_callback(lambda done: self._was_reset(addresses, done.exception()))

    def _was_reset(self, addresses: Sequence[str], error: BaseException | None) -> None:
        if error is not None:
            log.warning("%s: connections of %s stay: %s", self._name, ", ".join(addresses), error)
        self._resetting.subtract(addresses)
        self._resetting = +self._resetting
        ready = [one for one in self._delayed if one.address not in self._resetting]
        if ready:
            self._delayed = [one for one in self._delayed if one not in ready]
            self._bindings.add(ready)

    def _binding(self, effect: Bind | Unbind) -> Binding:
        return Binding(
            self._ports[effect.port], effect.mac.hex(":"), addresses.to_text(effect.address)
        )


def is_bound(claimant: Claimant, oracle: Oracle, mark: Mark) -> bool:
    """Whether guest and node agree that this port holds the claimant's address."""
    held = oracle.by_port.get(mark)
    return (
        claimant.address is not None
        and claimant.state in (State.ANNOUNCING, State.BOUND)
        and held is not None
        and held.address == claimant.address
    )
