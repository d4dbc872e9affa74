"""How the agent's and the responder's processes start and end."""

import asyncio
import logging
import os
import signal
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import uvloop

from hostagent import confinement, privileges
from hostagent.notify import Notifier

log = logging.getLogger(__name__)

Serve: TypeAlias = Callable[[asyncio.Event, Callable[[], None]], Awaitable[None]]
"""A daemon's work: serves until the event is set, and calls the function once it serves."""


def run(
    serve: Serve, *, what: str, user: int | None, notifier: Notifier, store: Path | None = None
) -> None:
    """Give up all privileges, then serve on uvloop until SIGTERM or SIGINT.

    Everything that needs a privilege must be open already, and everything imported. `store` is the
    only directory in which it goes on to open files. Raises PrivilegesRemain.
    """
    _import_what_errors_need()
    # Before there is a loop: libuv may start a kernel thread for io_uring with it.
    if not privileges.give_up(user):
        log.warning("cannot become user %s here; staying %s", user, os.getuid())
    for missing in confinement.confine(store):
        log.warning("this kernel has no %s", missing)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_told(serve, what, notifier))


def _import_what_errors_need() -> None:
    """Format an error now: what Python imports for that may be unreadable later."""
    try:
        raise RuntimeError
    except RuntimeError:
        traceback.format_exc()


async def _until_told(serve: Serve, what: str, notifier: Notifier) -> None:
    def ready() -> None:
        log.info("READY %s, user %d", what, os.getuid())
        notifier.ready(what)
        if notifier.interval is not None:
            alive(notifier.interval)

    def alive(interval: float) -> None:
        notifier.alive()
        loop.call_later(interval, alive, interval)

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(stop, ready)
    log.info("%s ends", what)


def hand_over(path: Path, user: int | None) -> None:
    """Give a file that this process made to the user that it is about to become, if possible."""
    if user is not None and path.exists() and path.stat().st_uid == os.geteuid():
        try:
            os.chown(path, user, user)
        except OSError as error:  # no right to, or no such user here: the user stays the same
            log.debug("%s: %s", path, error)
