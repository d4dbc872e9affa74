"""Takes in guests from a lost machine, and ends those that are on another machine by now.

Runs in the supervisor of a lab on several machines, and carries out what `lost_machines` decides on
one of them. An arriving guest is off; it boots on a node here, with all that was known of it. A
guest that is on another machine is ended here before this machine's guests are heard again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final
from uuid import NAMESPACE_OID, uuid5

from msgspec.structs import replace

from netemu.errors import NetemuError
from netemu.supervisor.control.event_log import EventLog
from netemu.supervisor.control.placement import Placement
from netemu.supervisor.control.places import Place, Places
from netemu.supervisor.control.relocation import Cause, Relocation
from netemu.supervisor.control.store import Known
from netemu.supervisor.guests.machine import Machine
from netemu.supervisor.nodes.hardware import Hardware
from netemu.supervisor.nodes.wiring import WiredGuest, WiredNode
from netemu.topology import Guest, Lab

log = logging.getLogger(__name__)

_FIRST_RETRY: Final = 0.5
_LAST_RETRY: Final = 10.0

Forget = Callable[[Sequence[str]], Awaitable[None]]
Make = Callable[[Sequence[Guest]], Awaitable[Sequence[Machine]]]


class Arrivals:
    """The arrivals and departures of guests at `machine`.

    `make` makes the machines of arriving guests; `forget` withdraws guests from the agents here.
    """

    def __init__(
        self,
        lab: Lab,
        machine: str,
        places: Places,
        make: Make,
        hardware: Hardware,
        placement: Placement,
        relocation: Relocation,
        forget: Forget,
        event_log: EventLog,
    ) -> None:
        self._guests = {guest.name: guest for guest in lab.guests}
        self._nodes = {guest.name: node for node in lab.nodes for guest in node.guests}
        self._machine = machine
        self._places = places
        self._make = make
        self._hardware = hardware
        self._placement = placement
        self._relocation = relocation
        self._forget = forget
        self._event_log = event_log

    async def run(self) -> None:
        """Take in arriving guests, for as long as the lab is up."""
        pause: float | None = None
        while True:
            try:
                async with asyncio.timeout(pause):
                    await self._places.changed.wait()
            except TimeoutError:
                pass
            self._places.changed.clear()
            try:
                problems = await self._take_in()
            except (NetemuError, OSError) as error:
                problems = [str(error)]
            except Exception:
                log.exception("guests of another machine are not taken in")
                problems = ["a defect: the log has it"]
            for problem in dict.fromkeys(problems):
                log.warning("guests of another machine are not taken in: %s", problem)
            pause = None if not problems else min(2 * (pause or _FIRST_RETRY / 2), _LAST_RETRY)

    async def _take_in(self) -> list[str]:
        """Take in guests that belong here and are on no node yet. Returns what went wrong."""
        coming = {
            name: place
            for name, place in self._places.brought().items()
            if place.machine == self._machine
            and (name not in self._hardware or self._hardware.is_coming(name))
        }
        if not coming:
            return []
        await self._admit(coming)
        problems = []
        for before in sorted({place.before for place in coming.values()}):
            some = {name: one for name, one in coming.items() if one.before == before}
            told = ",".join(f"{name}/{one.epoch}" for name, one in sorted(some.items()))
            cause = Cause(uuid5(NAMESPACE_OID, told), f"machine {before} is lost")
            guests = [self._hardware.wired(name).guest for name in some]
            problems += await self._relocation.receive(guests, _known(some), cause)
        return problems

    async def _admit(self, coming: Mapping[str, Place]) -> None:
        """Make the machines of arriving guests."""
        new = [self._as_known(name, coming[name]) for name in coming if name not in self._hardware]
        for guest, machine in zip(new, await self._make(new), strict=True):
            wired = WiredGuest(guest, machine, plugged=False)
            placed = coming[guest.name].placed
            self._placement.admit(
                guest.name, guest.properties if placed is None else placed.guest.properties
            )
            self._hardware.admit(wired, WiredNode(self._nodes[guest.name], -1, [wired]))

    def _as_known(self, name: str, place: Place) -> Guest:
        """The guest, which remembers the address that it had."""
        guest = self._guests[name]
        held = None if place.placed is None else place.placed.guest.properties.get("address")
        return replace(guest, last_address=held or guest.last_address)

    async def let_go(self) -> None:
        """End guests that are on another machine by now, and withdraw them from the agents here.

        Raises NetemuError, OSError.
        """
        gone = [
            name for name, one in self._places.brought().items() if one.machine != self._machine
        ]
        for name in gone:
            if name in self._hardware:
                node = self._hardware.node_of(name).node.name
                await self._hardware.release(name)
                self._event_log.write("guest", guest=name, node=node, state="elsewhere")
        await self._forget(gone)


def _known(places: Mapping[str, Place]) -> Known:
    """What is known of guests that arrive together."""
    events = {event.id: event for place in places.values() for event in place.events}
    return Known(
        max(place.clock_offset for place in places.values()),
        [place.placed for place in places.values() if place.placed is not None],
        list(events.values()),
    )
