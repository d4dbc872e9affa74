"""The agent at its sockets: who may say what, garbage, bounds, and the feed."""

import asyncio
import contextlib
import os
import socket
import struct
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostagent import agent as agent_module
from hostagent.agent import Agent
from hostagent.channel.frames import MAX_FRAME, Decoder
from hostagent.channel.messages import (
    HEARTBEAT_INTERVAL,
    VERSION,
    Delta,
    Done,
    Events,
    Failed,
    Heartbeat,
    Hello,
    Snapshot,
    Welcome,
    decode,
    encode,
)
from hostagent.channel.requests import (
    Advance,
    Approve,
    ListEvents,
    ListGuests,
    Place,
    Schedule,
    Withdraw,
    Write,
)
from hostagent.model import Event, EventSource, EventType, Guest
from hostagent.repository import Repository
from tests.hostagent.clock import AsyncioLoop, move, until
from tests.hostagent.daemons import wait_for

ID = "6f0a13a3-dc0d-4bbe-ab24-df710a3917e6"


class Peer:
    """A raw connection to one of the agent's sockets."""

    def __init__(self, node, name, role=None):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(node.directory / name))
        self.decoder = Decoder()
        self.waiting = []
        if role:
            self.send(Hello(version=VERSION, role=role))
            assert self.next() == Welcome(version=VERSION, node="n1")

    def send(self, *messages):
        self.sock.sendall(b"".join(encode(message) for message in messages))

    def next(self):
        """Return the next message; None at the end."""
        while not self.waiting:
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.waiting = [decode(obj) for obj in self.decoder.feed(data)]
        return self.waiting.pop(0)

    def next_but_heartbeats(self):
        while isinstance(message := self.next(), Heartbeat):
            pass
        return message

    def close(self):
        self.sock.close()


@pytest.fixture
def running(node):
    assert "READY" in node.start_agent()
    return node


@pytest.fixture
def peer(running):
    """Connect to the agent: `peer(socket, role)`."""
    with contextlib.ExitStack() as stack:

        def connect(name="command", role="controller"):
            made = Peer(running, name, role)
            stack.callback(made.close)
            return made

        yield connect


def alive(running):
    with running.controller() as controller:
        return controller.node == "n1"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "bad-frame"),
        (struct.pack(">I", MAX_FRAME + 1), "bad-frame"),
        (struct.pack(">I", 1) + b"\xc1", "bad-frame"),
        (struct.pack(">I", 1) + b"\x90", "bad-frame"),
        (struct.pack(">I", 1) + b"\x80", "bad-message"),
        (encode(ListGuests()), "bad-message"),  # before Hello
        (encode(Hello(version=VERSION + 1, role="controller")), "version"),
        (encode(Hello(version=VERSION, role="responder")), "role"),
        (encode(Hello(version=VERSION, role="controller")) * 2, "bad-message"),
        (encode(Hello(version=VERSION, role="controller")) + b"\xff" * 9, "bad-frame"),
        (
            encode(Hello(version=VERSION, role="controller")) + encode(Heartbeat(sequence=1)),
            "bad-message",
        ),
    ],
)
def test_what_is_wrong_is_answered_and_closes_this_connection_only(running, peer, data, code):
    bystander = peer()
    victim = peer(role=None)
    victim.sock.sendall(data)
    message = victim.next()
    if isinstance(message, Welcome):
        message = victim.next()
    assert isinstance(message, Failed)
    assert message.code == code
    assert victim.next() is None
    bystander.send(ListGuests())
    assert bystander.next().guests == ()


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.binary(min_size=1, max_size=300), framed=st.booleans(), greeted=st.booleans())
def test_garbage_does_not_kill(running, data, framed, greeted):
    with contextlib.closing(Peer(running, "command", "controller" if greeted else None)) as one:
        one.sock.sendall(len(data).to_bytes(4, "big") + data if framed else data)
    assert running.processes["agent"].poll() is None


def test_garbage_has_not_killed(running):
    for _ in range(20):
        with contextlib.closing(Peer(running, "command")) as one:
            one.sock.sendall(os.urandom(5000))
    assert alive(running)
    assert "Traceback" not in running.log("agent")


def test_a_responder_can_command_nothing(running, peer):
    for command in (
        Place(command_id="c", guests=(Guest(name="evil"),)),
        Advance(command_id="c", seconds=5.0),
        Approve(command_id="c", event_id=ID),
        ListEvents(),
    ):
        responder = peer("feed", "responder")
        responder.send(command)
        messages = []
        while (message := responder.next_but_heartbeats()) is not None:
            messages.append(message)
        assert [type(message) for message in messages] == [Snapshot, Snapshot, Failed]
        assert messages[-1].code == "bad-message"
    with running.controller() as controller:
        assert controller.guests() == ()


def test_commands_in_one_go_are_answered_in_order(peer):
    controller = peer()
    controller.send(
        Place(command_id="1", guests=(Guest(name="web1"),)),
        Schedule(command_id="2", event_id=ID, type=EventType.REBOOT, guests=("web1",)),
        ListEvents(),
        Schedule(command_id="3", event_id=ID, type=EventType.REBOOT, guests=("web1",)),
        Withdraw(command_id="4", names=("web1",)),
        ListGuests(),
    )
    answers = [controller.next() for _ in range(6)]
    assert [getattr(answer, "command_id", None) for answer in answers] == [
        "1",
        "2",
        None,
        "3",
        "4",
        None,
    ]
    assert answers[2].events == (answers[1].event,)
    assert answers[3].code == "conflict"
    assert answers[5].guests == ()


def test_what_was_asked_before_the_garbage_is_answered(peer):
    controller = peer()
    frames = encode(Place(command_id="1", guests=(Guest(name="web1"),))) + b"\xff\xff\xff\xff"
    controller.sock.sendall(frames)
    assert isinstance(controller.next(), Done)
    assert controller.next().code == "bad-frame"
    assert controller.next() is None


def test_the_feed_follows_on_from_the_snapshot(peer):
    controller = peer()
    controller.send(Place(command_id="1", guests=(Guest(name="web1"), Guest(name="web2"))))
    controller.next()
    responder = peer("feed", "responder")
    snapshot = responder.next()
    assert [one.guest.name for one in snapshot.guests] == ["web1", "web2"]
    assert (snapshot.node, snapshot.more, snapshot.events) == ("n1", True, ())
    rest = responder.next()
    assert (rest.more, rest.sequence) == (False, snapshot.sequence)
    controller.send(
        Schedule(
            command_id="2",
            event_id=ID,
            type=EventType.FREEZE,
            guests=("web1",),
            notice=0.3,
            duration=0.3,
        )
    )
    event = controller.next().event
    deltas = [responder.next_but_heartbeats() for _ in range(3)]
    assert [delta.sequence for delta in deltas] == [snapshot.sequence + i for i in (1, 2, 3)]
    assert deltas[0].events == (event,)
    assert [delta.events[0].status for delta in deltas] == ["Scheduled", "Started", "Completed"]
    assert [delta.incarnations for delta in deltas] == [{"web1": i} for i in (2, 3, 4)]
    started, ended = deltas[1].events[0].started, deltas[2].events[0].ended
    assert (started, ended) == (event.not_before, pytest.approx(event.not_before + 0.3))


class Talk:
    """A connection to an agent in this process."""

    def __init__(self, reader, writer):
        self._reader, self._writer = reader, writer
        self._decoder, self._messages = Decoder(), []

    def send(self, *messages):
        self._writer.write(b"".join(encode(message) for message in messages))

    async def next(self):
        """Return the next message; None at the end."""
        while not self._messages:
            data = await self._reader.read(65536)
            if not data:
                return None
            self._messages += [decode(obj) for obj in self._decoder.feed(data)]
        return self._messages.pop(0)

    async def close(self):
        self._writer.close()
        await self._writer.wait_closed()


@pytest.fixture
def moved(short_path):
    """Run a coroutine function with an agent whose clocks go by the loop's, which it may move.

    The function gets the agent, and what connects to one of its sockets: a `Talk`.
    """

    def run(scenario):
        async def main():
            loop = asyncio.get_running_loop()
            store = Repository.open(short_path / "node.sqlite")
            agent = Agent("n1", store, wall=loop.time)
            sockets = []
            for name in ("command", "feed"):
                sockets.append(socket.socket(socket.AF_UNIX))
                sockets[-1].bind(str(short_path / name))
                sockets[-1].listen()
            stop, ready = asyncio.Event(), asyncio.Event()
            serving = asyncio.create_task(agent.serve(*sockets, stop, ready.set))
            await ready.wait()
            talks = []

            async def connect(name, role=None):
                talk = Talk(*await asyncio.open_unix_connection(short_path / name))
                talks.append(talk)
                if role:
                    talk.send(Hello(version=VERSION, role=role))
                    assert await talk.next() == Welcome(version=VERSION, node="n1")
                return talk

            try:
                await scenario(agent, connect)
            finally:
                for talk in talks:
                    await talk.close()
                stop.set()
                await serving
                store.close()

        with asyncio.Runner(loop_factory=AsyncioLoop) as runner:
            runner.run(main())

    return run


def test_heartbeats(moved):
    async def scenario(_agent, connect):
        responder = await connect("feed", "responder")
        assert isinstance(await responder.next(), Snapshot)
        assert isinstance(await responder.next(), Snapshot)
        for _ in range(3):
            move(HEARTBEAT_INTERVAL)
            assert await responder.next() == Heartbeat(sequence=0)

    moved(scenario)


def test_an_event_starts_and_ends_at_its_time_and_not_at_the_next_heartbeat(moved, monkeypatch):
    monkeypatch.setattr(agent_module, "HEARTBEAT_INTERVAL", 1000.0)

    async def scenario(_agent, connect):
        controller = await connect("command", "controller")
        controller.send(Place(command_id="1", guests=(Guest(name="web1"),)))
        assert isinstance(await controller.next(), Done)
        responder = await connect("feed", "responder")
        assert (await responder.next()).more
        assert not (await responder.next()).more
        notice = 200.0
        fields = {"event_id": ID, "type": EventType.FREEZE, "guests": ("web1",)}
        controller.send(Schedule(command_id="2", notice=notice, duration=notice, **fields))
        for status in ("Scheduled", "Started", "Completed"):
            told = await responder.next()
            assert isinstance(told, Delta), status
            assert told.events[0].status == status
            if status != "Completed":
                move(notice)

    moved(scenario)


def test_connections_are_bounded(running, peer):
    bound = agent_module.MAX_CONNECTIONS["feed"]
    peers = [peer("feed", "responder") for _ in range(bound)]
    late = peer("feed", None)
    assert late.next().code == "busy"
    assert late.next() is None
    peers[0].close()

    def place_is_free():
        with contextlib.closing(Peer(running, "feed")) as one:
            with contextlib.suppress(BrokenPipeError):
                one.send(Hello(version=VERSION, role="responder"))
            return isinstance(one.next(), Welcome)

    wait_for(place_is_free)
    assert alive(running)


def test_a_peer_that_does_not_say_hello_is_sent_away(moved, monkeypatch):
    monkeypatch.setattr(agent_module, "HELLO_TIMEOUT", 1000.0)

    async def scenario(agent, connect):
        silent = await connect("command")
        end = asyncio.create_task(silent.next())
        await until(lambda: agent._connections["command"])
        responder = await connect("feed", "responder")
        assert (await responder.next()).more
        assert not (await responder.next()).more
        move(900)
        assert isinstance(await responder.next(), Heartbeat)  # it has looked after them
        await asyncio.sleep(0.01)
        assert not end.done()
        move(200)
        assert await end is None

    moved(scenario)


def test_a_subscriber_that_does_not_read_is_dropped(running, peer):
    slow = peer("feed", "responder")
    with running.controller() as controller:
        names = [f"{i:03}" + "n" * 60 for i in range(1000)]
        controller.place([Guest(name=name) for name in names])
        # each of these is told with a thousand incarnations: some 150 kB
        for _ in range(60):
            event = controller.schedule(names, EventType.FREEZE)
            controller.cancel(event.id)
            if "dropped" in running.log("agent"):
                break
    assert "dropped" in running.log("agent")
    messages = 0
    while slow.next() is not None:
        messages += 1
    assert messages < 120
    assert alive(running)


def test_a_snapshot_larger_than_the_bound_is_sent_all_the_same(node, monkeypatch):
    """A subscriber's snapshot may wait to be read, however large; only what comes on top counts."""
    store = Repository.open(node.directory / "node.sqlite")
    names = tuple(f"{i:03}" + "n" * 60 for i in range(1000))
    with store.transaction():
        store.place([Guest(name=name) for name in names])
        for number in range(120):
            store.add(
                Event(
                    id=f"{number:08x}{ID[8:]}",
                    type=EventType.FREEZE,
                    source=EventSource.PLATFORM,
                    description="",
                    guests=names,
                    created=time.time(),
                    not_before=time.time() + 9000,
                )
            )
    store.close()
    node.start_agent()
    responder = Peer(node, "feed", "responder")
    wait_for(lambda: "has subscribed" in node.log("agent"))
    with node.controller() as controller:
        controller.place([Guest(name="one-more")])  # looks at the bound, nothing read yet
        assert len(controller.events()) == 120  # a list in parts, as large
    size = parts = 0
    while isinstance(message := responder.next_but_heartbeats(), Snapshot):
        parts += 1
        size += len(encode(message))
    assert isinstance(message, Delta)
    assert message.placed[0].guest.name == "one-more"
    assert parts > 10
    assert size > agent_module.MAX_BUFFERED
    responder.close()


def test_sigterm_is_an_orderly_end(running, peer):
    controller = peer()
    responder = peer("feed", "responder")
    assert running.terminate("agent") == 0
    assert controller.next() is None
    while responder.next() is not None:
        pass
    assert "agent n1 ends" in running.log("agent")
    # the repository is whole, and nobody holds it
    Repository.open(running.directory / "node.sqlite").close()


def test_what_fell_due_while_no_agent_ran(running):
    with running.controller() as controller:
        controller.place([Guest(name="web1")])
        event = controller.schedule(["web1"], EventType.REBOOT, notice=0.2, duration=0.2)
    running.kill("agent")
    time.sleep(0.6)
    running.start_agent()
    with running.controller() as controller:
        (ended,) = controller.events(history=True)
        assert controller.guests()[0].incarnation == 4
    assert (ended.status, ended.started) == ("Completed", event.not_before)


def test_events_of_a_list_are_typed(peer):
    controller = peer()
    controller.send(ListEvents(history=True))
    assert controller.next() == Events(events=())


def test_a_responder_may_pass_on_approvals_and_no_more(node):
    node.start_agent()
    with node.controller() as controller:
        controller.place([Guest(name="web1"), Guest(name="web2")])
        controller.schedule(["web1"], EventType.REBOOT, event_id=ID)
    responder = Peer(node, "feed", "responder")
    while (part := responder.next_but_heartbeats()).more:
        assert isinstance(part, Snapshot)
    responder.send(Approve(command_id="1", event_id=ID, guest="web2"))
    refused = responder.next_but_heartbeats()
    assert (refused.code, refused.command_id) == ("unknown-event", "1")
    approve = Approve(command_id="2", event_id=ID, guest="web1")
    responder.send(approve)
    delta, done = responder.next_but_heartbeats(), responder.next_but_heartbeats()
    assert isinstance(delta, Delta)  # first the news, then the answer
    assert delta.events[0].status == "Started"
    assert isinstance(done, Done)
    assert done.command_id == "2"
    responder.send(approve)  # the answer was lost: the same again, and nothing is done
    assert responder.next_but_heartbeats() == done
    responder.send(Write(command_id="3", guest="web1", name="boot/state", text="done"))
    delta, done = responder.next_but_heartbeats(), responder.next_but_heartbeats()
    assert delta.placed[0].written == {"boot/state": "done"}
    assert done.command_id == "3"
    # at a bounded rate, each guest for itself
    many = [Approve(command_id=f"m{i}", event_id=ID, guest="web1") for i in range(300)]
    responder.send(*many)
    answers = [responder.next_but_heartbeats() for _ in many]
    busy = [one for one in answers if isinstance(one, Failed)]
    assert {one.code for one in busy} == {"busy"}
    assert 100 < len(busy) < 200
    responder.send(Approve(command_id="other", event_id=ID, guest="web2"))
    assert responder.next_but_heartbeats().code == "unknown-event"
    responder.send(Approve(command_id="3", event_id=ID))  # in nobody's name
    refused = responder.next_but_heartbeats()
    assert (refused.code, refused.command_id) == ("bad-message", None)
    assert responder.next_but_heartbeats() is None
    responder.close()
