"""What a dialect may return besides a response: something to wait for first. Pure."""

from collections.abc import Callable
from typing import Final, TypeAlias

from msgspec import Struct

from hostagent.http import Request, Response
from hostagent.model import View

NOT_FOUND: Final = Response(404, b"Not Found")
"""The answer where no cloud has words of its own for it."""


class Park(Struct, frozen=True):
    """Keep the request until what is known of its guest changes, or until the time `until`.

    Then call `resume` with the view and the time; it may return another Park.
    """

    until: float
    resume: Callable[[View, float], "Response | Park"]


class Approval(Struct, frozen=True):
    """The guest approves of these events, which it can see and which have not started.

    `done` is the answer once the agent has stored that, `refused` if an event has ended meanwhile,
    and `failed` if the agent does not answer in time.
    """

    event_ids: tuple[str, ...]
    done: Response
    refused: Response
    failed: Response


class Writing(Struct, frozen=True):
    """The guest writes for itself, or deletes (`text` None) what it has written under a name.

    `done`, `refused` and `failed` are the answers, as for an Approval.
    """

    name: str
    text: str | None
    done: Response
    refused: Response
    failed: Response


Outcome: TypeAlias = Response | Park | Approval | Writing
Dialect: TypeAlias = Callable[[View, Request, float], Outcome | None]
"""Returns None when the request's path is not its own."""
