"""Questions about wires of a lab on several machines: each machine does its part, once."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import pytest

from netemu.errors import BadInput, NotSo
from netemu.supervisor.boot.parts import Parts, WholeLab
from netemu.supervisor.boot.plan_questions import PlanQuestions
from netemu.wire.control import framed
from netemu.wire.link_questions import ClearLinks, Link, Links
from netemu.wire.questions import Question

A = TypeVar("A")
PLACES = {"a": None, "b": "m2", "c": "m2", "d": "m3"}


class Machines:
    """The wires here, and the other machines m2 and m3; `lost` is away. Notes what is asked."""

    def __init__(self, lost: Sequence[str] = ()) -> None:
        self.lost = lost
        self.here: list[Any] = []
        self.asked: list[tuple[str, Question[Any]]] = []
        parts = cast(Parts, self)

        async def whole() -> Parts:
            return parts

        lab = WholeLab("lab", whole, lambda *_: None, self._shares, lambda: self)
        self._handlers = {one.verb: one for one in PlanQuestions(lab).handlers()}

    def do(self, question: Question[Any]) -> Any:
        handler = self._handlers[str(question.__struct_config__.tag)]
        return asyncio.run(cast(Any, handler.call(framed(question)[4:])))

    def _shares(self, names: Sequence[str]) -> Mapping[str | None, list[str]]:
        found: dict[str | None, list[str]] = {}
        for name in names:
            found.setdefault(PLACES.get(name), []).append(name)
        return found

    # The parts.

    @property
    def links(self) -> "Machines":
        return self

    async def link(self, wanted: Link) -> None:
        if unknown := [one for one in wanted.targets if one not in PLACES]:
            raise BadInput(f"{unknown[0]}: no such guest")
        self.here.append(wanted.targets)

    async def clear(self, wanted: ClearLinks) -> None:
        self.here.append(wanted.targets)

    async def list(self) -> Sequence[str]:
        return ["wire of a"]

    # The others.

    def there(self) -> "list[str]":
        return [one for one in ("m2", "m3") if one not in self.lost]

    def away(self) -> "Sequence[str]":
        return self.lost

    async def ask(self, questions: Mapping[str, Question[A]]) -> "list[Any]":
        self.asked += questions.items()
        if lost := [one for one in questions if one in self.lost]:
            raise NotSo(f"{lost[0]} is away")
        return [[f"wire of {machine}"] for machine in questions]

    def told(self) -> dict[str, Any]:
        """The targets of each machine; all of them are told that it is for them alone."""
        assert all(cast(Any, question).here for _, question in self.asked)
        return {machine: cast(Any, question).targets for machine, question in self.asked}


def link(*targets: str, here: bool = False) -> Link:
    return Link(list(targets), "link-local", None, None, None, {}, here)


def test_wires_of_several_machines_are_impaired_at_once() -> None:
    lab = Machines()
    lab.do(link("a", "b", "d", "c"))
    assert lab.here == [["a"]]
    assert lab.told() == {"m2": ["b", "c"], "m3": ["d"]}
    assert link("a").here is False


def test_a_machine_that_is_asked_by_another_asks_nobody() -> None:
    lab = Machines()
    lab.do(link("b", here=True))
    lab.do(ClearLinks(None, "all", here=True))
    assert lab.here == [["b"], None]
    assert lab.do(Links(here=True)) == ["wire of a"]
    assert lab.asked == []


def test_an_unknown_name_changes_nothing_anywhere() -> None:
    lab = Machines()
    with pytest.raises(BadInput, match="x: no such guest"):
        lab.do(link("b", "x"))
    assert lab.asked == []


def test_clearing_without_names_is_of_the_whole_lab() -> None:
    """Of a machine that is away it is said that its wires are as they were."""
    lab = Machines(lost=["m3"])
    with pytest.raises(NotSo, match="m3 is away"):
        lab.do(ClearLinks(None, "all"))
    assert lab.here == [None]
    assert lab.told() == {"m2": None, "m3": None}
    assert lab.do(Links()) == ["wire of a", "wire of m2"]
