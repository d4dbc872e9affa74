"""Keeps the relay of a lab's impaired wires: started when it is first needed, and again when it
ends or hangs. Runs in the supervisor.

What it is told goes by a socket pair that outlives a relay: the next one says hello, and is told
everything again (`again`). Until then impaired wires pass nothing.
"""

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from netemu.errors import NotSo
from netemu.impairment import relay_messages as messages
from netemu.kernel.descriptor_link import close_all, receive, send
from netemu.supervisor.nodes.node_services import STATE, is_root
from netemu.supervisor.nodes.services import Service

log = logging.getLogger(__name__)

# What it becomes when the lab is root's: see `AGENT_USER`.
RELAY_USER: Final = 61903
# One starts in a third of a second; on a machine that is overrun it takes some.
START_WITHIN: Final = 30.0
ANSWER_WITHIN: Final = 5.0
# Orders that wait because it is slow: more than the wires of the largest lab have in a moment.
_MOST_WAITING: Final = 20_000


class _Waiting(NamedTuple):
    order: messages.Order
    descriptors: list[int]  # closed once it is sent


class RelayService:
    """The relay as the supervisor sees it. `again` is called when another one has begun."""

    def __init__(self, again: Callable[[str], None]) -> None:
        self._again = again
        self._service: Service | None = None
        self._ending: list[Service] = []
        self._link: socket.socket | None = None
        self._theirs: socket.socket | None = None
        self._begun = asyncio.Event()
        self._orders: deque[_Waiting] = deque()
        self._laid: dict[str, asyncio.Future[None]] = {}
        self._questions: dict[int, asyncio.Queue[messages.Counted]] = {}
        self._number = 0

    @property
    def services(self) -> list[Service]:
        """Its processes: one, none, or one that is about to end as well."""
        self._ending = [one for one in self._ending if one.pid is not None]
        return [*self._ending, *([self._service] if self._service else [])]

    async def start(self) -> None:
        """Have it run. Raises NotSo if it does not begin."""
        if self._service is None:
            self._number += 1
            self._link, self._theirs = socket.socketpair(
                socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK
            )
            self._theirs.setblocking(True)
            asyncio.get_running_loop().add_reader(self._link, self._readable)
            self._service = Service(
                "relay",
                ["netemu.impairment.relay", *(["--user", str(RELAY_USER)] if is_root() else [])],
                sockets=[("link", self._theirs.fileno())],
                log_descriptor=2,
                notices=STATE / f"relay-{self._number}.notices",
            )
            self._service.start()
        try:
            async with asyncio.timeout(START_WITHIN):
                await self._begun.wait()
        except TimeoutError:
            raise NotSo(f"the relay does not start: {self.trouble}") from None

    @property
    def trouble(self) -> str:
        """Why it does not run, as far as it is known."""
        return (self._service.trouble if self._service else "") or "it says nothing"

    def stop(self) -> None:
        """End it: no wire is impaired any more."""
        if self._service is None or self._link is None or self._theirs is None:
            return
        self._service.stop()
        self._ending.append(self._service)
        asyncio.get_running_loop().remove_reader(self._link)
        asyncio.get_running_loop().remove_writer(self._link)
        self._link.close()
        self._theirs.close()
        self._service = self._link = self._theirs = None
        self._begun.clear()
        self._forget_orders()

    # What it is told.

    async def lay(self, wire: str, ends: tuple[socket.socket, socket.socket]) -> None:
        """Have it listen at both ends of a wire. The sockets are closed here. Raises NotSo."""
        laid = self._laid[wire] = asyncio.get_running_loop().create_future()
        try:
            self._tell(messages.Lay(wire), [one.detach() for one in ends])
            async with asyncio.timeout(ANSWER_WITHIN):
                await laid
        except TimeoutError:
            raise NotSo(f"{wire}: the relay does not answer: {self.trouble}") from None
        finally:
            self._laid.pop(wire, None)

    def begin(
        self, wire: str, seed: int, terms: messages.Both, traces: Mapping[str, bytes]
    ) -> None:
        """Have other terms for a wire, whose frames are counted from 0."""
        names, files = _files(terms, traces)
        self._tell(messages.Begin(wire, seed, terms, names), files)

    def change(self, wire: str, terms: messages.Both, traces: Mapping[str, bytes]) -> None:
        """Have other terms for a wire."""
        names, files = _files(terms, traces)
        self._tell(messages.Change(wire, terms, names), files)

    def flush(self, wire: str) -> None:
        """Throw away what waits."""
        self._tell(messages.Flush(wire))

    def take(self, wire: str) -> None:
        """Have it carry a wire no longer."""
        self._tell(messages.Take(wire))

    async def counts(self) -> messages.Counts:
        """What happened to the frames of each wire: to the guest, and from it; {} if it is slow."""
        return await self._ask(messages.Count) or {}

    async def heard(self) -> bool:
        """Whether it has carried out what it was told, within a few seconds."""
        return await self._ask(messages.Heard) is not None

    async def _ask(self, kind: type[messages.Count | messages.Heard]) -> messages.Counts | None:
        if self._service is None:
            return None
        self._number += 1
        number = self._number
        told: messages.Counts = {}
        answers = self._questions[number] = asyncio.Queue()
        try:
            self._tell(kind(number))
            async with asyncio.timeout(ANSWER_WITHIN):
                more = True
                while more:
                    answer = await answers.get()
                    told.update(answer.counts)
                    more = answer.more
        except TimeoutError:
            return None
        finally:
            del self._questions[number]
        return told

    def _tell(self, order: messages.Order, descriptors: Sequence[int] = ()) -> None:
        if self._link is None or len(self._orders) >= _MOST_WAITING:
            close_all(list(descriptors))
            return
        self._orders.append(_Waiting(order, list(descriptors)))
        self._send()

    def _send(self) -> None:
        link = self._link
        if link is None:
            return
        while self._orders:
            try:
                order, beside = self._orders[0]
                send(link, messages.written(order), beside)
            except BlockingIOError:
                asyncio.get_running_loop().add_writer(link, self._send)
                return
            except OSError as error:
                log.warning("the relay cannot be told: %s", error)
            close_all(self._orders.popleft().descriptors)
        asyncio.get_running_loop().remove_writer(link)

    def _forget_orders(self) -> None:
        while self._orders:
            close_all(self._orders.popleft().descriptors)

    # What it says.

    def _readable(self) -> None:
        assert self._link is not None
        try:
            said, descriptors, _ = receive(self._link)
        except BlockingIOError:
            return
        close_all(descriptors)
        match messages.read(said, messages.Said):
            case messages.Hello():
                self._hello()
            case messages.Laid(wire) if wire in self._laid:
                if not self._laid[wire].done():
                    self._laid[wire].set_result(None)
            case messages.Counted(number) as answer if number in self._questions:
                self._questions[number].put_nowait(answer)

    def _hello(self) -> None:
        """One has begun. What was to be told to the one before is told by `again`."""
        if self._begun.is_set():
            assert self._service is not None
            self._forget_orders()
            self._again(self._service.last_end or "ended")
        self._begun.set()


def _files(terms: messages.Both, traces: Mapping[str, bytes]) -> tuple[list[str], list[int]]:
    """The names of the traces of these terms, and a file of each."""
    names = sorted({one.trace for one in terms if one.trace})
    files: list[int] = []
    try:
        for name in names:
            files.append(os.memfd_create("trace", os.MFD_CLOEXEC))
            os.write(files[-1], traces[name])
    except BaseException:
        close_all(files)
        raise
    return names, files
