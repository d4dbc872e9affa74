"""A simulated link: claimants, a wire with latency and loss, and, if there is one, a node.

With an oracle it is a node's bridge under responder-only: guests do not hear each other, the guard
drops whatever has a sender IP that is not bound to its port, and the node alone answers.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random

from netemu.linklocal import arp
from netemu.linklocal.claimant import Cease, Claimant, Effects, Listen, Send, Use
from netemu.linklocal.oracle import Announce, Bind, Oracle, Refuse, Unbind
from netemu.linklocal.oracle import Effects as OracleEffects


class Link:
    def __init__(
        self,
        *,
        oracle: Oracle | None = None,
        latency: float = 0.001,
        loss: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.oracle = oracle
        self.latency = latency
        self.loss = loss
        self.rng = Random(seed)
        self.now = 0.0
        self.claimants: list[Claimant] = []
        self.listening: dict[int, int | None] = {}
        self.using: dict[int, int] = {}
        self.duplicates: list[tuple[float, int]] = []  # when, and which address
        self.dropped_by_guard: list[tuple[float, int]] = []
        self.batches: list[int] = []
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    def add(self, claimant: Claimant) -> int:
        """Attach a claimant; its port is its index."""
        self.claimants.append(claimant)
        self.listening[len(self.claimants) - 1] = None
        return len(self.claimants) - 1

    def up(self, port: int) -> None:
        self._did(port, self.claimants[port].link_up(self.now))

    def at(self, time: float, what: Callable[[], None]) -> None:
        self._order += 1
        heappush(self._queue, (time, self._order, what))

    def run(self, until: float) -> None:
        while self._queue and self._queue[0][0] <= until:
            self.now, _, what = heappop(self._queue)
            what()
        self.now = until

    def say(self, port: int, frame: bytes) -> None:
        """Put a frame on the wire at this port."""
        if self.oracle is not None:
            if not self._is_lost():
                self.at(self.now + self.latency, lambda: self._node_hears(port, frame))
            return
        for other in range(len(self.claimants)):
            if other != port:
                self._deliver(other, frame)

    def _deliver(self, port: int, frame: bytes) -> None:
        if self._is_lost():
            return
        self.at(self.now + self.latency, lambda: self._guest_hears(port, frame))

    def _is_lost(self) -> bool:
        return bool(self.loss) and self.rng.random() < self.loss

    def _guest_hears(self, port: int, frame: bytes) -> None:
        packet = arp.parse(frame)
        assert packet is not None
        # What the socket's filter passes, so that `Listen` is shown to be enough.
        listening = self.listening[port]
        if listening is not None and listening in (packet.sender_ip, packet.target_ip):
            self._did(port, self.claimants[port].receive(packet, self.now))

    def _did(self, port: int, effects: Effects) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self.say(port, effect.frame)
            elif isinstance(effect, Listen):
                self.listening[port] = effect.address
            elif isinstance(effect, Use):
                if effect.address in self.using.values():
                    self.duplicates.append((self.now, effect.address))
                self.using[port] = effect.address
            elif isinstance(effect, Cease):
                assert self.using.pop(port) == effect.address
        claimant = self.claimants[port]
        if claimant.deadline is not None:
            self.at(claimant.deadline, lambda: self._did_expire(port))

    def _did_expire(self, port: int) -> None:
        # Deadlines that were put off are still in the queue: waking early is harmless.
        effects = self.claimants[port].expire(self.now)
        if effects:
            self._did(port, effects)

    def _node_hears(self, port: int, frame: bytes) -> None:
        packet = arp.parse(frame)
        assert packet is not None
        assert self.oracle is not None
        self._node_did(self.oracle.spoke(port, packet, self.now))
        if packet.sender_ip:
            binding = self.oracle.by_port.get(port)
            if binding is None or binding.address != packet.sender_ip:
                self.dropped_by_guard.append((self.now, port))
                return
        self._node_did(self.oracle.heard(port, packet, self.now))
        if packet.is_probe and packet.target_ip == self.oracle.own:  # the node's kernel
            self._deliver(port, arp.reply(self.oracle.own_mac, self.oracle.own, bytes(6), 0))

    def _node_did(self, effects: OracleEffects) -> None:
        assert self.oracle is not None
        for effect in effects:
            if isinstance(effect, Refuse):
                self._deliver(effect.port, self.oracle.frame(effect))
            else:
                assert isinstance(effect, Bind | Unbind | Announce)
        if self.oracle.deadline is not None:
            self.at(self.oracle.deadline, self._node_expires)

    def _node_expires(self) -> None:
        assert self.oracle is not None
        effects = self.oracle.expire(self.now)
        if effects:
            self.batches.append(len(effects))
            self._node_did(effects)
