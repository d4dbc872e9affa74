"""A guest's connections are reset by a thread: the supervisor's loop goes on meanwhile."""

import asyncio
import os
import resource
import socket
import time
from collections.abc import Iterator

import pytest

from netemu.kernel import links, netlink, sockets
from netemu.kernel import namespaces as ns

pytestmark = pytest.mark.root

COUNT = 1500
OWN = "127.0.0.9"


@pytest.fixture
def net() -> Iterator[int]:
    """A namespace with nothing but a loopback."""
    home = ns.open_own("net")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ns.unshare(ns.NEWNET)
    made = ns.open_own("net")
    ns.setns(home, ns.NEWNET)
    with ns.inside(made), netlink.Netlink.open() as kernel:
        kernel.run((links.up("lo", 1),))
    yield made
    os.close(made)
    os.close(home)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connected(net: int, address: str, count: int) -> list[socket.socket]:
    """Both ends of so many connections from an address to itself."""
    with ns.inside(net):
        listener = socket.create_server((address, 0), backlog=count)
        made = []
        for _ in range(count):
            made.append(
                socket.create_connection(listener.getsockname(), source_address=(address, 0))
            )
            made.append(listener.accept()[0])
    listener.close()
    return made


def is_reset(end: socket.socket) -> bool:
    end.setblocking(False)
    try:
        return end.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_all_of_an_addresss_connections_are_reset_and_no_others(net: int) -> None:
    """A host moves: its thousands of connections end; those of its other address stay."""
    moved, stays = connected(net, OWN, COUNT), connected(net, "127.0.0.1", 2)
    longest = 0.0

    def reset() -> None:
        with ns.inside(net):
            sockets.reset_connections(OWN)

    async def run() -> None:
        nonlocal longest
        resetting = asyncio.get_running_loop().run_in_executor(None, reset)
        while not resetting.done():
            before = time.monotonic()
            await asyncio.sleep(0)
            longest = max(longest, time.monotonic() - before)
        await resetting

    asyncio.run(run())
    assert all(is_reset(end) for end in moved)
    assert not any(is_reset(end) for end in stays)
    assert longest < 5  # the loop went on; how well, a busy machine cannot say
    for end in (*moved, *stays):
        end.close()


def test_the_connections_with_a_peer_are_reset(net: int) -> None:
    ends = connected(net, OWN, 3)
    with ns.inside(net):
        sockets.reset_connections_with([OWN])
    assert all(is_reset(end) for end in ends)
    for end in ends:
        end.close()
