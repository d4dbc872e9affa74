"""Questions to a lab's control socket about impaired wires."""

from typing import Literal

from netemu.impairment.plan import Direction, Plan, Timed
from netemu.wire.questions import Question

Which = Literal["link-local", "tenant", "all"]
"""Which of a guest's wires; `all` are those that it has."""


class Link(Question, tag="link"):
    """Impair wires of these guests and nodes: by a plan, or by one more change of their schedule.

    `traces` are the files that the terms name, by their names.
    """

    targets: list[str]
    wire: Which
    plan: Plan | None
    timed: Timed | None
    direction: Direction | None
    traces: dict[str, bytes]


class ClearLinks(Question, tag="clear_links"):
    """End the impairment of these wires; None: of all."""

    targets: list[str] | None
    wire: Which


class Links(Question, tag="links"):
    """The wires that are impaired."""
