"""The way to the store out of the sandbox: a process outside connects, and hands the socket in."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from netemu.etcd.http import Endpoint
from netemu.supervisor.boot.store_client import Outside
from tests.netemu.labs.test_lab_isolation import wait_until

pytestmark = pytest.mark.processes


@pytest.fixture
def dialler() -> Iterator[Callable[[Callable[[Outside], Coroutine[None, None, None]]], None]]:
    """Plays a script with the way to two servers, of which one listens and one does not."""
    with socket.socket() as listener, socket.socket() as nobody:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        nobody.bind(("127.0.0.1", 0))
        servers = [Endpoint(*listener.getsockname()), Endpoint(*nobody.getsockname())]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "netemu.supervisor.boot.store_dialler", str(theirs.fileno())]
                + [str(part) for server in servers for part in server],
                pass_fds=(theirs.fileno(),),
            )

        def play(script: Callable[[Outside], Coroutine[None, None, None]]) -> None:
            async def run() -> None:
                await script(Outside(ours, servers))

            asyncio.run(run())

        yield play
        ours.close()
        process.wait(10)
        wait_until(lambda: not _diallers(str(servers[0].port)))  # they end with the lab


def test_a_socket_is_connected_outside(
    dialler: Callable[[Callable[[Outside], Coroutine[None, None, None]]], None],
) -> None:
    async def script(outside: Outside) -> None:
        there, nobody = outside._numbers
        for made in await asyncio.gather(*(outside.dial(there) for _ in range(5))):
            assert Endpoint(*made.getpeername()) == there
            made.close()
        with pytest.raises(ConnectionRefusedError):
            await outside.dial(nobody)
        given_up = asyncio.create_task(outside.dial(there))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        given_up.cancel()
        made = await outside.dial(there)
        assert Endpoint(*made.getpeername()) == there
        made.close()

    dialler(script)


def test_diallers_that_are_killed_are_started_again(
    dialler: Callable[[Callable[[Outside], Coroutine[None, None, None]]], None],
) -> None:
    """Each in turn, and with a question asked: the next question is answered."""

    async def script(outside: Outside) -> None:
        there, _ = outside._numbers
        (await outside.dial(there)).close()
        for _ in range(4):
            before = await _two(str(there.port))
            for pid in (before[0], await _another(str(there.port), before)):
                os.kill(pid, signal.SIGKILL)
                async with asyncio.timeout(30):  # a question that it had taken is lost
                    while True:
                        try:
                            (await asyncio.wait_for(outside.dial(there), 2)).close()
                            break
                        except TimeoutError:
                            pass

    dialler(script)


def test_when_all_diallers_are_killed_at_once_the_store_is_away_and_it_is_said_why(
    dialler: Callable[[Callable[[Outside], Coroutine[None, None, None]]], None],
) -> None:
    """Each question fails at once: to this machine it is as if it had been cut off."""

    async def script(outside: Outside) -> None:
        there, _ = outside._numbers
        both = await _two(str(there.port))
        for verb in (signal.SIGSTOP, signal.SIGKILL):  # so that none starts another meanwhile
            for pid in both:
                os.kill(pid, verb)
        for _ in range(2):
            async with asyncio.timeout(30):
                with pytest.raises(OSError, match="killed, all at once; 'netemu leave'"):
                    await outside.dial(there)

    dialler(script)


async def _two(port: str) -> list[int]:
    """The two processes that dial, by their arguments."""
    async with asyncio.timeout(30):
        while len(found := _diallers(port)) != 2:
            await asyncio.sleep(0.02)
    return found


async def _another(port: str, before: list[int]) -> int:
    """The one of the two that was there already: it started the other."""
    return next(pid for pid in await _two(port) if pid in before)


def _diallers(port: str) -> list[int]:
    """The diallers to this server that live."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"netemu.supervisor.boot.store_dialler" in words and port.encode() in words:
            found.append(int(entry.name))
    return found


def test_a_lab_of_one_machine_imports_none_of_it() -> None:
    script = "import sys, netemu.supervisor.boot.pid1; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    assert "netemu.supervisor.control.agent_store" in loaded
    assert not [one for one in loaded if one.startswith("netemu.etcd")]
    assert "netemu.supervisor.control.shared_store" not in loaded
