"""An agent whose disk does not answer: it is alive, and says so."""

import asyncio
import socket
import threading
from concurrent.futures import Executor, Future

import pytest

from hostagent import agent as agent_module
from hostagent.agent import Agent
from hostagent.channel.frames import Decoder
from hostagent.channel.messages import (
    VERSION,
    Applied,
    Delta,
    Done,
    Failed,
    Heartbeat,
    Hello,
    decode,
    encode,
)
from hostagent.channel.requests import Approve, Place, Schedule
from hostagent.controller import CommandRefused, Controller
from hostagent.model import EventType, Guest
from hostagent.repository import Repository
from hostagent.responder.approvals import Approvals
from hostagent.responder.feed import follow
from hostagent.responder.knowledge import Knowledge


class SlowStore(Repository):
    """A repository whose disk can be made to hang, or to fail."""

    def __init__(self, db):
        self.answering = threading.Event()
        self.answering.set()
        self.broken = None
        super().__init__(db)

    def settle(self, wall):
        assert self.answering.wait(30)
        if self.broken is not None:
            raise self.broken
        return super().settle(wall)


class Inline(Executor):
    """Does at once what it is given, as a simulation's would."""

    def submit(self, fn, /, *args):
        future = Future()
        future.set_result(fn(*args))
        return future


class Stage:
    def __init__(self, directory, executor=None):
        self.directory = directory
        self.store = SlowStore.open(directory / "node.sqlite")
        self.agent = Agent("n1", self.store, executor=executor)
        self.stop = asyncio.Event()

    async def __aenter__(self):
        ready = asyncio.Event()
        sockets = []
        for name in ("command", "feed"):
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(str(self.directory / name))
            sock.listen()
            sockets.append(sock)
        self.serving = asyncio.create_task(self.agent.serve(*sockets, self.stop, ready.set))
        await ready.wait()
        return self

    async def __aexit__(self, *_):
        self.store.answering.set()
        self.stop.set()
        await self.serving
        self.store.close()

    async def controller(self, timeout=10.0):  # noqa: ASYNC109
        return await Controller.connect(self.directory / "command", timeout)

    async def peer(self, name, role):
        return await Peer.connect(self.directory / name, role)


class Peer:
    @classmethod
    async def connect(cls, path, role):
        self = cls()
        self.reader, self.writer = await asyncio.open_unix_connection(path)
        self.decoder, self.waiting = Decoder(), []
        self.send(Hello(version=VERSION, role=role))
        await self.next()
        return self

    async def snapshot(self):
        parts = [await self.next()]
        while parts[-1].more:
            parts.append(await self.next())
        return parts

    def send(self, *messages):
        self.writer.write(b"".join(map(encode, messages)))

    async def next(self):
        async with asyncio.timeout(10):
            while not self.waiting:
                data = await self.reader.read(65536)
                if not data:
                    return None
                self.waiting = [decode(obj) for obj in self.decoder.feed(data)]
        return self.waiting.pop(0)


@pytest.fixture
def stage(short_path, monkeypatch):
    monkeypatch.setattr(agent_module, "HEARTBEAT_INTERVAL", 0.02)
    return short_path


def test_heartbeats_come_while_the_disk_does_not_answer(stage):
    async def walk():
        async with Stage(stage) as made:
            watcher = await made.peer("feed", "watcher")
            await watcher.snapshot()
            made.store.answering.clear()
            controller = await made.controller()
            placing = asyncio.create_task(controller.place([Guest(name="web1")]))
            assert [await watcher.next() for _ in range(10)] == [Heartbeat(sequence=0)] * 10
            assert not placing.done()
            made.store.answering.set()
            assert await placing == 1
            while isinstance(message := await watcher.next(), Heartbeat):
                pass
            assert isinstance(message, Delta)
            await controller.close()
            watcher.writer.close()

    asyncio.run(walk())


def test_what_cannot_be_stored_is_refused_in_words_and_what_is_known_is_told(stage, caplog):
    async def walk():
        async with Stage(stage) as made, await made.controller() as controller:
            await controller.place([Guest(name="web1")])
            made.store.broken = OSError("the disk is full")
            with pytest.raises(CommandRefused, match="the disk is full") as refused:
                await controller.place([Guest(name="web2")])
            assert refused.value.code == "repository"
            assert [one.guest.name for one in await controller.guests()] == ["web1"]
            watcher = await made.peer("feed", "watcher")
            snapshot, *_ = await watcher.snapshot()
            assert (snapshot.sequence, len(snapshot.guests)) == (1, 1)
            for _ in range(5):  # beats, each of which tries again
                assert isinstance(await watcher.next(), Heartbeat)
            assert sum("the disk is full" in one.message for one in caplog.records) < 5
            made.store.broken = None
            assert await controller.place([Guest(name="web2")]) == 2
            watcher.writer.close()

    with caplog.at_level("INFO"):
        asyncio.run(walk())
    assert "it works again" in caplog.text


def test_a_peer_that_does_not_wait_for_its_answers_is_not_read_without_end(stage):
    """What one peer can have wait here is about as much as its socket holds."""

    async def walk():
        async with Stage(stage) as made:
            peer = await made.peer("command", "controller")
            made.store.answering.clear()
            sent = 0
            filler = Guest(name="web1", properties={"tags.a": "x" * 250})
            try:
                async with asyncio.timeout(1.0):
                    while True:
                        peer.send(*(Place(command_id=f"{sent}", guests=(filler,)) for _ in "ab"))
                        sent += 1
                        await peer.writer.drain()
            except TimeoutError:
                pass
            assert len(made.agent._batch) < 3000
            peer.writer.close()

    asyncio.run(walk())


@pytest.mark.parametrize("executor", [None, Inline()], ids=["thread", "inline"])
def test_the_agent_knows_how_far_each_responder_has_come(stage, executor):
    async def walk():
        async with Stage(stage, executor) as made, await made.controller() as controller:
            assert await controller.place([Guest(name="web1")]) == 1
            lagging = await made.peer("feed", "responder")
            await lagging.snapshot()
            knowledge, heard = Knowledge(), asyncio.Event()
            path = made.directory / "feed"
            following = asyncio.create_task(follow(path, knowledge, heard, Approvals()))
            await heard.wait()
            sequence = await controller.adopt([], [], 5.0)
            assert sequence == 2

            async def applied(*wanted):
                async with asyncio.timeout(10):
                    while sorted((await controller.responders()).applied) != sorted(wanted):
                        await asyncio.sleep(0.01)

            await applied(0, 2)
            assert (await controller.responders()).sequence == 2
            lagging.send(Applied(sequence=1))
            await applied(1, 2)
            lagging.writer.close()
            await applied(2)
            following.cancel()
            await applied()

    asyncio.run(walk())


def test_a_subscriber_is_told_of_its_approval_before_it_is_answered(stage):
    """Also one that approves before it has the snapshot that shows what it approved."""
    name = "00000001-0000-4000-8000-000000000000"

    async def walk():
        async with Stage(stage) as made:
            peer = await made.peer("command", "controller")
            peer.send(
                Place(command_id="1", guests=(Guest(name="web1"),)),
                Schedule(command_id="2", event_id=name, type=EventType.REBOOT, guests=("web1",)),
            )
            assert [type(await peer.next()) for _ in range(2)] == [Done, Done]
            made.store.answering.clear()
            responder = await made.peer("feed", "responder")
            responder.send(Approve(command_id="3", event_id=name, guest="web1"))
            await asyncio.sleep(0.1)
            made.store.answering.set()
            started = False
            while not isinstance(message := await responder.next(), (Done, Failed)):
                events = getattr(message, "events", ())
                started = started or any(one.status == "Started" for one in events)
            assert isinstance(message, Done)
            assert started
            peer.writer.close()
            responder.writer.close()

    asyncio.run(walk())
