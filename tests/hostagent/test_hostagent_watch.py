"""Watching a node: what its agent knows, and that it is there."""

import asyncio
import socket

import pytest

from hostagent import subscription
from hostagent.agent import Agent
from hostagent.channel.messages import (
    VERSION,
    Done,
    Failed,
    Heartbeat,
    Hello,
    Snapshot,
    Welcome,
    encode,
)
from hostagent.channel.requests import Approve
from hostagent.controller import Controller, Watch
from hostagent.controller.conversation import Conversation
from hostagent.model import EventStatus, EventType, Guest
from hostagent.repository import Repository


class Plant:
    """An agent on this loop that can be killed and started again, and a watch of it."""

    def __init__(self, directory):
        self.directory = directory
        self.calls = []
        self.time = 100.0
        self.watch = Watch(self.changed, clock=lambda: self.time)

    def changed(self):
        self.calls.append((self.watch.connected, self.watch.sequence))

    async def start(self):
        self.store = Repository.open(self.directory / "node.sqlite")
        self.stop, ready = asyncio.Event(), asyncio.Event()
        sockets = []
        for name in ("command", "feed"):
            (self.directory / name).unlink(missing_ok=True)
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(str(self.directory / name))
            sock.listen()
            sockets.append(sock)
        agent = Agent("n1", self.store)
        self.serving = asyncio.create_task(agent.serve(*sockets, self.stop, ready.set))
        await ready.wait()

    async def end(self):
        self.stop.set()
        await self.serving
        self.store.close()

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)


def run(plant, walk):
    """Walk with an agent running and the watch following, on asyncio's own loop."""

    async def whole():
        await plant.start()
        following = asyncio.create_task(plant.watch.follow(plant.directory / "feed"))
        try:
            await walk()
        finally:
            following.cancel()
            await asyncio.wait([following])
            await plant.end()

    asyncio.run(whole())
    assert not plant.watch.connected


@pytest.fixture
def plant(short_path, monkeypatch):
    monkeypatch.setattr(subscription, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(subscription, "LAST_DELAY", 0.02)
    return Plant(short_path)


def test_a_watch_knows_what_the_agent_knows_and_is_told_of_each_change(plant):
    watch = plant.watch
    assert (watch.connected, watch.heard, watch.guests, watch.events) == (False, None, {}, {})

    async def walk():
        await plant.until(lambda: watch.connected)
        assert plant.calls == [(True, 0)]
        assert (watch.node, watch.heard) == ("n1", 100.0)
        async with await Controller.connect(plant.directory / "command") as controller:
            await controller.place([Guest(name="web1", port=1)])
            event = await controller.schedule(["web1"], EventType.REBOOT, notice_only=True)
            await controller.advance(60)
            await plant.until(lambda: watch.sequence == 3)
            assert plant.calls[1:] == [(True, 1), (True, 2), (True, 3)]
            assert watch.guests["web1"].guest.port == 1
            assert watch.guests["web1"].incarnation == 2
            assert watch.events == {event.id: event}
            assert event.notice_only
            assert watch.clock_offset == 60
            assert (await controller.now()).clock_offset == 60
            await controller.cancel(event.id)
            await controller.withdraw(["web1"])
            await plant.until(lambda: watch.sequence == 5)
            assert watch.events[event.id].status is EventStatus.CANCELLED
            assert watch.guests == {}

    run(plant, walk)


def test_heartbeats_are_heard_and_change_nothing(plant):
    watch = plant.watch

    async def walk():
        await plant.until(lambda: watch.connected)
        calls = list(plant.calls)
        plant.time = 200.0
        await plant.until(lambda: watch.heard == 200.0)
        assert plant.calls == calls

    run(plant, walk)


def test_it_keeps_what_it_knows_while_the_agent_is_away_and_comes_back(plant):
    watch = plant.watch

    async def walk():
        async with await Controller.connect(plant.directory / "command") as controller:
            await controller.place([Guest(name="web1")])
            await plant.until(lambda: "web1" in watch.guests)
            await controller.close()
            await plant.end()
            await plant.until(lambda: not watch.connected)
            assert plant.calls[-1] == (False, 1)
            assert "web1" in watch.guests
            await plant.start()
            await plant.until(lambda: watch.connected)
            assert plant.calls[-1] == (True, 1)
            await controller.place([Guest(name="web2")])
            await plant.until(lambda: "web2" in watch.guests)

    run(plant, walk)


def test_a_watcher_may_send_nothing(plant):
    event_id = "6f0a13a3-dc0d-4bbe-ab24-df710a3917e6"

    async def walk():
        reader, writer = await asyncio.open_unix_connection(plant.directory / "feed")
        writer.write(encode(Hello(version=VERSION, role="watcher")))
        writer.write(encode(Approve(command_id="x", event_id=event_id, guest="web1")))
        told = await asyncio.wait_for(reader.read(), 10)  # until it is closed
        writer.close()
        assert b"a watcher may not send approve here" in told

    run(plant, walk)


def test_a_watcher_may_not_command(plant):
    async def walk():
        reader, writer = await asyncio.open_unix_connection(plant.directory / "command")
        writer.write(encode(Hello(version=VERSION, role="watcher")))
        (refusal,) = Conversation().feed(await asyncio.wait_for(reader.read(), 10))
        writer.close()
        assert (refusal.code, refusal.reason) == ("role", "this socket is for a controller")

    run(plant, walk)


WELCOME = encode(Welcome(version=VERSION, node="n1"))


@pytest.mark.parametrize(
    "said",
    [
        b"\xff\xff\xff\xff",
        WELCOME + b"\0\0\0\1x",
        WELCOME + encode(Heartbeat(sequence=7)),
        WELCOME + encode(Done(command_id="x", now=0.0)),
        WELCOME + encode(Failed(command_id="x", code="c", reason="r")),
        encode(Failed(code="busy", reason="too many")),
        WELCOME + encode(Snapshot(sequence=4, node="n1", clock_offset=0.0, more=True)),
    ],
)
def test_nonsense_from_an_agent_makes_it_ask_anew(plant, said):
    watch = plant.watch
    asked = []

    async def speak(reader, writer):
        asked.append(await reader.read(1000))
        if len(asked) == 1:
            writer.write(said)
        else:
            writer.write(WELCOME + encode(Snapshot(sequence=9, node="n1", clock_offset=1.0)))
            await reader.read()
        writer.close()

    async def whole():
        server = await asyncio.start_unix_server(speak, plant.directory / "feed")
        following = asyncio.create_task(watch.follow(plant.directory / "feed"))
        await plant.until(lambda: watch.connected)
        following.cancel()
        await asyncio.wait([following])
        server.close()
        await asyncio.sleep(0.02)

    asyncio.run(whole())
    assert plant.calls == [(True, 9)]
    assert asked == [encode(Hello(version=VERSION, role="watcher"))] * 2


def test_that_nobody_answers_is_logged_once(short_path, monkeypatch, caplog):
    """A dead agent's socket takes connections for as long as its supervisor holds it."""
    monkeypatch.setattr(subscription, "SILENCE", 0.02)
    monkeypatch.setattr(subscription, "LAST_DELAY", 0.01)
    monkeypatch.setattr(subscription, "FIRST_DELAY", 0.001)
    watch = Watch(lambda: None)

    async def script():
        following = asyncio.create_task(watch.follow(short_path / "feed"))
        await asyncio.sleep(0.3)
        following.cancel()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_path / "feed"))
        listener.listen()
        asyncio.run(script())
    assert caplog.text.count("the agent is silent; asking again") == 1
