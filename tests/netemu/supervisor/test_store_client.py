"""The way to the store out of the sandbox: a process outside connects, and hands the socket in."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator

import pytest

from netemu.etcd.http import Endpoint
from netemu.supervisor.boot.store_client import Outside

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
        assert process.wait(10) == 0  # it ends with the lab


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


def test_a_lab_of_one_machine_imports_none_of_it() -> None:
    script = "import sys, netemu.supervisor.boot.pid1; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    assert "netemu.supervisor.control.agent_store" in loaded
    assert not [one for one in loaded if one.startswith("netemu.etcd")]
    assert "netemu.supervisor.control.shared_store" not in loaded
