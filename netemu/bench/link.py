"""Simulates a link in virtual time: thousands of claimants, latency and loss. Pure.

It is an event heap. A frame reaches only the hosts that listen for its address, as with each
guest's socket filter.
"""

from collections import defaultdict
from heapq import heappop, heappush
from math import inf
from random import Random

from netemu.linklocal import arp
from netemu.linklocal.arp import Arp
from netemu.linklocal.claimant import Cease, Claimant, Effects, Listen, Send, Use


class Link:
    """Hosts are numbered in the order of `attach`; `now` is virtual, in seconds.

    `bound_at` is when each host last began to use an address, `tries` how many candidates it has
    tried.
    """

    def __init__(self, *, latency: float, loss: float, chance: Random) -> None:
        """A frame takes `latency` seconds; each listener misses it with probability `loss`."""
        self.now = 0.0
        self.hosts: list[Claimant] = []
        self.tries: list[int] = []
        self.bound_at: list[float | None] = []
        self.frames = 0
        self._latency = latency
        self._loss = loss
        self._chance = chance
        self._listens: list[int | None] = []
        self._listeners: defaultdict[int, list[int]] = defaultdict(list)
        self._holders: defaultdict[int, list[int]] = defaultdict(list)
        self._armed: list[float | None] = []
        # (when, order, host, packet): a host's deadline, or the arrival of a packet from it
        self._queue: list[tuple[float, int, int, Arp | None]] = []
        self._order = 0

    def attach(self, host: Claimant) -> int:
        """Add a host and return its number; its link is down until `up`."""
        self.hosts.append(host)
        self.tries.append(0)
        self.bound_at.append(None)
        self._listens.append(None)
        self._armed.append(None)
        return len(self.hosts) - 1

    def up(self, number: int) -> None:
        """The host's link comes up now."""
        self._carry_out(number, self.hosts[number].link_up(self.now))

    def down(self, number: int) -> None:
        """The host leaves now; the frames that it sent still arrive."""
        self._carry_out(number, self.hosts[number].link_down(self.now))

    def holders(self, address: int) -> int:
        """Return how many hosts use this address."""
        return len(self._holders.get(address, ()))

    def listeners(self, address: int) -> int:
        """Return how many hosts listen for this address."""
        return len(self._listeners.get(address, ()))

    def held_twice(self) -> int:
        """Return how many addresses are used by more than one host."""
        return sum(len(hosts) > 1 for hosts in self._holders.values())

    def step(self, until: float = inf) -> bool:
        """Run the next event; returns False if there is none before `until`."""
        if not self._queue or self._queue[0][0] > until:
            return False
        self.now, _, number, packet = heappop(self._queue)
        if packet is None:
            if self._armed[number] == self.now:  # else the deadline was moved meanwhile
                self._armed[number] = None
                self._carry_out(number, self.hosts[number].expire(self.now))
        else:
            self._arrive(number, packet)
        return True

    def run(self, until: float = inf) -> None:
        """Run all events before `until`."""
        while self.step(until):
            pass
        if until < inf:
            self.now = max(self.now, until)

    def _arrive(self, sender: int, packet: Arp) -> None:
        concerned = self._listeners.get(packet.sender_ip, []) if packet.sender_ip else []
        if packet.target_ip != packet.sender_ip:
            concerned = concerned + self._listeners.get(packet.target_ip, [])
        for number in tuple(concerned):
            if number == sender or (self._loss and self._chance.random() < self._loss):
                continue
            self._carry_out(number, self.hosts[number].receive(packet, self.now))

    def _carry_out(self, number: int, effects: Effects) -> None:
        host = self.hosts[number]
        for effect in effects:
            match effect:
                case Send(frame):
                    self.frames += 1
                    packet = arp.parse(frame)
                    assert packet is not None
                    self._schedule(self.now + self._latency, number, packet)
                case Listen(address):
                    self._listen(number, address)
                case Use(address):
                    self._holders[address].append(number)
                    self.bound_at[number] = self.now
                case Cease(address):
                    _take_out(self._holders, address, number)
        if host.deadline is not None and host.deadline != self._armed[number]:
            self._schedule(host.deadline, number, None)
        self._armed[number] = host.deadline

    def _schedule(self, when: float, number: int, packet: Arp | None) -> None:
        self._order += 1
        heappush(self._queue, (when, self._order, number, packet))

    def _listen(self, number: int, address: int | None) -> None:
        before = self._listens[number]
        if before is not None:
            _take_out(self._listeners, before, number)
        self._listens[number] = address
        if address is not None:
            self.tries[number] += 1
            self._listeners[address].append(number)


def _take_out(index: dict[int, list[int]], address: int, number: int) -> None:
    numbers = index[address]
    numbers.remove(number)
    if not numbers:
        del index[address]
