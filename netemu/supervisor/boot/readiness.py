"""Checks, with a guest's own request, whether its responder answers it and knows it. Runs in the
supervisor.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Final

from netemu.errors import NotSo
from netemu.kernel.sockets import HTTP
from netemu.supervisor.guests.machine import Capability, Machine, MachineWithConsole
from netemu.supervisor.nodes.claims import Claims
from netemu.supervisor.nodes.wiring import METADATA, WiredGuest, WiredNode
from netemu.wire.progress import Progress

# Guests that ask at the same time. Under `same-node` each first resolves the responder by a
# broadcast that a thousand others hear, which takes the kernel some 8 ms. All must be done long
# before their patience ends: otherwise they ask again and again.
_AT_ONCE: Final = 100
# A responder that is starting refuses or does not answer: it is asked again.
_PATIENCE: Final = 5.0
_PAUSE: Final = 0.05
# For each dialect, a request that every guest may send. The answer contains the guest's name,
# unless that can be set as a property.
_QUESTIONS: Final = {
    "azure-v1": ("GET /metadata/v1/InstanceInfo", "", '"_{name}"'),
    "azure": ("GET /metadata/instance?api-version=2021-02-01", "Metadata: true", ""),
    "ec2": ("PUT /latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 1", ""),
    "gce": ("GET /computeMetadata/v1/instance/id", "Metadata-Flavor: Google", ""),
    "openstack": ("GET /openstack/latest/meta_data.json", "", '"name": "{name}"'),
}


@asynccontextmanager
async def within(seconds: float, missing: Callable[[], str]) -> AsyncIterator[None]:
    """Limit the time of a step. Raises NotSo, which says what was missing and after how long."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise NotSo(f"{missing()} within {seconds:g} s") from None


def unbound(nodes: Iterable[WiredNode], claims: Claims) -> str:
    """Return why a lab is not up: guests without an address, or else agents that do not answer."""
    states = {one: claims.state(one.guest) for node in nodes for one in node.guests}
    missing = [
        f"{one.guest.name} ({state}{_last_words(one.machine)})"
        for one, state in states.items()
        if state != "bound"
    ]
    if not missing:
        return "not every host agent took its guests"
    rest = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return f"no address was bound for {', '.join(missing[:3])}{rest}"


def _last_words(machine: Machine) -> str:
    """What is on the console of a machine that has one."""
    words = machine.last_words if isinstance(machine, MachineWithConsole) else ""
    return f"; its console says {words!r}" if words else ""


async def all_answered(
    nodes: Iterable[WiredNode], progress: Progress, misled: Collection[str] = ()
) -> None:
    """Wait until every guest is answered as itself, in a dialect that its node speaks.

    A guest whose machine the lab cannot connect from is left out.
    """
    waiting = [
        (one, node.node.dialects.names[0])
        for node in nodes
        for one in node.guests
        if Capability.DIAL in one.machine.capabilities and one.guest.name not in misled
    ]
    total = len(waiting)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def until_answered(wired: WiredGuest, dialect: str) -> None:
        async with slots:
            while not await answered(wired, dialect):
                await asyncio.sleep(_PAUSE)
        wired.machine.hung_up(METADATA)
        done.append(wired)
        progress.step("asking the responders", len(done), total)

    done: list[WiredGuest] = []
    await asyncio.gather(*(until_answered(*one) for one in waiting))


async def answered(wired: WiredGuest, dialect: str) -> bool:
    """Whether this guest's responder answers it now, as itself."""
    loop = asyncio.get_running_loop()
    line, header, told = _QUESTIONS[dialect]
    head = [
        f"{line} HTTP/1.1",
        f"Host: {METADATA}",
        "Connection: close",
        *filter(None, [header]),
    ]
    question = "".join(f"{one}\r\n" for one in [*head, ""]).encode()
    try:
        async with asyncio.timeout(_PATIENCE):
            with await wired.machine.dial(METADATA, HTTP) as link:
                await loop.sock_sendall(link, question)
                answer = b""
                while part := await loop.sock_recv(link, 4096):
                    answer += part
    except OSError:  # TimeoutError is one too
        return False
    expected = told.format(name=wired.guest.name).encode()
    return answer.startswith(b"HTTP/1.1 200 ") and expected in answer
