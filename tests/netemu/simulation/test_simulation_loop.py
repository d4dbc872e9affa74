"""The simulated clock, processes and sockets behave as those of a machine do."""

import asyncio

import pytest

from netemu.simulation.loop import Loop, Process, Stuck
from netemu.simulation.network import Network


def test_an_hour_takes_no_time_and_things_happen_in_order() -> None:
    loop = Loop()
    seen: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((name, loop.time() - began))

    async def story() -> None:
        await asyncio.gather(sleeper("late", 3600.0), sleeper("soon", 0.5))

    began = loop.time()
    loop.run_until_complete(story())
    assert seen == [("soon", 0.5), ("late", 3600.0)]


def test_waiting_for_what_never_comes_is_an_error() -> None:
    loop = Loop()
    with pytest.raises(Stuck):
        loop.run_until_complete(loop.create_future())


def test_a_crash_runs_nothing_more_not_even_finally() -> None:
    loop = Loop()
    seen: list[str] = []
    process = Process(loop, "agent")
    process.at_end(lambda: seen.append("closed by the kernel"))

    async def work() -> None:
        try:
            await asyncio.sleep(1)
            seen.append("worked")
        finally:
            seen.append("finally")

    process.spawn(work())
    loop.run_until(loop.time() + 0.5)
    process.crash()
    loop.run_until(loop.time() + 5)
    assert seen == ["closed by the kernel"]


def test_a_paused_process_does_late_what_was_due() -> None:
    loop = Loop()
    seen: list[float] = []
    process = Process(loop, "agent")
    began = loop.time()

    async def work() -> None:
        await asyncio.sleep(1)
        seen.append(loop.time() - began)

    process.spawn(work())
    loop.run_until(began + 0.5)
    process.pause()
    loop.run_until(began + 10)
    assert seen == []
    process.go_on()
    loop.run_until(began + 10)
    assert seen == [10.0]


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())  # type: ignore[attr-defined]


def test_a_connection_to_a_dead_server_waits_for_the_next_one() -> None:
    """The supervisor holds the listening socket: connecting succeeds while nobody serves."""
    loop = Loop()
    network = Network(loop, seed=1)
    listener = network.listen("/agent")
    heard: list[bytes] = []

    async def client() -> None:
        reader, writer = await asyncio.open_unix_connection("/agent")
        writer.write(b"hello")
        heard.append(await reader.read(100))
        heard.append(await reader.read(100))

    async def serve() -> None:
        await loop.create_unix_server(Echo, sock=listener)

    loop.create_task(client())
    loop.run_until(loop.time() + 1)
    assert heard == []
    first = Process(loop, "first")
    first.spawn(serve())
    loop.run_until(loop.time() + 1)
    assert heard == [b"HELLO"]
    first.crash()
    loop.run_until(loop.time() + 1)
    assert heard == [b"HELLO", b""]


def test_a_cut_stream_ends_between_any_two_bytes() -> None:
    loop = Loop()
    network = Network(loop, seed=3)
    network.weather.cut = 1.0
    listener = network.listen("/agent")
    heard: list[bytes] = []

    async def story() -> None:
        await loop.create_unix_server(Echo, sock=listener)
        reader, writer = await asyncio.open_unix_connection("/agent")
        writer.write(b"x" * 50)
        try:
            while part := await reader.read(100):
                heard.append(part)
        except ConnectionResetError:
            heard.append(b"reset")

    loop.run_until_complete(story())
    assert len(b"".join(heard)) < 50
