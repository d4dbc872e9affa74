"""Asks the other machines of a lab for their part of what concerns all of it.

Runs in the supervisor; a lab on one machine has no others. A question that is asked here is for the
machine that receives it: that one does not hand it on again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from netemu.errors import NetemuError, NotSo, of_exit_code
from netemu.supervisor.control.control_server import Elsewhere
from netemu.wire.control import Reply, Told
from netemu.wire.framing import decoded
from netemu.wire.progress import Failed
from netemu.wire.questions import Question

if TYPE_CHECKING:
    from netemu.supervisor.control.places import Places

A = TypeVar("A")


class Others(Protocol):
    """The other machines of a lab. All raise NetemuError."""

    def there(self) -> list[str]:
        """Those that are there."""

    def away(self) -> list[str]:
        """Those that are lost, and whose guests are not on other machines yet."""

    async def ask(self, questions: Mapping[str, Question[A]]) -> list[A]:
        """Ask machines at the same time. Raises the first error once all have been asked."""

    async def ask_soon(self, questions: Mapping[str, Question[A]], within: float) -> list[A]:
        """The answers of those that give one within so many seconds."""


class NoOthers:
    """Of a lab on one machine."""

    def there(self) -> list[str]:
        return []

    def away(self) -> list[str]:
        return []

    async def ask(self, questions: Mapping[str, Question[A]]) -> list[A]:
        if questions:
            raise NotSo(f"{', '.join(questions)}: the lab is still coming up")
        return []

    async def ask_soon(self, questions: Mapping[str, Question[A]], within: float) -> list[A]:
        return []


class OtherMachines:
    """Of a machine's supervisor; `hand_on` carries a question to another."""

    def __init__(
        self,
        places: "Places",
        machine: str,
        hand_on: Callable[[Elsewhere, bytes], Awaitable[bytes]],
    ) -> None:
        self._places = places
        self._machine = machine
        self._hand_on = hand_on

    def there(self) -> list[str]:
        return sorted(self._places.machines.keys() - {self._machine})

    def away(self) -> list[str]:
        return sorted(name for name in self._places.lost() if self._places.on(name))

    async def ask(self, questions: Mapping[str, Question[A]]) -> list[A]:
        asked = (self._ask(machine, question) for machine, question in questions.items())
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for one in answers:
            if isinstance(one, BaseException):
                raise one
        return [one for one in answers if not isinstance(one, BaseException)]

    async def ask_soon(self, questions: Mapping[str, Question[A]], within: float) -> list[A]:
        asked = [asyncio.create_task(self._ask(*one)) for one in questions.items()]
        if not asked:
            return []
        done, late = await asyncio.wait(asked, timeout=within)
        for one in late:
            one.cancel()
        errors = {one: one.exception() for one in done}
        for error in errors.values():
            if error is not None and not isinstance(error, NetemuError):
                raise error
        return [one.result() for one in asked if one in errors and errors[one] is None]

    async def _ask(self, machine: str, question: Question[A]) -> A:
        where = Elsewhere(machine, f"its part is on machine {machine}: it can only be done there")
        told = decoded(await self._hand_on(where, msgspec.msgpack.encode(question)), Reply)
        match told:
            case Told(answer):
                return question.answer(bytes(answer))
            case Failed(reason, exit_code):
                raise of_exit_code(exit_code, f"machine {machine}: {reason}")
        raise NotSo(f"machine {machine}: no answer")
