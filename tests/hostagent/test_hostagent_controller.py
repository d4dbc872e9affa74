import asyncio
import inspect
import socket
import threading
import time

import pytest

from hostagent.channel.frames import Decoder
from hostagent.channel.messages import VERSION, Done, Failed, Left, Welcome, decode, encode
from hostagent.channel.requests import WITHDRAWN_AT_ONCE, Placed
from hostagent.controller import AgentUnreachable, CommandRefused, Controller, SyncController
from hostagent.model import Event, EventSource, EventStatus, EventType, Guest


@pytest.fixture
def running(node):
    node.start_agent()
    return node


def test_a_call_has_its_own_signature_and_text(running):
    """What `help()` and an editor show is the verb's, on either controller."""
    with running.controller() as controller:
        assert "notice" in inspect.signature(controller.schedule).parameters
        assert controller.schedule.__doc__.startswith("Plan an event in")
    assert Controller.place.__doc__ == SyncController.place.__doc__


def test_the_walk(running):
    with running.controller() as controller:
        assert controller.node == "n1"
        controller.place([Guest(name="web1", port=3), Guest(name="web2")])
        event = controller.schedule(
            ["web1"],
            EventType.TERMINATE,
            duration=60,
            source=EventSource.USER,
            description="because",
        )
        assert event.type is EventType.TERMINATE
        assert (event.source, event.description, event.guests) == ("User", "because", ("web1",))
        assert event.not_before - event.created == 300
        assert controller.start(event.id).status is EventStatus.STARTED
        assert controller.approve(event.id).status is EventStatus.STARTED
        assert controller.complete(event.id).status is EventStatus.COMPLETED
        assert controller.events() == ()
        (ended,) = controller.events(history=True)
        assert ended.id == event.id
        other = controller.schedule(["web2"], EventType.FREEZE)
        assert controller.cancel(other.id).status is EventStatus.CANCELLED
        before = time.time()
        assert controller.advance(600) == pytest.approx(before + 600, abs=5)
        clock = controller.now()
        assert clock.clock_offset == 600
        assert clock.now == pytest.approx(before + 600, abs=5)
        assert controller.withdraw(["web2"]) == {"web2": Left(3, 0)}
        assert [one.guest for one in controller.guests()] == [Guest(name="web1", port=3)]


def test_the_walk_on_asyncios_own_loop(running):
    async def walk():
        async with await Controller.connect(running.directory / "command") as controller:
            assert controller.node == "n1"
            await controller.place([Guest(name=f"web{i}") for i in range(3)])
            # calls at the same time wait for each other
            made = await asyncio.gather(
                *(controller.schedule([f"web{i}"], EventType.REBOOT) for i in range(3))
            )
            assert [event.guests for event in made] == [("web0",), ("web1",), ("web2",)]
            with pytest.raises(CommandRefused) as caught:
                await controller.complete(made[0].id)
            assert caught.value.code == "illegal-transition"
            assert (await controller.cancel(made[0].id)).status is EventStatus.CANCELLED
            assert len(await controller.events()) == 2
            assert len(await controller.guests()) == 3
            assert (await controller.now()).clock_offset == 0
            many = [f"web{i}" for i in range(9, 9 + WITHDRAWN_AT_ONCE)]
            assert await controller.withdraw([]) == {}
            assert await controller.withdraw([*many, "web0"]) == {"web0": Left(3, 0)}

    asyncio.run(walk())


def test_a_guest_that_moves_here_comes_whole(running):
    theirs = Event(
        id="6f0a13a3-dc0d-4bbe-ab24-df710a3917e6",
        type=EventType.REDEPLOY,
        source=EventSource.PLATFORM,
        description="",
        guests=("web1",),
        created=time.time(),
        not_before=time.time() + 600,
    )
    here = Placed(guest=Guest(name="web1"), incarnation=8, edits=1)
    moved = Placed(guest=Guest(name="web1"), incarnation=7)
    with running.controller() as controller:
        controller.adopt([moved], [theirs], 0.0, "m")
        controller.adopt([moved], [theirs], 0.0, "m")
        assert controller.guests() == (here,)
        assert controller.events() == (theirs,)

    async def again():
        async with await Controller.connect(running.directory / "command") as controller:
            await controller.adopt([moved], [theirs], 0.0, "m")
            assert await controller.guests() == (here,)

    asyncio.run(again())


def test_refusals_are_typed_and_the_connection_goes_on(running):
    with running.controller() as controller:
        with pytest.raises(CommandRefused, match="not on this node: nobody") as caught:
            controller.schedule(["nobody"], EventType.REBOOT)
        assert caught.value.code == "unknown-guest"
        assert controller.guests() == ()
        with pytest.raises(CommandRefused, match=r"guests\[0\]\.name") as caught:
            controller.place([Guest(name="../../etc")])
        assert caught.value.code == "bad-message"
        assert controller.guests() == ()  # on a new connection


def test_nobody_there(short_path):
    with pytest.raises(AgentUnreachable, match="No such file"):
        SyncController.connect(short_path / "nothing")

    async def connect():
        await Controller.connect(short_path / "nothing")

    with pytest.raises(AgentUnreachable, match="No such file"):
        asyncio.run(connect())


@pytest.fixture
def impostor(short_path):
    """A socket whose owner accepts and answers as told."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(short_path / "impostor"))
    listener.listen()
    held = []

    def serve(answer):
        def run():
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                held.append(sock)
                sock.sendall(answer)

        threading.Thread(target=run, daemon=True).start()
        return short_path / "impostor"

    serve.held = held
    yield serve
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for sock in held:
        sock.close()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "no answer|timed out"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not understood"),
        (encode(Welcome(version=VERSION, node="n"))[:-1] + b"\xc1", "not understood"),
    ],
)
def test_an_agent_that_makes_no_sense(impostor, answer, why):
    path = impostor(answer)
    began = time.monotonic()
    with pytest.raises(AgentUnreachable, match=why):
        SyncController.connect(path, timeout=0.3)

    async def connect():
        await Controller.connect(path, timeout=0.3)

    with pytest.raises(AgentUnreachable, match=why):
        asyncio.run(connect())
    assert time.monotonic() - began < 30  # it waits for a bounded time


def test_an_agent_that_falls_silent(impostor):
    """The next call does not wait where the late answer to the last one would arrive."""
    path = impostor(encode(Welcome(version=VERSION, node="n")))
    with SyncController.connect(path, timeout=0.3) as controller:
        for count in (1, 2):
            with pytest.raises(AgentUnreachable):
                controller.guests()
            assert len(impostor.held) == count

    async def ask():
        async with await Controller.connect(path, timeout=0.3) as controller:
            for count in (3, 4):
                with pytest.raises(AgentUnreachable):
                    await controller.guests()
                assert len(impostor.held) == count

    asyncio.run(ask())


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_call_outlives_the_agents_restart(running, kind):
    """The command goes out to an agent that is not there; the next one applies it, once."""

    def restart():
        time.sleep(0.3)
        running.start_agent(ready=False)

    event_id = "6f0a13a3-dc0d-4bbe-ab24-df710a3917e6"
    with running.controller() as controller:
        controller.place([Guest(name="web1")])
    if kind == "plain":
        with running.controller(20) as controller:
            running.kill("agent")
            thread = threading.Thread(target=restart)
            thread.start()
            event = controller.schedule(["web1"], EventType.REBOOT, event_id=event_id)
            thread.join()
    else:

        async def schedule():
            async with await Controller.connect(running.directory / "command", 20) as controller:
                running.kill("agent")
                thread = threading.Thread(target=restart)
                thread.start()
                event = await controller.schedule(["web1"], EventType.REBOOT, event_id=event_id)
                thread.join()
                return event

        event = asyncio.run(schedule())
    assert event.id == event_id
    with running.controller() as controller:
        assert controller.events() == (event,)
        assert controller.guests()[0].incarnation == 2


def test_a_command_repeated_by_its_id(running):
    with running.controller() as controller:
        controller.place([Guest(name="web1")], command_id="p")
        controller.place([Guest(name="web1")], command_id="p")
        for _ in range(2):
            controller.advance(100, command_id="a")
        assert controller.advance(1) < time.time() + 102
        with pytest.raises(CommandRefused) as caught:
            controller.advance(200, command_id="a")
        assert caught.value.code == "command-id-reused"


def test_many_guests_with_much_to_say_go_in_several_commands(node):
    node.start_agent()
    text = "x" * 100_000
    guests = [Guest(name=f"g{i}", properties={"user_data": text}) for i in range(15)]
    with node.controller() as controller:
        controller.place(guests, command_id="many")
        assert [one.guest for one in controller.guests()] == sorted(guests, key=lambda g: g.name)
        controller.place(guests, command_id="many")  # again: done once
        assert {one.edits for one in controller.guests()} == {0}


WELCOME, BUSY = Welcome(version=VERSION, node="n"), Failed(code="busy", reason="too many")


@pytest.fixture
def forgetful(short_path):
    """The path of an agent that takes a command and is gone, then refuses a connection, and then
    answers.
    """
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(short_path / "forgetful"))
    listener.listen()

    def hear(sock):
        (heard,) = Decoder().feed(sock.recv(65536))
        return decode(heard)

    def run():
        for turn in ("gone", "busy", "done"):
            with listener.accept()[0] as sock:
                hear(sock)
                sock.sendall(encode(BUSY if turn == "busy" else WELCOME))
                if turn != "busy":
                    command = hear(sock)
                if turn == "done":
                    sock.sendall(encode(Done(command_id=command.command_id, now=1.0, sequence=7)))

    threading.Thread(target=run, daemon=True).start()
    yield short_path / "forgetful"
    listener.close()


@pytest.mark.parametrize("kind", ["plain", "asyncio"])
def test_a_refused_connection_does_not_say_that_an_earlier_command_was_refused(forgetful, kind):
    """It may have been carried out: only an answer to it says so, or none in time."""

    def place(path):
        if kind == "plain":
            with SyncController.connect(path, 20) as controller:
                return controller.place([Guest(name="a")])

        async def placed():
            async with await Controller.connect(path, 20) as controller:
                return await controller.place([Guest(name="a")])

        return asyncio.run(placed())

    assert place(forgetful) == 7
