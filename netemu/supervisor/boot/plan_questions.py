"""Answers questions about what is planned: events, the clock, faults of the service, and wires.

Runs in the supervisor. It passes each question on, and decides nothing.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from netemu.supervisor.boot.parts import Parts
from netemu.supervisor.control.control_server import Answer, Handler
from netemu.wire import event_questions, link_questions


class PlanQuestions:
    """The handlers; `whole` waits until the lab is up, `here` refuses what is elsewhere."""

    def __init__(self, whole: Callable[[], Awaitable[Parts]], here: Callable[..., None]) -> None:
        self._whole = whole
        self._here = here

    def handlers(self) -> list[Handler[Any]]:
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

    async def _schedule(self, question: event_questions.Schedule) -> Answer:
        """Plan an event."""
        event = await (await self._whole()).maintenance.schedule(
            question.guests,
            question.kind,
            notice=question.notice,
            duration=question.duration,
            source=question.source,
            description=question.description,
            notice_only=question.notice_only,
        )
        return [{"event": msgspec.to_builtins(event)}], []

    async def _transition(self, question: event_questions.Transition) -> Answer:
        """Approve, start, complete or cancel an event."""
        plans = (await self._whole()).maintenance
        event = await plans.transition(question.action, question.event_id)
        return [{"event": msgspec.to_builtins(event)}], []

    async def _planned(self, question: event_questions.Planned) -> Answer:
        """The events of the lab."""
        events = (await self._whole()).maintenance.events(history=question.history)
        return [*({"event": msgspec.to_builtins(one)} for one in events), {}], []

    async def _add_faults(self, question: event_questions.AddFaults) -> Answer:
        """Have the metadata service misbehave."""
        self._here(*question.guests)
        await (await self._whole()).faults.add(question.guests, question.faults)
        return [{}], []

    async def _clear_faults(self, question: event_questions.ClearFaults) -> Answer:
        """End faults."""
        self._here(*question.guests)
        await (await self._whole()).faults.clear(question.guests, question.ids)
        return [{}], []

    async def _faults(self, _: event_questions.Faults) -> Answer:
        """The faults that are not over."""
        return [*await (await self._whole()).faults.listed(), {}], []

    async def _advance(self, question: event_questions.Advance) -> Answer:
        """Move the metadata plane's clock."""
        now = await (await self._whole()).maintenance.advance(question.seconds)
        return [{"now": now}], []

    async def _times(self, _: event_questions.Times) -> Answer:
        """The metadata plane's time, by node."""
        return [{"times": await (await self._whole()).maintenance.now()}], []

    async def _link(self, question: link_questions.Link) -> Answer:
        """Impair wires."""
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
        return [{}], []

    async def _clear_links(self, question: link_questions.ClearLinks) -> Answer:
        """End impairments."""
        self._here(*(question.targets or ()))
        await (await self._whole()).links.clear(question.targets, question.wire)
        return [{}], []

    async def _links(self, _: link_questions.Links) -> Answer:
        """The impaired wires."""
        return [*await (await self._whole()).links.list(), {}], []
