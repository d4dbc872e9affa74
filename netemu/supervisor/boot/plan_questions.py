"""Answers questions about what is planned: events, the clock, faults of the service, and wires.

Runs in the supervisor. It passes each question on, and decides nothing.
"""

from typing import Any

from hostagent.model import Event
from netemu.supervisor.boot.parts import WholeLab
from netemu.supervisor.control.control_server import Handler
from netemu.wire import event_questions, link_questions


class PlanQuestions:
    """Hands on what is asked of plans."""

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
        self._lab.here(*question.guests)
        await (await self._lab.parts()).faults.add(question.guests, question.faults)

    async def _clear_faults(self, question: event_questions.ClearFaults) -> None:
        self._lab.here(*question.guests)
        await (await self._lab.parts()).faults.clear(question.guests, question.ids)

    async def _faults(self, _: event_questions.Faults) -> list[event_questions.FaultOfGuest]:
        return await (await self._lab.parts()).faults.listed()

    async def _advance(self, question: event_questions.Advance) -> float:
        return await (await self._lab.parts()).maintenance.advance(question.seconds)

    async def _times(self, _: event_questions.Times) -> dict[str, float]:
        return await (await self._lab.parts()).maintenance.now()

    async def _link(self, question: link_questions.Link) -> None:
        self._lab.here(*question.targets)
        await (await self._lab.parts()).links.link(question)

    async def _clear_links(self, question: link_questions.ClearLinks) -> None:
        self._lab.here(*(question.targets or ()))
        await (await self._lab.parts()).links.clear(question.targets, question.wire)

    async def _links(self, _: link_questions.Links) -> list[link_questions.ImpairedWire]:
        return list(await (await self._lab.parts()).links.list())
