"""Decides where the guests of a lost machine boot, on the machine that is elected for it.

Runs in the supervisor of a lab on several machines. It waits until the kernel of the lost machine,
if that still runs, has silenced its guests: they are answered on one machine at a time. What it
decides is kept in the store with what was known of each guest; `arrivals` carries it out.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from hostagent.model import sees
from netemu.errors import NotSo
from netemu.etcd import Client
from netemu.supervisor.control.event_log import EventLog
from netemu.supervisor.control.healing import Candidate, spread
from netemu.supervisor.control.membership import SILENT_AFTER, Membership
from netemu.supervisor.control.places import Machine, Place, Places
from netemu.supervisor.control.published_state import Left, left_by
from netemu.topology import Guest, Lab

_LOOK: Final = 0.5


class LostMachines:
    """Looks after the other machines of a lab. Each problem of a machine is told once."""

    def __init__(
        self,
        lab: Lab,
        client: Client,
        membership: Membership,
        places: Places,
        event_log: EventLog,
    ) -> None:
        self._domains = {node.name: node.fault_domain for node in lab.nodes}
        self._guests = {guest.name: guest for guest in lab.guests}
        self._client = client
        self._membership = membership
        self._places = places
        self._event_log = event_log
        self._since: dict[tuple[str, int], float] = {}  # by machine and term: since when it is lost
        self._problems: dict[str, str] = {}

    async def heal(self) -> None:
        """Bring guests of lost machines to others, for as long as the lab is up."""
        now = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(_LOOK)
            lost = {name: one for name, one in self._places.lost().items() if self._places.on(name)}
            terms = [(name, one.began) for name, one in lost.items()]
            self._since = {term: self._since.get(term, now()) for term in terms}
            for (name, _), since in self._since.items():
                if now() < since + SILENT_AFTER:
                    continue
                try:
                    problem = await self._heal(name, lost[name])
                except NotSo as error:
                    problem = str(error)
                if problem and self._problems.get(name) != problem:
                    self._event_log.write("machine", machine=name, problem=problem)
                self._problems[name] = problem

    async def _heal(self, lost: str, term: Machine) -> str:
        """Bring the guests of a machine elsewhere. Returns why that is not done, or ""."""
        healer = await self._membership.campaign()
        if healer is None:
            return ""
        leaving = [self._guests[name] for name in self._places.on(lost)]
        machines = self._spread(leaving)
        if not machines:
            return "no other machine has room for its guests"
        # Nothing more is added: it could write only while it was there.
        left = await left_by(self._client, self._membership, term.nodes)
        before = self._places.brought()
        came = {
            guest.name: _place(machine, lost, left, guest.name, before.get(guest.name))
            for machine, guests in machines.items()
            for guest in guests
        }
        brought = await self._places.claim(healer, lost, term, came)
        if brought:
            self._event_log.write("machine", machine=lost, state="lost", guests=sorted(brought))
        return "" if len(brought) == len(leaving) else "some of its guests are not elsewhere yet"

    def _spread(self, guests: Sequence[Guest]) -> Mapping[str, list[Guest]]:
        """The machines of guests that leave theirs together; see `healing.spread`."""
        candidates = []
        on_node: dict[str, str] = {}
        for machine, one in self._places.machines.items():
            there = [self._guests[name] for name in self._places.on(machine)]
            for number, node in enumerate(one.nodes):
                on_node[node] = machine
                # Which of its nodes has which guest only that machine knows.
                share = there[number :: len(one.nodes)]
                candidates.append(Candidate(node, self._domains.get(node, -1), share))
        found: dict[str, list[Guest]] = {}
        for guest in guests:
            (nodes,) = [spread([guest], guest.fault_domain, candidates)]
            for node in nodes:
                found.setdefault(on_node[node], []).append(guest)
                candidates = [
                    one._replace(guests=[*one.guests, guest]) if one.name == node else one
                    for one in candidates
                ]
        return found


def resumed(left: Left, guest: str, place: Place) -> Place:
    """A guest's place on a machine that begins again, with what was kept there since."""
    placed = left.guests.get(guest)
    if placed is None:
        return place
    seen = tuple(one for one in left.events if sees(placed.guest, one))
    return replace(place, placed=placed, events=seen, clock_offset=left.clock_offset)


def _place(machine: str, lost: str, left: Left, guest: str, before: Place | None) -> Place:
    """A guest's next place, with what its last machine had no time to take over."""
    placed, events, clock = left.guests.get(guest), left.events, left.clock_offset
    if placed is None and before is not None:
        placed, events, clock = before.placed, before.events, before.clock_offset
    seen = () if placed is None else tuple(one for one in events if sees(placed.guest, one))
    return Place(machine, 1 + (before.epoch if before else 0), lost, clock, placed, seen)
