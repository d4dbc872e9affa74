"""A constant answer by aiohttp: `aiohttp_app.py ADDRESS PORT LOOP`, BODY in the environment."""

import os
import sys

from aiohttp import web

_BODY = os.environ["BODY"].encode()


async def answer(_request: web.Request) -> web.Response:
    """Return the constant."""
    return web.Response(body=_BODY, content_type="application/json")


def main() -> None:
    """Serve until ended."""
    if sys.argv[3] == "uvloop":
        import uvloop

        uvloop.install()
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    where = {"host": sys.argv[1], "port": int(sys.argv[2]), "backlog": 2048}
    web.run_app(app, **where, access_log=None, print=None)


if __name__ == "__main__":
    main()
