"""Requests that wait, in this process: parked until a change or a time, or for the agent."""

import asyncio
import contextlib
import json
import os
import socket
import struct
import time

import pytest
import uvloop

from hostagent.channel.frames import Decoder
from hostagent.channel.messages import Delta, Done, Failed, Snapshot, decode
from hostagent.channel.requests import Approve, Placed
from hostagent.dialects import Dialects, Options
from hostagent.model import Event, EventSource, EventType, Guest
from hostagent.responder import approvals as approvals_module
from hostagent.responder.answers import BY_ADDRESS, host_headers
from hostagent.responder.approvals import MAX_WAITING_PER_GUEST, Approvals
from hostagent.responder.knowledge import Knowledge
from hostagent.responder.server import Limits, Responder
from tests.hostagent.daemons import answer_of, wait_for

ID = "6f0a13a3-dc0d-4bbe-ab24-df710a3917e6"
HEAD = "Host: 169.254.169.254\r\nMetadata-Flavor: Google\r\n\r\n"
PATH = "/computeMetadata/v1/instance/maintenance-event"
WAIT = f"GET {PATH}?wait_for_change=true HTTP/1.1\r\n{HEAD}".encode()
ASK = f"GET {PATH} HTTP/1.1\r\n{HEAD}".encode()


def event(**fields):
    values = {
        "id": ID,
        "type": EventType.FREEZE,
        "source": EventSource.PLATFORM,
        "description": "",
        "guests": ("web1",),
        "created": time.time(),
        "not_before": time.time(),
    }
    return Event(**(values | fields))


class World:
    def __init__(self, knowledge, port, approvals):
        self.knowledge, self.port, self.approvals = knowledge, port, approvals
        self.sent = []  # to the agent
        self.writers = []

    async def connect(self, data=b"", source="127.0.0.1"):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(source, 0)
        )
        self.writers.append(writer)
        writer.write(data)
        return reader, writer

    def change(self, **fields):
        number = self.knowledge.sequence + 1
        self.knowledge.apply(Delta(sequence=number, **fields), time.monotonic())

    def start(self, number=2, **fields):
        self.change(events=(event(**fields),), incarnations={"web1": number})


async def answer(reader):
    status, headers, _ = answer_of(await reader.readuntil(b"\r\n\r\n"))
    return status, headers, await reader.readexactly(int(headers["Content-Length"]))


@pytest.fixture
def run():
    def run(scenario, limits=None, **options):
        async def main():
            knowledge = Knowledge(stale_after=1000.0)
            guests = tuple(
                Placed(guest=Guest(name=f"web{i}", address=f"127.0.0.{i}"), incarnation=1)
                for i in (1, 2)
            )
            knowledge.apply(
                Snapshot(sequence=1, node="n1", clock_offset=0.0, guests=guests), time.monotonic()
            )
            listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
            world = World(knowledge, listener.getsockname()[1], Approvals())
            world.approvals.connected(world.sent.append)
            world.responder = Responder(
                knowledge,
                identity=BY_ADDRESS,
                allowed_hosts=host_headers([], [listener]),
                limits=limits,
                dialects=Dialects(Options(azure_rate=0, **options)),
                approvals=world.approvals,
            )
            stop, heard = asyncio.Event(), asyncio.Event()
            heard.set()
            serving = asyncio.create_task(world.responder.serve([listener], stop, heard))
            try:
                async with asyncio.timeout(30):
                    await scenario(world)
            finally:
                for writer in world.writers:
                    writer.close()
                stop.set()
                await serving
                await asyncio.sleep(0.05)
            assert not world.responder._held
            assert not world.responder.waiting._parked
            assert not world.approvals._waiting
            assert not world.approvals._of_guest

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())

    return run


async def parked(world, count):
    for _ in range(500):
        if sum(map(len, world.responder.waiting._parked.values())) == count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not parked")


def test_parked_until_a_change_and_on_the_same_connection_again(run):
    async def scenario(world):
        reader, writer = await world.connect(WAIT)
        other, _ = await world.connect(WAIT, "127.0.0.2")
        await parked(world, 2)
        world.start()
        status, headers, body = await answer(reader)
        assert (status, body) == (200, b"MIGRATE_ON_HOST_MAINTENANCE")
        assert headers["Metadata-Flavor"] == "Google"
        etag = headers["ETag"]
        await parked(world, 1)  # the neighbour's is not touched
        writer.write(ASK)
        assert (await answer(reader))[1]["ETag"] == etag
        writer.write(WAIT.replace(b"=true", b"=true&last_etag=" + etag.encode()))
        await parked(world, 2)
        world.change(events=(event(status="Completed", ended=1.0),), incarnations={"web1": 3})
        assert (await answer(reader))[2] == b"NONE"
        assert other.at_eof() is False

    run(scenario)


def test_parked_until_a_time(run):
    async def scenario(world):
        began = time.monotonic()
        reader, _ = await world.connect(WAIT.replace(b"true", b"true&timeout_sec=1"))
        assert (await answer(reader))[2] == b"NONE"
        assert time.monotonic() - began > 0.95
        # the notice begins, 60 s ahead, without a word from the agent
        world.start(not_before=time.time() + 60.4)
        reader, _ = await world.connect(WAIT)
        # LONGEST_TIMER, for which nobody waits here, would be the next look
        assert (await answer(reader))[2] == b"MIGRATE_ON_HOST_MAINTENANCE"

    run(scenario)


def test_a_clock_that_is_moved_ends_what_it_passes(run):
    async def scenario(world):
        early, _ = await world.connect(WAIT.replace(b"true", b"true&timeout_sec=100"))
        late, _ = await world.connect(WAIT.replace(b"true", b"true&timeout_sec=1000"))
        await parked(world, 2)
        world.change(clock_offset=500.0)
        assert (await answer(early))[0] == 200
        await parked(world, 1)
        world.change(clock_offset=1500.0)
        assert (await answer(late))[0] == 200

    run(scenario)


def test_a_guest_that_hangs_up_is_forgotten(run):
    async def scenario(world):
        _, writer = await world.connect(WAIT)
        await parked(world, 1)
        writer.close()
        await parked(world, 0)
        # one that has been withdrawn, and one whose address is another's now
        reader, _ = await world.connect(WAIT)
        await parked(world, 1)
        world.change(withdrawn=("web1",))
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        await parked(world, 0)

    run(scenario)


def test_what_is_sent_while_it_waits_is_answered_in_order(run):
    async def scenario(world):
        reader, writer = await world.connect(WAIT + ASK + ASK)
        await parked(world, 1)
        writer.write(ASK * 3)
        await asyncio.sleep(0.1)
        world.start()
        for _ in range(6):
            assert (await answer(reader))[2] == b"MIGRATE_ON_HOST_MAINTENANCE"

    run(scenario)


def test_waiting_is_bounded_for_each_guest(run):
    async def scenario(world):
        for _ in range(3):
            await world.connect(WAIT)
        await parked(world, 3)
        reader, _ = await world.connect(WAIT)
        assert (await answer(reader))[0] == 503
        reader, _ = await world.connect(ASK)  # what does not wait is answered all the same
        assert (await answer(reader))[0] == 200
        await world.connect(WAIT, "127.0.0.2")
        await parked(world, 4)

    run(scenario, Limits(held_per_guest=3))


# Approvals


def post(*ids):
    body = json.dumps({"StartRequests": [{"EventId": one} for one in ids]}).encode()
    return (
        b"POST /metadata/scheduledevents?api-version=2020-07-01 HTTP/1.1\r\n"
        b"Host: 169.254.169.254\r\nMetadata: true\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )


def sent(world):
    return [decode(one) for frame in world.sent for one in Decoder().feed(frame)]


def future(number=6):
    return event(id=f"{number}{ID[1:]}", not_before=time.time() + 900)


def test_an_approval_is_answered_when_the_agent_has_stored_it(run):
    async def scenario(world):
        world.change(events=(future(6), future(7)), incarnations={"web1": 2})
        reader, _ = await world.connect(post(future(7).id, ID))
        wait = asyncio.create_task(answer(reader))
        while len(sent(world)) < 2:
            await asyncio.sleep(0.01)
        first, second = sent(world)
        assert isinstance(first, Approve)
        assert [(one.guest, one.event_id) for one in (first, second)] == [
            ("web1", ID),
            ("web1", future(7).id),
        ]
        world.approvals.answered(Done(command_id=second.command_id, now=0.0))
        world.approvals.answered(Done(command_id=second.command_id, now=0.0))
        await asyncio.sleep(0.05)
        assert not wait.done()
        # the agent goes away and comes back: what it has not answered is sent again
        world.approvals.disconnected()
        world.sent.clear()
        world.approvals.connected(world.sent.append)
        assert sent(world) == [first]
        world.approvals.answered(Done(command_id=first.command_id, now=0.0))
        assert (await wait)[::2] == (200, b"")

    run(scenario)


@pytest.mark.parametrize(("code", "status"), [("unknown-event", 400), ("busy", 500)])
def test_a_refused_approval(run, code, status):
    async def scenario(world):
        world.change(events=(future(),))
        reader, _ = await world.connect(post(ID))
        while not world.sent:
            await asyncio.sleep(0.01)
        (one,) = sent(world)
        world.approvals.answered(Failed(code=code, reason="", command_id=one.command_id))
        assert (await answer(reader))[0] == status

    run(scenario)


def test_an_agent_that_does_not_answer(run, monkeypatch):
    monkeypatch.setattr(approvals_module, "TIMEOUT", 0.2)

    async def scenario(world):
        world.change(events=(future(),))
        reader, _ = await world.connect(post(ID))
        assert (await answer(reader))[0] == 500
        (one,) = sent(world)
        world.approvals.answered(Done(command_id=one.command_id, now=0.0))  # too late
        _, writer = await world.connect(post(ID))
        while len(world.sent) < 2:
            await asyncio.sleep(0.01)
        writer.close()  # it does not wait for the answer
        await asyncio.sleep(0.4)

    run(scenario)


def test_approvals_under_way_are_bounded_for_each_guest(run):
    async def scenario(world):
        results = []
        full = tuple(f"{i:08x}{ID[8:]}" for i in range(MAX_WAITING_PER_GUEST))
        world.approvals.submit("web1", full, results.append)
        world.approvals.submit("web1", (ID,), results.append)
        assert results == ["failed"]
        world.approvals.submit("web2", (ID,), results.append)
        for one in sent(world):
            world.approvals.answered(Done(command_id=one.command_id, now=0.0))
        assert results == ["failed", "done", "done"]

    run(scenario)


def test_the_whole_way(full_node):
    """A guest's POST, through responder and agent, and the next document."""
    node = full_node

    def ask(source="127.0.0.1", data=b""):
        data = data or post(ID).replace(b"POST", b"GET")
        with node.connect(source) as sock:
            sock.sendall(data.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
            return answer_of(answer)

    with node.controller() as controller:
        mine = controller.schedule(["web1"], EventType.REBOOT)
        wait_for(lambda: mine.id.encode() in ask()[2])
        before = json.loads(ask()[2])
        assert ask("127.0.0.2", post(mine.id))[0] == 400  # it does not exist for others
        assert controller.events()[0].status == "Scheduled"
        assert ask(data=post(mine.id))[::2] == (200, b"")
        after = json.loads(ask()[2])  # at once: the answer came after the news
        assert after["Events"][0]["EventStatus"] == "Started"
        assert after["Events"][0]["NotBefore"] == ""
        assert after["DocumentIncarnation"] == before["DocumentIncarnation"] + 1
        assert ask(data=post(mine.id))[0] in (200, 429)
        assert controller.events()[0].status == "Started"


# The hop limit


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may watch the wire")
def test_tokens_leave_with_the_hop_limit_and_nothing_else_does(run):
    async def scenario(world):
        seen = []
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as wire:
            wire.bind(("lo", 0x0800))
            put = (
                b"PUT /latest/api/token HTTP/1.1\r\nHost: 169.254.169.254\r\n"
                b"X-aws-ec2-metadata-token-ttl-seconds: 60\r\n"
            )
            reader, writer = await world.connect(put + b"\r\n")
            token = (await answer(reader))[2].decode()
            get = (
                "GET /latest/meta-data/mac HTTP/1.1\r\nHost: 169.254.169.254\r\n"
                f"X-aws-ec2-metadata-token: {token}\r\n\r\n"
            )
            reader, _ = await world.connect(get.encode())
            assert (await answer(reader))[0] == 200
            # On one connection with another cloud's answer, which goes before.
            info = b"GET /metadata/v1/InstanceInfo HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n"
            reader, writer = await world.connect(info)
            assert (await answer(reader))[0] == 200
            writer.write(put + b"\r\n")
            assert (await answer(reader))[0] == 200
            wire.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    frame, address = wire.recvfrom(65536)
                    (port,) = struct.unpack("!H", frame[34:36])
                    if port == world.port and address[2] == socket.PACKET_HOST:
                        payload = frame[34 + (frame[46] >> 4) * 4 :]
                        if payload.startswith(b"HTTP/1.1 200"):
                            seen.append(frame[22])
        assert seen == [3, 64, 64, 3]

    run(scenario, ec2_hop_limit=3)
