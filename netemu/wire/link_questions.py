"""Questions to a lab's control socket about impaired wires."""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct, field

from netemu.impairment.plan import Direction, Plan, Timed
from netemu.impairment.terms import Terms
from netemu.wire.questions import Question

Which = Literal["link-local", "tenant", "all"]
"""Which of a guest's wires; `all` are those that it has."""


class Link(Question[None], tag="link"):
    """Impair wires of these guests and nodes: by a plan, or by one more change of their schedule.

    `traces` are the files that the terms name, by their names. A question with `here` is not handed
    on to another machine.
    """

    targets: list[str]
    wire: Which
    plan: Plan | None
    timed: Timed | None
    direction: Direction | None
    traces: dict[str, bytes]
    here: bool = False


class ClearLinks(Question[None], tag="clear_links"):
    """End the impairment of these wires; None: of all. `here`: see `Link`."""

    targets: list[str] | None
    wire: Which
    here: bool = False


class ImpairedWire(Struct):
    """A wire that is impaired: its terms now, its schedule, and what happened to its frames.

    `age` is the seconds since its terms were given.
    """

    guest: str
    wire: str
    state: str
    to: Terms
    from_: Terms = field(name="from")
    seed: int
    schedule: Sequence[Timed]
    age: float
    counts: dict[Direction, dict[str, int]]


class Links(Question[list[ImpairedWire]], tag="links"):
    """The wires that are impaired. `here`: see `Link`."""

    here: bool = False
