"""The monitor of links never loses sight of one: not when dumps collide, break, or fall short."""

import errno
import os
import struct
from collections import deque

import pytest

from netemu.kernel import link_monitor
from netemu.kernel.link_monitor import LinkMonitor

UP = 0x10041
BRIDGE = 7


class Kernel:
    """Stands in for the netlink socket: one dump at a time, two links a datagram."""

    def __init__(self, links: dict[int, bool]) -> None:
        self.links = links
        self.queue: deque[bytes | int] = deque()
        self.dumps = 0  # started
        self.interrupt = False
        self.out_of_memory = False
        self._rest: list[int] | None = None  # what is still to be told by the dump that runs

    def send(self, data: bytes) -> None:
        if self.out_of_memory:
            raise OSError(errno.ENOBUFS, "no memory")
        _, kind, flags, number, _ = struct.unpack_from("=IHHII", data)
        (index,) = struct.unpack_from("=i", data, 20)
        assert kind == 18
        if flags & 0x300 != 0x300:
            self.queue.append(
                self._link(index, number=index) if index in self.links else error(19, index)
            )
        elif self._rest is not None:
            self.queue.append(error(errno.EBUSY, number))
        else:
            self.dumps += 1
            self._rest = sorted(self.links)

    def recv(self, _: int) -> bytes:
        if self.queue:
            one = self.queue.popleft()
            if isinstance(one, int):
                raise OSError(one, os.strerror(one))
            return one
        if self._rest is None:
            raise BlockingIOError
        told, self._rest = self._rest[:2], self._rest[2:]
        if told:
            flags = 0x10 if self.interrupt else 0
            self.interrupt = False
            return b"".join(self._link(index, flags=flags) for index in told)
        self._rest = None
        return struct.pack("=IHHIIi", 20, 3, 2, 0, 0, 0)

    def change(self, index: int, *, up: bool, heard: bool = True) -> None:
        self.links[index] = up
        if heard:
            self.queue.append(self._link(index))

    def _link(self, index: int, *, flags: int = 0, number: int = 0) -> bytes:
        state = UP if self.links[index] else 0
        return struct.pack("=IHHIIBxHiII", 32, 16, flags, number, 0, 0, 0, index, state, 0)


def error(code: int, number: int) -> bytes:
    return struct.pack("=IHHIIi16x", 36, 2, 0, number, 0, -code)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel(dict.fromkeys(range(100, 107), True))


@pytest.fixture
def monitor(kernel: Kernel) -> LinkMonitor:
    return LinkMonitor(kernel)  # type: ignore[arg-type] # it has what is used of a socket


def seen(monitor: LinkMonitor) -> dict[int, bool]:
    """What is told until nothing is owed any more."""
    told = dict(monitor.changes())
    for _ in range(10):
        if not monitor.owed:
            return told
        monitor.ask_all()
        told |= dict(monitor.changes())
    pytest.fail("it is still owed")


def test_every_link_is_told(kernel: Kernel, monitor: LinkMonitor) -> None:
    kernel.links[103] = False
    monitor.ask_all()
    assert seen(monitor) == kernel.links


def test_one_link_is_asked_for_while_a_dump_runs(kernel: Kernel, monitor: LinkMonitor) -> None:
    """A guest is wired to a node whose links are just being told: it is not missed."""
    monitor.ask_all()
    for index in range(200, 260):
        kernel.links[index] = True
        monitor.ask(index)
    assert dict.fromkeys(range(200, 260), True).items() <= seen(monitor).items()
    assert kernel.dumps == 1


def test_a_second_dump_follows_the_one_that_runs(kernel: Kernel, monitor: LinkMonitor) -> None:
    monitor.ask_all()
    kernel.recv(0)  # the first links are told already …
    kernel.change(100, up=False, heard=False)  # … when one of them changes
    monitor.ask_all()
    assert not monitor.owed  # not while the first runs: the kernel would refuse it
    assert seen(monitor)[100] is False
    assert kernel.dumps == 2


def test_a_dump_that_somebody_else_runs_is_waited_for(kernel: Kernel, monitor: LinkMonitor) -> None:
    kernel._rest = [100]  # the monitor knows nothing of it
    monitor.ask_all()
    assert seen(monitor) == kernel.links


def test_an_interrupted_dump_is_done_again(kernel: Kernel, monitor: LinkMonitor) -> None:
    kernel.interrupt = True
    monitor.ask_all()
    assert seen(monitor) == kernel.links
    assert kernel.dumps == 2


def test_lost_notifications_are_made_up_for(kernel: Kernel, monitor: LinkMonitor) -> None:
    kernel.change(104, up=False, heard=False)
    kernel.queue.append(errno.ENOBUFS)
    assert seen(monitor)[104] is False


def test_notifications_lost_during_a_dump_are_made_up_for(
    kernel: Kernel, monitor: LinkMonitor
) -> None:
    monitor.ask_all()
    kernel.recv(0)
    kernel.change(100, up=False, heard=False)
    kernel.queue.append(errno.ENOBUFS)
    assert seen(monitor)[100] is False


def test_without_memory_a_question_is_owed(kernel: Kernel, monitor: LinkMonitor) -> None:
    kernel.out_of_memory = True
    monitor.ask(105)
    assert monitor.owed
    monitor.ask_all()
    assert monitor.owed  # and raises nothing
    kernel.out_of_memory = False
    assert seen(monitor) == kernel.links


def test_a_refused_dump_is_owed(kernel: Kernel, monitor: LinkMonitor) -> None:
    monitor.ask_all()
    kernel._rest = None
    kernel.queue.append(error(errno.ENOMEM, 0))
    assert monitor.changes() == []
    assert monitor.owed
    assert seen(monitor) == kernel.links


def test_a_link_that_is_gone_has_no_carrier(monitor: LinkMonitor) -> None:
    monitor.ask(999)
    assert monitor.changes() == [(999, False)]
    assert not monitor.owed


def test_a_bridge_speaks_of_its_ports_not_of_links(kernel: Kernel, monitor: LinkMonitor) -> None:
    message = bytearray(kernel._link(100))
    message[16] = BRIDGE
    kernel.queue.append(bytes(message))
    assert monitor.changes() == []


def test_a_flood_leaves_the_loop_its_turn(kernel: Kernel, monitor: LinkMonitor) -> None:
    for _ in range(1000):
        kernel.change(100, up=True)
    assert len(monitor.changes()) == link_monitor._AT_A_TIME
    assert len(kernel.queue) == 1000 - link_monitor._AT_A_TIME
