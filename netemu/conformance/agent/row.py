"""A row of the suite, as a value: its story, and what is demanded of the agent."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from netemu.conformance.agent.judge import IN_TIME, Demand
from netemu.conformance.agent.spec import Agent, Cloud, Kind
from netemu.conformance.agent.story import Story

Play = Callable[[Story], Awaitable[None]]

COMMON: Final = ""
"""The lab of most rows of a cloud."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One story.

    `members`: its guests, all of one availability set; `agents`: those that run the agent (None:
    all). `back`: demands about coming back, of agents that say so and do it after `back_after`.
    `lab`: which of the cloud's labs it is played in. `own_node`: its guests have a node to
    themselves. `reference`: on whose word the agent is judged.
    """

    id: str
    title: str
    cloud: Cloud
    play: Play
    demands: tuple[Demand, ...]
    reference: str
    back: tuple[Demand, ...] = ()
    back_after: str = ""
    only_back: bool = False
    expected: str = IN_TIME
    handles: tuple[Kind, ...] = ()
    members: str = "a"
    agents: str | None = None
    lab: str = COMMON
    own_node: bool = False
    keeps_one: bool = False

    @property
    def run_in(self) -> str:
        """The guests that run the agent."""
        return self.members if self.agents is None else self.agents

    def demands_of(self, agent: Agent) -> tuple[Demand, ...]:
        """What is demanded of this agent."""
        returns = agent.returns and (
            not self.back_after or self.back_after in agent.needs.return_after
        )
        return (*self.demands, *(self.back if returns else ()))

    def not_played(self, agent: Agent) -> str:
        """Why the row is not played with an agent; "" if it is."""
        if agent.run.cloud != self.cloud:
            return f"it is about {self.cloud}"
        if missing := [one for one in self.handles if one not in agent.handles]:
            return f"the agent does not handle {', '.join(missing)}"
        if self.only_back and len(self.demands_of(agent)) == len(self.demands):
            return "it is about coming back, of which the agent says nothing"
        if self.keeps_one and not agent.needs.keeps_one:
            return "the agent does not promise that one member serves on"
        if len(self.run_in) > 1 and agent.run.members == "one":
            return "the agent runs in one guest of a set"
        return ""
