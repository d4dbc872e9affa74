"""Measures the commands of a lab whose store is etcd: on one machine, beside three.

Runs in the user's process, with servers that run already. Machines are tasks of this process: the
store, the places and the membership are a lab's own; a node's agent is its repository.
"""

import asyncio
import re
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack, suppress
from itertools import cycle
from pathlib import Path
from statistics import quantiles
from typing import Any, Final, TypeVar
from uuid import uuid4

import msgspec

from hostagent.controller import calls
from hostagent.model import EventType, Guest
from hostagent.repository import Repository
from netemu.bench.report import Report
from netemu.bench.rounds import Sample, in_turn
from netemu.etcd import Client, Put
from netemu.etcd.http import Endpoint, context
from netemu.supervisor.control.membership import Membership, Part
from netemu.supervisor.control.places import Place, Places
from netemu.supervisor.control.repository_store import RepositoryStore
from netemu.supervisor.control.shared_store import SharedStore
from netemu.topology import Lab, parse
from netemu.wire.store_address import StoreAddress

ALONE, AT_ONCE = "one after another/s", "64 under way/s"
P50, P99 = "p50 ms", "p99 ms"
_NODES: Final = ("n1", "n2", "n3")
_UNDER_WAY: Final = 64
# Guests' places in one transaction, as `Places.claim` has them.
_PLACES_AT_ONCE: Final = 8
_MEMORY: Final = Path("/dev/shm")
_ON_A_NODE: Final = 1000
_JOINED_WITHIN: Final = 20.0

T = TypeVar("T")


class Job(msgspec.Struct):
    """How many commands of each kind, and how many guests' places are kept."""

    rounds: int
    warm_up: int
    alone: int
    at_once: int
    places: int


def run(job: Job, address: StoreAddress) -> Report:
    """Measure. Raises NotSo if the store does not answer."""
    memory = _MEMORY if _MEMORY.is_dir() else None  # as a lab's agents have it
    with tempfile.TemporaryDirectory(prefix="netemu-bench-", dir=memory) as directory:
        stage = _Stage(address, Path(directory), job)
        report = Report("machines-of-a-lab", {})
        contestants: dict[str, Callable[[], Sample]] = {
            "1 machine": lambda: _finished(stage.commanded(1)),
            "3 machines": lambda: _finished(stage.commanded(3)),
        }
        report.samples = in_turn(contestants, rounds=job.rounds, warm_up=job.warm_up)
        report.notes = _finished(stage.grown())
    return report


def _finished(work: Coroutine[Any, Any, T]) -> T:
    """Do it. A signal that ends the command ends it in order: the store keeps nothing of it."""

    async def until_told() -> T:
        doing = asyncio.ensure_future(work)
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, doing.cancel)
        return await doing

    try:
        return asyncio.run(until_told())
    except asyncio.CancelledError:
        sys.exit(128 + signal.SIGTERM)


class _Machine:
    """A machine of a lab, with some of its nodes."""

    def __init__(self, client: Client, lab: Lab, part: Part, agents: RepositoryStore) -> None:
        self.client, self.part = client, part
        self.membership = Membership(client, part)
        self.places = Places(lab, client, self.membership)
        self.agents = agents
        self.store = SharedStore(
            client, part, self.membership, self.places, self.agents, lambda _: None
        )
        self._duties: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        await self.membership.begin()
        stay = self.membership.stay(self.store.tell, lambda _: None, self.places.read)
        duties = [stay, self.store.run()]
        if self.part.elsewhere:
            duties.append(self.places.run(self.store.tell))
        self._duties = [asyncio.create_task(one) for one in duties]

    async def end(self) -> None:
        for one in self._duties:
            one.cancel()
        await asyncio.gather(*self._duties, return_exceptions=True)
        await self.membership.end()
        self.agents.close()


class _Stage:
    def __init__(self, address: StoreAddress, directory: Path, job: Job) -> None:
        self._address, self._directory, self._job = address, directory, job

    def _agents(self, nodes: Iterable[str]) -> RepositoryStore:
        kept = {one: Repository.open(self._directory / f"{one}-{uuid4()}.sqlite") for one in nodes}
        return RepositoryStore(kept, time.time)

    def _client(self) -> Client:
        address = self._address
        tls = context(address.ca, address.cert, address.key)
        return Client([Endpoint(*one) for one in address.servers], tls=tls)

    async def commanded(self, count: int) -> Sample:
        """Commands of all nodes, which are spread over so many machines, from one of them."""
        async with AsyncExitStack() as open_now:
            machines = await self._lab(count, open_now)
            store, turn = machines[0].store, cycle(_NODES)

            async def command() -> float:
                node = next(turn)
                begun = time.perf_counter()
                await store.append(node, calls.schedule([f"{node}-1"], EventType.FREEZE))
                return time.perf_counter() - begun

            begun = time.perf_counter()
            took = [1000 * await command() for _ in range(self._job.alone)]
            alone = self._job.alone / (time.perf_counter() - begun)
            left = iter(range(self._job.at_once))

            async def work() -> None:
                for _ in left:
                    await command()

            begun = time.perf_counter()
            await asyncio.gather(*(work() for _ in range(_UNDER_WAY)))
            at_once = self._job.at_once / (time.perf_counter() - begun)
        points = quantiles(took, n=100, method="inclusive")
        return {ALONE: alone, P50: points[49], P99: points[98], AT_ONCE: at_once}

    async def _lab(self, count: int, open_now: AsyncExitStack) -> list[_Machine]:
        """The machines of a new lab, each of which knows of the others."""
        text = "".join(f"  {one}: {{guests: [{one}-1]}}\n" for one in _NODES)
        lab = parse(f"nodes:\n{text}", source="bench")
        name, activity = f"bench-{uuid4()}", None
        machines: list[_Machine] = []
        for number in range(count):
            here = _NODES[number::count]
            client = await open_now.enter_async_context(self._client())
            elsewhere = [one for one in _NODES if one not in here]
            part = Part(name, f"m{number}", here, elsewhere, activity, b"")
            agents = self._agents(here)
            machines.append(_Machine(client, lab, part, agents))
            await machines[-1].begin()
            open_now.push_async_callback(machines[-1].end)
            activity = activity or machines[0].membership.key().rpartition("/")[2]
        async with asyncio.timeout(_JOINED_WITHIN):
            while any(map(machines[0].store.away, _NODES)):
                await asyncio.sleep(0.01)
        for one in _NODES:
            await machines[0].store.append(one, calls.place([Guest(name=f"{one}-1")]))
        return machines

    async def grown(self) -> list[str]:
        """What many guests' places cost the store, and who reads them."""
        count = self._job.places
        guests = [f"g{number}" for number in range(count)]
        nodes = enumerate(_parts(guests, _ON_A_NODE))
        entries = "".join(f"  n{number}: {{guests: {some}}}\n" for number, some in nodes)
        lab = parse(f"nodes:\n{entries}", source="bench")
        async with self._client() as client:
            membership = Membership(client, Part(f"bench-{uuid4()}", "m0", (), (), None, b""))
            await membership.begin()
            before = self._memory()
            begun = time.perf_counter()
            try:
                value = msgspec.json.encode(Place("m0", 1, "m1"))
                for some in _parts(guests, _PLACES_AT_ONCE):
                    puts = [Put(membership.key("places", guest), value) for guest in some]
                    await client.when([], puts)
                wrote = time.perf_counter() - begun
                places = Places(lab, client, membership)
                begun = time.perf_counter()
                await places.read()
                read = time.perf_counter() - begun
                after = self._memory()
            finally:
                await membership.end()
        told = f"{count:,} guests' places: kept in {wrote:.2f} s, read in {read:.2f} s"
        if before and after:
            memory = ", ".join(
                f"{one:.0f} → {two:.0f}" for one, two in zip(before, after, strict=False)
            )
            told += f"; memory of the store's servers: {memory} MB"
        return [told]

    def _memory(self) -> list[float]:
        """Of each server that says so, in MB."""
        found = []
        for host, port in self._address.servers:
            with suppress(OSError):
                shown = Endpoint(host, port)
                with urllib.request.urlopen(f"http://{shown}/metrics", timeout=5) as answer:
                    text = answer.read().decode()
                if told := re.search(r"^process_resident_memory_bytes (\S+)", text, re.MULTILINE):
                    found.append(float(told[1]) / 1e6)
        return found


def _parts(names: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(names), size):
        yield names[start : start + size]
