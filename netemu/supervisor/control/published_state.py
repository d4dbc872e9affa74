"""Keeps in the store what the agents of this machine's nodes know, and reads it back.

Runs in the supervisor of a lab on several machines. Other machines show it, and take guests
over with it; so does a supervisor that begins again on the same machine.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from hostagent.channel.requests import Placed
from hostagent.controller import Watch
from hostagent.model import Event, joined
from netemu.errors import NotSo
from netemu.etcd import Client, Put, Removal
from netemu.etcd.messages import Operation
from netemu.supervisor.control.membership import Membership
from netemu.supervisor.control.places import Places
from netemu.supervisor.control.remote_node import state_of
from netemu.supervisor.control.store import Store

log = logging.getLogger(__name__)

# Changes of a node's state come in bursts; other machines are told of a burst at once.
_BURST: Final = 0.1
_PAUSE: Final = 1.0
# What one transaction may change: etcd takes 128 operations by default.
_AT_ONCE: Final = 100
# A guest may have been told what its machine had no time to keep. Its documents' numbers continue
# far above those that are kept.
LEAP: Final = 1000
# How long an answer waits for the state that it has led to. An agent that tells nothing for as long
# has failed.
_WITHIN: Final = 5.0


class PublishedState:
    """The state of `nodes`, whose agents are asked through `local`."""

    def __init__(
        self,
        client: Client,
        membership: Membership,
        places: Places,
        local: Store,
        nodes: Iterable[str],
    ) -> None:
        self._client = client
        self._membership = membership
        self._places = places
        self._local = local
        self._sequences = dict.fromkeys(nodes, 0)  # the last one that the store has
        self._kept: dict[str, dict[str, bytes]] = {node: {} for node in self._sequences}
        self._turns = {node: asyncio.Lock() for node in self._sequences}
        self._more = asyncio.Event()

    async def publish(self, node: str) -> None:
        """Keep all that the node's agent tells, for as long as the lab is up."""
        news = asyncio.Event()
        watch = Watch(news.set)
        prefix = self._membership.key("state", node, "")
        async with asyncio.TaskGroup() as group:
            group.create_task(self._local.watch(node, watch))
            while True:
                await news.wait()
                news.clear()
                sequence = watch.sequence
                wanted = {prefix + name: value for name, value in state_of(watch).items()}
                try:
                    async with self._turns[node]:
                        await self._change(self._kept[node], wanted)
                        self._kept[node] = wanted
                except NotSo:  # tried again later: some of it may have been kept
                    news.set()
                    self._kept[node] = dict.fromkeys(self._kept[node] | wanted, b"")
                    await asyncio.sleep(_PAUSE)
                else:
                    self._sequences[node] = sequence
                    self._more.set()
                await asyncio.sleep(_BURST)

    async def _change(self, kept: dict[str, bytes], wanted: dict[str, bytes]) -> None:
        acts: list[Operation] = [
            Put(key, value) for key, value in wanted.items() if kept.get(key) != value
        ]
        acts += [Removal(key) for key in kept.keys() - wanted.keys()]
        acts += self._taken_over(key for key in wanted if not kept.get(key))
        in_term = self._membership.in_term(self._membership.term)
        for part in _batched(acts):
            if not await self._client.when([in_term], part):
                raise NotSo("this machine's place is being taken again")

    def _taken_over(self, keys: Iterable[str]) -> list[Operation]:
        """Remove what the last machine of guests that came here had kept of them."""
        gone: list[Operation] = []
        for guest in (key.rpartition("/guests/")[2] for key in keys if "/guests/" in key):
            if (place := self._places.brought().get(guest)) is not None:
                before = self._places.terms.get(place.before)
                nodes = () if before is None else before.nodes
                gone += [Removal(self._membership.key("state", n, "guests", guest)) for n in nodes]
        return gone

    async def sweep(self) -> None:
        """Drop what an earlier supervisor of this machine had kept, now that all of it is known.

        Raises NotSo.
        """
        in_term = self._membership.in_term(self._membership.term)
        for node, turn in self._turns.items():
            async with turn:  # what is being kept now is not dropped
                entries, _ = await self._client.under(self._membership.key("state", node, ""))
                kept = self._kept[node]
                left = [one.key for one in entries if one.key not in kept]
                if any(self._comes(key, node) for key in left):
                    continue  # the guest is still to be taken in, with its events
                gone = [Removal(key) for key in left]
                for part in _batched(gone):
                    await self._client.when([in_term], part)

    def _comes(self, key: str, node: str) -> bool:
        """Whether a key is of a guest that is to be on this machine."""
        kind, guest = key.split("/")[-2:]
        here = self._places.machine_of_node(node)
        return kind == "guests" and here is not None and self._places.machine_of(guest) == here

    async def has(self, sequences: Iterable[tuple[str, int]]) -> None:
        """Wait, for a bounded time, until the store has what nodes knew as of these sequences."""
        wanted = list(sequences)
        try:
            async with asyncio.timeout(_WITHIN):
                while any(self._sequences[node] < sequence for node, sequence in wanted):
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            late = ", ".join(sorted(dict(wanted)))
            log.warning("what %s has come to is not in the store in time", late)


class Left(NamedTuple):
    """What a machine's supervisor had kept: its clock's offset, its guests and its events."""

    clock_offset: float
    guests: Mapping[str, Placed]
    events: Sequence[Event]


async def left_by(client: Client, membership: Membership, nodes: Iterable[str]) -> Left:
    """What is kept of nodes whose supervisor is gone. Raises NotSo."""
    clock, guests, events = 0.0, dict[str, Placed](), dict[str, Event]()
    for node in nodes:
        prefix = membership.key("state", node, "")
        entries, _ = await client.under(prefix)
        for entry in entries:
            kind, _, name = entry.key.removeprefix(prefix).partition("/")
            if kind == "guests":
                one = msgspec.json.decode(entry.value, type=Placed)
                leap = replace(one, incarnation=one.incarnation + LEAP, edits=one.edits + LEAP)
                guests[name] = leap
            elif kind == "events":
                event = msgspec.json.decode(entry.value, type=Event)
                events[name] = joined(events[name], event, ()) if name in events else event
            else:
                clock = max(clock, msgspec.json.decode(entry.value))
    return Left(clock, guests, list(events.values()))


def _batched(acts: Sequence[Operation]) -> Iterator[Sequence[Operation]]:
    for start in range(0, len(acts), _AT_ONCE):
        yield acts[start : start + _AT_ONCE]
