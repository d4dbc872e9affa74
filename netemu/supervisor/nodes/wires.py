"""Which wires of a lab are impaired, how, and since when. Runs in the supervisor.

A wire that is impaired has a relay in it (`splice`, `relay_service`) for as long as its guest is
plugged in; one that is only down, at times or always, has none: its port is set down. Terms change
by the lab's own clock, from when they were given. A guest that boots keeps what its wire has.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Struct

from netemu.errors import BadInput, NetemuError, NotSo
from netemu.impairment.plan import DIRECTIONS, MAX_TIMED, Direction, Plan, Timed, checked
from netemu.impairment.terms import CLEAN, TermError, Terms
from netemu.supervisor.nodes import splice
from netemu.supervisor.nodes.relay_service import RelayService
from netemu.supervisor.nodes.services import Service
from netemu.supervisor.nodes.splice import Place, Splice
from netemu.wire.link_questions import ImpairedWire

log = logging.getLogger(__name__)

# A change that comes so late, seconds, has been overslept: the present one counts.
_LATE: Final = 1.0


class Wire(StrEnum):
    """The wires that a guest can have."""

    LINK_LOCAL = "link-local"
    TENANT = "tenant"


Key = tuple[str, Wire]  # the guest, and which of its wires
# Where the port of a wire is; None while the wire is not made, or its guest is off.
Where = Callable[[Key], Place | None]
# Set a wire's port up or down, from the node's side, if its guest runs.
SetCarrier = Callable[[Key, bool], None]


class _Impaired(Struct):
    """A wire that is impaired since `since`, by the loop's clock."""

    plan: Plan
    traces: Mapping[str, bytes]
    since: float
    timer: asyncio.TimerHandle | None = None
    splice: Splice | None = None
    terms: tuple[Terms, Terms] = (CLEAN, CLEAN)
    trouble: str = ""  # why it could not be impaired: it is down instead

    @property
    def down(self) -> bool:
        """Whether it is to have no carrier now."""
        return bool(self.trouble) or any(one.down for one in self.terms)


class Wires:
    """The impaired wires of a lab. `note` is told when the relay has ended, and why.

    What is done to one guest's wires the caller has to do one after another.
    """

    def __init__(self, where: Where, set_carrier: SetCarrier, note: Callable[[str], None]) -> None:
        self._where = where
        self._set_carrier = set_carrier
        self._note = note
        self._relay = RelayService(self._lay_again)
        self._impaired: dict[Key, _Impaired] = {}
        self._splicing = asyncio.Lock()
        self._laying_again: asyncio.Task[None] | None = None

    @property
    def services(self) -> list[Service]:
        """The relay, while there is one."""
        return self._relay.services

    def is_down(self, key: Key) -> bool:
        """Whether a wire is to have no carrier now."""
        return key in self._impaired and self._impaired[key].down

    def impaired(self, guest: str) -> Sequence[Wire]:
        """Which of a guest's wires are impaired."""
        return [key[1] for key in _keys(guest) if key in self._impaired]

    def close(self) -> None:
        """The lab goes down: have the relay end."""
        for one in self._impaired.values():
            _stop(one)
        self._relay.stop()

    # What is given to wires. All raise NetemuError.

    async def give(self, plans: Mapping[Key, Plan], traces: Mapping[str, bytes]) -> None:
        """Give each wire its plan in place of what it has; they begin now."""
        await self._set(plans, traces, begins=True)

    async def give_direction(
        self, keys: Iterable[Key], direction: Direction, plan: Plan, traces: Mapping[str, bytes]
    ) -> None:
        """Give wires the plan's terms in one direction; what they have in the other stays."""
        given = {"to": {"to": plan.to}, "from": {"from_": plan.from_}}[direction]
        plans = {
            key: msgspec.structs.replace(self._plan(key), seed=plan.seed, **given) for key in keys
        }
        await self._set(plans, traces, begins=True)

    async def add(self, keys: Iterable[Key], timed: Timed, traces: Mapping[str, bytes]) -> None:
        """Give wires one more change, whose times are from now on."""
        plans = {}
        for key in keys:
            plan, age = self._plan(key), self._age(key)
            alive = [one for one in plan.timed if one.holds(age) or one.next_after(age) is not None]
            if len(alive) >= MAX_TIMED:
                raise BadInput(f"{_name(key)}: a wire takes at most {MAX_TIMED} changes")
            shifted = msgspec.structs.replace(timed, at=age + timed.at)
            plans[key] = msgspec.structs.replace(plan, timed=(*alive, shifted))
        try:
            for plan in plans.values():
                checked(plan)
        except TermError as error:
            raise BadInput(f"{error.place}: {error}") from None
        await self._set(plans, traces, begins=False)

    async def clear(self, keys: Iterable[Key]) -> None:
        """Have wires be as if they had never been impaired."""
        given = [key for key in keys if key in self._impaired]
        await self._set(dict.fromkeys(given, Plan()), {}, begins=True)

    def _plan(self, key: Key) -> Plan:
        return self._impaired[key].plan if key in self._impaired else Plan()

    def _age(self, key: Key) -> float:
        return (
            asyncio.get_running_loop().time() - self._impaired[key].since
            if key in self._impaired
            else 0.0
        )

    async def _set(
        self, plans: Mapping[Key, Plan], traces: Mapping[str, bytes], *, begins: bool
    ) -> None:
        new = [
            key
            for key, plan in plans.items()
            if _needs_relay(plan) and (key not in self._impaired or not self._impaired[key].splice)
        ]
        try:
            splices = await self._lay(new)
        except BaseException:
            self._rest()
            raise
        now = asyncio.get_running_loop().time()
        for key, plan in plans.items():
            before = self._impaired.get(key)
            one = _Impaired(plan, traces, now) if before is None else before
            kept = {} if begins else one.traces
            one.plan, one.traces = plan, {**kept, **traces}
            one.since = now if begins else one.since
            one.splice = splices.get(key, one.splice)
            self._impaired[key] = one
            self._apply(key, one, self._age(key), begins=begins or key in splices)
        await self._leave([key for key, plan in plans.items() if not _needs_relay(plan)])
        for key, plan in plans.items():
            if plan.is_clean:
                self._impaired.pop(key, None)
        self._rest()
        relayed = any(key in self._impaired and self._impaired[key].splice for key in plans)
        if relayed and not await self._relay.heard():
            raise NotSo("the relay hangs: what was asked holds as soon as another one has begun")

    # What happens to guests.

    async def detach(self, guests: Iterable[str]) -> None:
        """Take relays out of the wires of guests, whose ports are about to be made again or go."""
        found = [key for name in guests for key in _keys(name) if key in self._impaired]
        splices = [self._taken(key) for key in found]
        some = [one for one in splices if one is not None]
        if some:
            async with self._splicing:
                await asyncio.to_thread(splice.drop, some)

    async def attach(self, guest: str) -> None:
        """Impair the wires of a guest that boots. If that fails, its wires are down."""
        for key in _keys(guest):
            one = self._impaired.get(key)
            if one is None:
                continue
            try:
                if _needs_relay(one.plan):
                    one.splice = (await self._lay([key])).get(key)
            except (NetemuError, OSError) as error:
                log.error("%s: it is down, for it cannot be impaired: %s", _name(key), error)
                one.trouble = str(error)
                _stop(one)
                self._set_carrier(key, False)
                continue
            self._apply(key, one, self._age(key), begins=True)

    def flush(self, guest: str) -> None:
        """Throw away what waits on the wires of a guest: it is off, or its node has failed."""
        for key in _keys(guest):
            if key in self._impaired and self._impaired[key].splice:
                self._relay.flush(_name(key))

    def forget(self, guest: str) -> None:
        """The guest is gone."""
        for key in _keys(guest):
            if one := self._impaired.pop(key, None):
                _stop(one)
        self._rest()

    # What there is.

    async def list(self) -> Sequence[ImpairedWire]:
        """All impaired wires."""
        counts = await self._relay.counts()
        return [
            ImpairedWire(
                guest=key[0],
                wire=str(key[1]),
                state=self._state(key, one),
                to=one.terms[0],
                from_=one.terms[1],
                seed=one.plan.seed,
                schedule=one.plan.timed,
                age=round(self._age(key), 3),
                counts=dict(zip(DIRECTIONS, counts.get(_name(key), ({}, {})), strict=True)),
            )
            for key, one in self._impaired.items()
        ]

    def _state(self, key: Key, one: _Impaired) -> str:
        if one.trouble:
            return f"down: {one.trouble}"
        if one.down:
            return "down"
        return "impaired" if one.splice or self._where(key) is not None else "off"

    # How it is done.

    async def _lay(self, keys: Sequence[Key]) -> dict[Key, Splice]:
        """Put the relay into wires that are there; on none of them, if it fails on one."""
        places = {key: place for key in keys if (place := self._where(key)) is not None}
        if not places:
            return {}
        await self._relay.start()
        splices = {key: Splice(place) for key, place in places.items()}
        made = list(splices.values())
        async with self._splicing:
            await asyncio.to_thread(splice.make, made)
            try:
                for key, one in splices.items():
                    await self._relay.lay(_name(key), _opened(key, one))
                await asyncio.to_thread(splice.enter, made)
            except BaseException:
                for key in splices:
                    self._relay.take(_name(key))
                await asyncio.to_thread(splice.drop, made)
                raise
        return splices

    async def _leave(self, keys: Sequence[Key]) -> None:
        splices = [one for one in map(self._taken, keys) if one is not None]
        if splices:
            async with self._splicing:
                await asyncio.to_thread(splice.leave, splices)

    def _taken(self, key: Key) -> Splice | None:
        taken, self._impaired[key].splice = self._impaired[key].splice, None
        if taken is not None:
            self._relay.take(_name(key))
        return taken

    def _rest(self) -> None:
        """Have no relay where no wire needs one."""
        if not any(_needs_relay(one.plan) for one in self._impaired.values()):
            self._relay.stop()

    def _apply(self, key: Key, one: _Impaired, age: float, *, begins: bool) -> None:
        """Have the terms that hold at this age of the plan, and wait for the next change."""
        was_down, one.trouble = one.down, ""
        one.terms = one.plan.at(age)
        if one.splice is not None:
            if begins:
                self._relay.begin(_name(key), one.plan.seed, one.terms, one.traces)
            else:
                self._relay.change(_name(key), one.terms, one.traces)
        if one.down or was_down:
            self._set_carrier(key, not one.down)
        _stop(one)
        following = one.plan.next_change(age)
        if following is not None:
            at = one.since + following
            one.timer = asyncio.get_running_loop().call_at(at, self._turn, key, one, following)

    def _turn(self, key: Key, one: _Impaired, age: float) -> None:
        late = self._age(key) - age
        try:
            self._apply(key, one, age + late if late > _LATE else age, begins=False)
        except (NetemuError, OSError) as error:  # its guest may just have destroyed it
            log.warning("%s: %s", _name(key), error)

    def _lay_again(self, ended: str) -> None:
        """Another relay has begun, which knows of nothing."""
        log.error("the relay of impaired wires has ended (%s): another one carries them", ended)
        self._note(ended)
        if self._laying_again is not None:
            self._laying_again.cancel()
        self._laying_again = asyncio.get_running_loop().create_task(self._lay_all_again())

    async def _lay_all_again(self) -> None:
        for key, one in list(self._impaired.items()):
            laid = one.splice
            if laid is None or not laid.entered:
                continue
            try:
                await self._relay.lay(_name(key), laid.open())
                if one.splice is laid:
                    self._apply(key, one, self._age(key), begins=True)
                else:
                    self._relay.take(_name(key))
            except (NetemuError, OSError) as error:
                log.error("%s: it passes nothing: %s", _name(key), error)


def _opened(key: Key, one: Splice) -> tuple[socket.socket, socket.socket]:
    try:
        return one.open()
    except NotSo as error:
        raise NotSo(f"{_name(key)}: {error}") from None


def _needs_relay(plan: Plan) -> bool:
    """Whether anything happens to frames but that the wire is down."""
    always = [msgspec.structs.replace(one, down=False) for one in (plan.to, plan.from_)]
    changes = [{*one.to, *one.from_} - {"down"} for one in plan.timed]
    return any(one != CLEAN for one in always) or any(changes)


def _keys(guest: str) -> Sequence[Key]:
    return [(guest, wire) for wire in Wire]


def _name(key: Key) -> str:
    return f"{key[0]}/{key[1]}"


def _stop(one: _Impaired) -> None:
    if one.timer is not None:
        one.timer.cancel()
        one.timer = None
