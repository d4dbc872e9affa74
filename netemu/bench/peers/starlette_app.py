"""A constant answer by Starlette: `uvicorn starlette_app:app`, with BODY in the environment."""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_BODY = os.environ["BODY"].encode()


async def answer(_request: Request) -> Response:
    """Return the constant."""
    return Response(_BODY, media_type="application/json")


app = Starlette(routes=[Route("/{path:path}", answer)])
