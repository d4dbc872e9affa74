"""Puts the simulation's clock and randomness where the code under test reads the machine's.

Only for a process that runs nothing but simulations: the modules stay changed.
"""

import random
from datetime import datetime
from types import SimpleNamespace
from typing import Any, Final
from uuid import UUID

from hostagent.controller import calls
from hostagent.controller import watch as controller_watch
from netemu.simulation.loop import Loop
from netemu.supervisor.control import (
    agent_feeds,
    dead_node_store,
    event_log,
    maintenance,
    moves,
    relocation,
)

INLINE: Final = object()
"""In the place of an executor: the loop does the work itself."""


def uuid(draw: random.Random) -> UUID:
    """A random UUID from the seed."""
    return UUID(int=draw.getrandbits(128), version=4)


def install(loop: Loop, wall: Any, seed: int) -> None:
    """Have every module read the simulated clock, and draw its IDs from the seed."""
    draw = random.Random(f"{seed}/uuids")
    time: Any = SimpleNamespace(time=wall, monotonic=loop.time)
    modules: tuple[Any, ...] = (agent_feeds, dead_node_store, relocation, controller_watch)
    for module in modules:
        if hasattr(module, "time"):
            module.time = time
    others: tuple[Any, ...] = (maintenance, relocation, moves, calls)
    for module in others:
        if hasattr(module, "uuid4"):
            module.uuid4 = lambda: uuid(draw)
    log_module: Any = event_log
    log_module.datetime = SimpleNamespace(now=lambda zone: datetime.fromtimestamp(wall(), zone))
    # Log lines would contain this machine's clock, and differ in each run.
    event_log.log.disabled = True
