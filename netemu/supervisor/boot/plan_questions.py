"""Answers questions about what is planned: events, the clock, faults of the service, and wires.

Runs in the supervisor. It passes each question on and decides nothing.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from msgspec.structs import replace

from hostagent.model import Event
from netemu.supervisor.boot.parts import WholeLab
from netemu.supervisor.control.control_server import Handler
from netemu.wire import event_questions as events
from netemu.wire import link_questions

W = TypeVar("W", link_questions.Link, link_questions.ClearLinks)


class PlanQuestions:
    """Passes questions about plans on."""

    def __init__(self, lab: WholeLab) -> None:
        self._lab = lab

    def handlers(self) -> list[Handler[Any, Any]]:
        """Return a handler for each kind of question."""
        of_parts = self._lab.handler
        return [
            of_parts(events.Schedule, lambda parts, asked: parts.maintenance.schedule(asked)),
            of_parts(
                events.Transition,
                lambda parts, asked: parts.maintenance.transition(asked.action, asked.event_id),
            ),
            Handler(events.Planned, self._planned),
            of_parts(
                events.AddFaults, lambda parts, asked: parts.faults.add(asked.guests, asked.faults)
            ),
            of_parts(
                events.ClearFaults, lambda parts, asked: parts.faults.clear(asked.guests, asked.ids)
            ),
            of_parts(events.Faults, lambda parts, _: parts.faults.listed()),
            of_parts(events.Advance, lambda parts, asked: parts.maintenance.advance(asked.seconds)),
            of_parts(events.Times, lambda parts, _: parts.maintenance.now()),
            Handler(link_questions.Link, self._link),
            Handler(link_questions.ClearLinks, self._clear_links),
            Handler(link_questions.Links, self._links),
        ]

    async def _planned(self, question: events.Planned) -> list[Event]:
        return (await self._lab.parts()).maintenance.events(history=question.history)

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
