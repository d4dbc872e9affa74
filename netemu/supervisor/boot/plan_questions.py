"""Answers questions about what is planned: events, the clock, faults of the service, and wires.

Runs in the supervisor. It passes each question on, and decides nothing.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from hostagent.model import Event
from netemu.supervisor.boot.parts import Parts
from netemu.supervisor.control.control_server import Handler
from netemu.wire import event_questions, link_questions


class PlanQuestions:
    """The handlers; `whole` waits until the lab is up, `here` refuses what is elsewhere."""

    def __init__(self, whole: Callable[[], Awaitable[Parts]], here: Callable[..., None]) -> None:
        self._whole = whole
        self._here = here

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
        return await (await self._whole()).maintenance.schedule(
            question.guests,
            question.kind,
            notice=question.notice,
            duration=question.duration,
            source=question.source,
            description=question.description,
            notice_only=question.notice_only,
        )

    async def _transition(self, question: event_questions.Transition) -> Event:
        plans = (await self._whole()).maintenance
        return await plans.transition(question.action, question.event_id)

    async def _planned(self, question: event_questions.Planned) -> list[Event]:
        return (await self._whole()).maintenance.events(history=question.history)

    async def _add_faults(self, question: event_questions.AddFaults) -> None:
        self._here(*question.guests)
        await (await self._whole()).faults.add(question.guests, question.faults)

    async def _clear_faults(self, question: event_questions.ClearFaults) -> None:
        self._here(*question.guests)
        await (await self._whole()).faults.clear(question.guests, question.ids)

    async def _faults(self, _: event_questions.Faults) -> list[event_questions.FaultOfGuest]:
        return await (await self._whole()).faults.listed()

    async def _advance(self, question: event_questions.Advance) -> float:
        return await (await self._whole()).maintenance.advance(question.seconds)

    async def _times(self, _: event_questions.Times) -> dict[str, float]:
        return await (await self._whole()).maintenance.now()

    async def _link(self, question: link_questions.Link) -> None:
        self._here(*question.targets)
        links = (await self._whole()).links
        await links.link(
            question.targets,
            question.wire,
            question.plan,
            question.timed,
            question.direction,
            question.traces,
        )

    async def _clear_links(self, question: link_questions.ClearLinks) -> None:
        self._here(*(question.targets or ()))
        await (await self._whole()).links.clear(question.targets, question.wire)

    async def _links(self, _: link_questions.Links) -> list[link_questions.ImpairedWire]:
        return list(await (await self._whole()).links.list())
