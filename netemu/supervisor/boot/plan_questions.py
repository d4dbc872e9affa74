"""Answers questions about what is planned: events, the clock, faults of the service, and wires.

Runs in the supervisor. It passes each question on and decides nothing.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from msgspec.structs import replace

from hostagent.model import Event
from netemu.supervisor.boot.parts import WholeLab
from netemu.supervisor.control.control_server import Handler
from netemu.wire import event_questions, link_questions

W = TypeVar("W", link_questions.Link, link_questions.ClearLinks)


class PlanQuestions:
    """Passes questions about plans on."""

    def __init__(self, lab: WholeLab) -> None:
        self._lab = lab

    def handlers(self) -> list[Handler[Any, Any]]:
        """Return a handler for each kind of question."""
        return [
            Handler(event_questions.Schedule, self._schedule),
            Handler(event_questions.Transition, self._transition),
            Handler(event_questions.Planned, self._planned),
            Handler(event_questions.AddFaults, self._add_faults),
            Handler(event_questions.ClearFaults, self._clear_faults),
            Handler(event_questions.Faults, self._faults),
            Handler(event_questions.Advance, self._advance),
            Handler(event_questions.Times, self._times),
            Handler(link_questions.Link, self._link),
            Handler(link_questions.ClearLinks, self._clear_links),
            Handler(link_questions.Links, self._links),
        ]

    async def _schedule(self, question: event_questions.Schedule) -> Event:
        return await (await self._lab.parts()).maintenance.schedule(question)

    async def _transition(self, question: event_questions.Transition) -> Event:
        plans = (await self._lab.parts()).maintenance
        return await plans.transition(question.action, question.event_id)

    async def _planned(self, question: event_questions.Planned) -> list[Event]:
        return (await self._lab.parts()).maintenance.events(history=question.history)

    async def _add_faults(self, question: event_questions.AddFaults) -> None:
        await (await self._lab.parts()).faults.add(question.guests, question.faults)

    async def _clear_faults(self, question: event_questions.ClearFaults) -> None:
        await (await self._lab.parts()).faults.clear(question.guests, question.ids)

    async def _faults(self, _: event_questions.Faults) -> list[event_questions.FaultOfGuest]:
        return await (await self._lab.parts()).faults.listed()

    async def _advance(self, question: event_questions.Advance) -> float:
        return await (await self._lab.parts()).maintenance.advance(question.seconds)

    async def _times(self, _: event_questions.Times) -> dict[str, float]:
        return await (await self._lab.parts()).maintenance.now()

    async def _link(self, question: link_questions.Link) -> None:
        links = (await self._lab.parts()).links
        await self._spread(question, question.targets, links.link)

    async def _clear_links(self, question: link_questions.ClearLinks) -> None:
        links = (await self._lab.parts()).links
        if question.targets is not None:
            await self._spread(question, question.targets, links.clear)
            return
        await links.clear(question)
        if not question.here:
            others = self._lab.others()
            machines = [*others.there(), *others.away()]
            await others.ask(dict.fromkeys(machines, replace(question, here=True)))

    async def _spread(
        self, question: W, targets: list[str], do: Callable[[W], Awaitable[None]]
    ) -> None:
        """Do it here, and have it done on the machines that the other targets are on."""
        if question.here:
            self._lab.here(*targets)
            await do(question)
            return
        shares = self._lab.shares(targets)
        there = {
            machine: replace(question, targets=some, here=True)
            for machine, some in shares.items()
            if machine is not None
        }
        if None in shares or not there:
            await do(replace(question, targets=shares.get(None, [])))
        await self._lab.others().ask(there)

    async def _links(self, question: link_questions.Links) -> list[link_questions.ImpairedWire]:
        found = list(await (await self._lab.parts()).links.list())
        if not question.here:
            others = self._lab.others()
            asked = dict.fromkeys(others.there(), link_questions.Links(here=True))
            found += [wire for some in await others.ask(asked) for wire in some]
        return found
