"""Answers questions about guests with kernels of their own: commands, consoles. Runs in the
supervisor.
"""

from typing import Any, Final

from netemu.errors import BadInput
from netemu.supervisor.boot.parts import WholeLab
from netemu.supervisor.control.control_server import Beside, HandedOver, Handler
from netemu.supervisor.guests.machine import Command, MachineWithConsole
from netemu.wire import questions

# Bytes of a command's standard input.
MOST_GIVEN: Final = 1 << 19
# Seconds that a command may take: the supervisor looks at it as long as it runs.
LONGEST: Final = 3600.0


class MachineQuestions:
    """Passes questions about machines on."""

    def __init__(self, lab: WholeLab) -> None:
        self._lab = lab

    def handlers(self) -> list[Handler[Any, Any]]:
        """Return a handler for each kind of question."""
        return [Handler(questions.Run, self._run), Handler(questions.Console, self._console)]

    async def _machine(self, guest: str) -> MachineWithConsole:
        return (await self._lab.of_guest(guest)).hardware.with_console(guest)

    async def _run(self, question: questions.Run) -> questions.Ran:
        if not question.command or not question.command[0]:
            raise BadInput("a command is a list of words, the first of which is not empty")
        if not 0 < question.timeout <= LONGEST:
            raise BadInput(f"timeout {question.timeout:g} is not from 0 to {LONGEST:g} s")
        if len(question.given) > MOST_GIVEN:
            raise BadInput(f"a machine's command takes {MOST_GIVEN:,} bytes of input at most")
        machine = await self._machine(question.guest)
        done = await machine.run(Command(question.command, question.given, question.timeout))
        return questions.Ran(done.code, done.out, done.err)

    async def _console(self, question: questions.Console) -> Beside[None]:
        machine = await self._machine(question.guest)
        return Beside(None, [HandedOver(machine.console().detach())])
