"""What a dialect may give besides a response: that it waits for something first. Pure."""

from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from hostagent.http import Request, Response
from hostagent.model import View


class Park(Struct, frozen=True):
    """Keep the request until what is known of its guest changes, or until the time `until`.

    Then ask `resume` with what is known and the time, which may give another Park. Requests that
    are the same and were parked with the same `key` are given the same answer, made once.
    """

    until: float
    key: str
    resume: Callable[[View, float], "Response | Park"]


class Approval(Struct, frozen=True):
    """The guest approves of these events, which it can see and which have not started.

    Once the agent has stored that, `done` is the answer; `refused` if an event has ended meanwhile,
    `failed` if the agent does not answer in time.
    """

    event_ids: tuple[str, ...]
    done: Response
    refused: Response
    failed: Response


Outcome: TypeAlias = Response | Park | Approval
Dialect: TypeAlias = Callable[[View, Request, float], Outcome | None]
"""Gives None when the request's path is not its own."""
