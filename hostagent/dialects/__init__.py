"""The dialects: each cloud's metadata API, one module a cloud. Pure.

A dialect is a module with one function,

    answer(view: View, request: Request, now: float) -> Response | None

that gives None when the path is not its own. `view` is what is known of the guest that asks, and
nothing of any other guest; `now` the metadata plane's time, epoch seconds. A dialect opens nothing,
stores nothing and looks at no clock. Every dialect refuses a request with X-Forwarded-For: what has
passed through a proxy was not asked by the guest itself.
"""

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from hostagent.dialects import azure_v1
from hostagent.http import Request, Response
from hostagent.model import View

Dialect: TypeAlias = Callable[[View, Request, float], Response | None]

DIALECTS: Final[Mapping[str, Dialect]] = {"azure-v1": azure_v1.answer}
"""By name. Their paths do not overlap, so the order does not matter."""

NOT_FOUND: Final = Response(404, b"Not Found")


def answer(
    view: View, request: Request, now: float, dialects: Mapping[str, Dialect] = DIALECTS
) -> Response:
    """Give the answer of the dialect to which the path belongs, or 404."""
    for dialect in dialects.values():
        response = dialect(view, request, now)
        if response is not None:
            return response
    return NOT_FOUND
