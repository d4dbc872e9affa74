"""Answers questions about a guest or a node: reboots, properties, failures, polls; and, for guests
with kernels of their own, commands and consoles.

Runs in the supervisor. It passes each question on and decides nothing.
"""

from typing import Any, Final

from netemu.errors import BadInput, NotSo
from netemu.supervisor.boot.parts import Parts, WholeLab
from netemu.supervisor.control.control_server import Beside, HandedOver, Handler
from netemu.supervisor.guests.machine import Command
from netemu.supervisor.guests.power import Power
from netemu.wire import event_questions, questions

# Bytes of a command's standard input.
MOST_GIVEN: Final = 1 << 19
# Seconds that a command may take: the supervisor looks at it as long as it runs.
LONGEST: Final = 3600.0


class GuestQuestions:
    """Passes questions about guests and nodes on."""

    def __init__(self, lab: WholeLab) -> None:
        self._lab = lab

    def handlers(self) -> list[Handler[Any, Any]]:
        """Return a handler for each kind of question."""
        of_guest = self._lab.guest_handler
        return [
            of_guest(questions.Reboot, lambda parts, q: parts.impact.reboot(q.guest, hard=q.hard)),
            of_guest(questions.SetProperties, _set),
            of_guest(event_questions.Polls, lambda parts, q: parts.faults.polls(q.guest)),
            of_guest(questions.Run, _run),
            Handler(questions.Console, self._console),
            Handler(questions.Fail, self._fail),
            Handler(questions.Restore, self._restore),
        ]

    async def _console(self, question: questions.Console) -> Beside[None]:
        parts = await self._lab.of_guest(question.guest)
        console = parts.hardware.with_console(question.guest).console()
        return Beside(None, [HandedOver(console.detach())])

    async def _fail(self, question: questions.Fail) -> None:
        self._lab.here(question.node)
        (await self._lab.parts()).relocation.fail(question.node)

    async def _restore(self, question: questions.Restore) -> None:
        self._lab.here(question.node)
        await (await self._lab.parts()).relocation.restore(question.node)


async def _set(parts: Parts, question: questions.SetProperties) -> dict[str, str]:
    guest = question.guest
    if question.properties:
        if parts.hardware.power(guest) is Power.GONE:
            raise NotSo(f"{guest} is gone: it was preempted or terminated")
        await parts.placement.change(guest, question.properties)
    return parts.placement.properties(guest)


async def _run(parts: Parts, question: questions.Run) -> questions.Ran:
    if not question.command or not question.command[0]:
        raise BadInput("the command is empty: give a list of words, first the program's name")
    if not 0 < question.timeout <= LONGEST:
        raise BadInput(f"timeout {question.timeout:g}: give more than 0 and at most {LONGEST:g} s")
    if len(question.given) > MOST_GIVEN:
        raise BadInput(f"a machine's command takes {MOST_GIVEN:,} bytes of input at most")
    machine = parts.hardware.with_console(question.guest)
    done = await machine.run(Command(question.command, question.given, question.timeout))
    return questions.Ran(done.code, done.out, done.err)
