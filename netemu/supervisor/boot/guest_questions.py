"""Answers questions that concern a guest or a node: reboots, properties, failures, polls.

Runs in the supervisor. It passes each question on, and decides nothing.
"""

from typing import Any

from hostagent.channel.messages import Poll
from netemu.errors import NotSo
from netemu.supervisor.boot.parts import WholeLab
from netemu.supervisor.control.control_server import Handler
from netemu.supervisor.guests.power import Power
from netemu.wire import event_questions, questions


class GuestQuestions:
    """Passes questions about guests and nodes on."""

    def __init__(self, lab: WholeLab) -> None:
        self._lab = lab

    def handlers(self) -> list[Handler[Any, Any]]:
        """Return a handler for each kind of question."""
        return [
            Handler(questions.Reboot, self._reboot),
            Handler(questions.SetProperties, self._set),
            Handler(questions.Fail, self._fail),
            Handler(questions.Restore, self._restore),
            Handler(event_questions.Polls, self._polls),
        ]

    async def _reboot(self, question: questions.Reboot) -> None:
        await (await self._lab.of_guest(question.guest)).impact.reboot(
            question.guest, hard=question.hard
        )

    async def _set(self, question: questions.SetProperties) -> dict[str, str]:
        guest = question.guest
        parts = await self._lab.of_guest(guest)
        if question.properties:
            if parts.hardware.power(guest) is Power.GONE:
                raise NotSo(f"{guest} is gone")
            await parts.placement.change(guest, question.properties)
        return parts.placement.properties(guest)

    async def _fail(self, question: questions.Fail) -> None:
        self._lab.here(question.node)
        (await self._lab.parts()).relocation.fail(question.node)

    async def _restore(self, question: questions.Restore) -> None:
        self._lab.here(question.node)
        await (await self._lab.parts()).relocation.restore(question.node)

    async def _polls(self, question: event_questions.Polls) -> list[Poll]:
        parts = await self._lab.of_guest(question.guest)
        return await parts.faults.polls(question.guest)
