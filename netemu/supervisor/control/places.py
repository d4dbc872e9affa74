"""Which machine each guest is on: the lab file's, or the one to which it was brought since.

Runs in the supervisor of a lab on several machines. A guest that was brought elsewhere has a key:

    /netemu/LAB/ACTIVITY/places/GUEST           its machine, and what was known of it
    /netemu/LAB/ACTIVITY/gone/GUEST             set once it has been terminated

The first is written by the elected healer alone, for guests of machines that are lost; the second
by the machine that the guest was on.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set

import msgspec

from hostagent.channel.requests import Placed
from hostagent.model import Event
from netemu.errors import NotSo
from netemu.etcd import Change, Client, Entry, Held, Put, Version
from netemu.etcd.messages import Comparison
from netemu.supervisor.control.following import follow
from netemu.supervisor.control.membership import Membership, Term
from netemu.topology import Lab

# Guests that change their machines in one transaction: etcd takes 1.5 MB, and each may have 64 KiB
# of user data.
_AT_ONCE = 8


class Place(msgspec.Struct, frozen=True):
    """A guest's machine, for the `epoch`th time, and what was known of the guest on the last one.

    `placed` is None if nobody knew it.
    """

    machine: str
    epoch: int
    before: str
    clock_offset: float = 0.0
    placed: Placed | None = None
    events: tuple[Event, ...] = ()


class Machine(msgspec.Struct, frozen=True):
    """The last term of a machine, and the revision at which it began."""

    nodes: tuple[str, ...]
    began: int
    run: str = ""
    tunnel: tuple[str, int] | None = None


class Places:
    """What the store says. `machines` are those that are there; `terms` has lost ones too.

    `changed` is set at each change; clear it before looking.
    """

    def __init__(self, lab: Lab, client: Client, membership: Membership) -> None:
        self.machines: dict[str, Machine] = {}
        self.terms: dict[str, Machine] = {}
        self.changed = asyncio.Event()
        self._nodes = {guest.name: node.name for node in lab.nodes for guest in node.guests}
        self._client = client
        self._membership = membership
        self._places: dict[str, tuple[Place, int]] = {}
        self._gone: set[str] = set()

    # What is known.

    def brought(self) -> Mapping[str, Place]:
        """The guests that have been on another machine than the lab file's."""
        return {
            guest: place for guest, (place, _) in self._places.items() if guest not in self._gone
        }

    @property
    def gone(self) -> Set[str]:
        """The guests that were terminated."""
        return self._gone

    def machine_of_node(self, node: str) -> str | None:
        """The machine that has a node; None: it has not joined, or has left."""
        return next((name for name, one in self.terms.items() if node in one.nodes), None)

    def machine_of(self, guest: str) -> str | None:
        """The machine that a guest is on, whether that is there or lost."""
        if guest in self._places:
            return self._places[guest][0].machine
        return self.machine_of_node(self._nodes[guest]) if guest in self._nodes else None

    def on(self, machine: str) -> list[str]:
        """The guests of a machine, in the order of the lab file."""
        there = [guest for guest in self._nodes if self.machine_of(guest) == machine]
        return [guest for guest in there if guest not in self._gone]

    def lost(self) -> Mapping[str, Machine]:
        """The machines that are not there, and have not left."""
        return {name: one for name, one in self.terms.items() if name not in self.machines}

    # What is read.

    async def run(self, tell: Callable[[str], None]) -> None:
        """Follow the store, for as long as the lab is up."""
        key = self._membership.key
        async with asyncio.TaskGroup() as group:
            group.create_task(follow(self._client, key("machines", ""), self._machines, tell))
            group.create_task(follow(self._client, key("terms", ""), self._terms, tell))
            group.create_task(follow(self._client, key("places", ""), self._take, tell))
            group.create_task(follow(self._client, key("gone", ""), self._take_gone, tell))

    async def read(self) -> None:
        """Read all places now. Raises NotSo.

        What is read in a term of this machine holds for as long as the term lasts, apart from new
        arrivals: nobody takes a guest from a machine that is there.
        """
        key = self._membership.key
        entries, _ = await self._client.under(key("places", ""))
        self._take_entries(entries)
        self._gone |= {_guest(one) for one in (await self._client.under(key("gone", "")))[0]}

    async def _take_gone(self, changes: list[Change], _: bool) -> None:
        self._gone |= {_guest(one.entry) for one in changes if one.entry is not None}

    async def _machines(self, changes: list[Change], whole: bool) -> None:
        _take_terms(self.machines, changes, whole)
        self.changed.set()

    async def _terms(self, changes: list[Change], whole: bool) -> None:
        _take_terms(self.terms, changes, whole)
        self.changed.set()

    async def _take(self, changes: list[Change], _: bool) -> None:
        self._take_entries(one.entry for one in changes if one.entry is not None)

    def _take_entries(self, entries: Iterable[Entry]) -> None:
        for one in entries:
            guest = _guest(one)
            if guest in self._nodes and self._revision(guest) < one.modified:
                place = msgspec.json.decode(one.value, type=Place)
                self._places[guest] = place, one.modified
        self.changed.set()

    def _revision(self, guest: str) -> int:
        return self._places[guest][1] if guest in self._places else 0

    def resume(self, machine: str, resumed: Callable[[str, Place], Place]) -> None:
        """Add what is known of guests that were on this machine before its supervisor began."""
        for guest, (place, revision) in list(self._places.items()):
            if place.machine == machine:
                self._places[guest] = resumed(guest, place), revision

    # What is written.

    async def terminated(self, guest: str) -> None:
        """Note that a guest of this machine was terminated. Raises NotSo."""
        self._gone.add(guest)
        in_term = self._membership.in_term(self._membership.term)
        if not await self._client.when([in_term], [Put(self._membership.key("gone", guest), b"")]):
            raise NotSo("this machine's place is being taken again")

    async def claim(
        self, healer: Held, lost: str, term: Machine, came: Mapping[str, Place]
    ) -> Collection[str]:
        """Bring guests of a machine that was lost in a term to others. Returns those it brought.

        Nothing is done unless this machine is the healer, that machine has not come back since,
        and each guest is where it was when it was looked for. Raises NotSo.
        """
        key = self._membership.key
        gone: list[Comparison] = [
            healer,
            Version(key("machines", lost), 0),
            Version(key("terms", lost), term.began),
        ]
        done: list[str] = []
        names = list(came)
        for start in range(0, len(names), _AT_ONCE):
            some = names[start : start + _AT_ONCE]
            as_before: list[Comparison] = [
                Version(key("places", one), self._revision(one)) for one in some
            ]
            puts = [Put(key("places", one), msgspec.json.encode(came[one])) for one in some]
            await self._client.when([*gone, *as_before], puts)
            await self.read()  # an answer may have been lost
            done += [one for one in some if self.brought().get(one) == came[one]]
        return done


def _guest(one: Entry) -> str:
    return one.key.rpartition("/")[2]


def _take_terms(known: dict[str, Machine], changes: Sequence[Change], whole: bool) -> None:
    if whole:
        known.clear()
    for one in changes:
        machine = one.key.rpartition("/")[2]
        if one.entry is None:
            known.pop(machine, None)
        else:
            term = msgspec.json.decode(one.entry.value, type=Term)
            known[machine] = Machine(term.nodes, one.entry.modified, term.run, term.tunnel)
