"""What was asked before is answered as if it had never been asked before."""

import asyncio
import contextlib
import os
import re
import types

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hostagent.channel.messages import Delta, Heartbeat, Snapshot
from hostagent.channel.requests import Placed
from hostagent.dialects import Dialects, Options
from hostagent.http import RequestReader
from hostagent.model import Event, EventSource, EventStatus, EventType, Guest
from hostagent.responder.answers import BY_MARK, Answers, Pending, host_headers
from hostagent.responder.connection import Connection
from hostagent.responder.knowledge import Knowledge
from hostagent.responder.reply_cache import MAX_KEPT
from hostagent.responder.server import Limits, Responder
from tests.thorough import cases

START = 1_800_000_000.25
STALE_AFTER = 4.0
ID = "6f0a13a3-dc0d-4bbe-ab24-df710a3917e{}"


def get(path, *headers, method="GET"):
    lines = [f"{method} {path} HTTP/1.1", "Host: 169.254.169.254", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


REQUESTS = (
    get("/metadata/v1/InstanceInfo"),
    get("/metadata/v1/InstanceInfo", "Connection: close"),
    get("/metadata/v1/InstanceInfo", method="HEAD"),
    get("/metadata/scheduledevents?api-version=2020-07-01", "Metadata: true"),
    get("/latest/meta-data/spot/instance-action"),
    get("/latest/meta-data/events/maintenance/scheduled"),
    get("/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 9", method="PUT"),
    get("/computeMetadata/v1/instance/maintenance-event", "Metadata-Flavor: Google"),
    get("/nowhere"),
    get("/metadata/v1/InstanceInfo").replace(b"169.254.169.254", b"elsewhere"),
)
CALLERS = (1, 2, 3)  # the third is no guest at first


class World:
    """A node's knowledge, a clock, and what is answered."""

    def __init__(self, azure_rate=0.0, record=None):
        self.time = START  # the loop's
        self.set_by = 0.0  # how far the machine's clock has been set
        self.knowledge = Knowledge(STALE_AFTER)
        placed = tuple(
            Placed(guest=Guest(name=f"web{i}", port=i), incarnation=1, edits=0) for i in (1, 2)
        )
        self.tell(Snapshot(sequence=1, node="n1", clock_offset=0.0, guests=placed))
        self.options = Options(azure_rate=azure_rate, ec2_secret=b"s" * 32)
        self.answers = self.fresh_answers(record)
        self.knowledge.watch = lambda _names: self.answers.replies.forget()

    def fresh_answers(self, record=None):
        return Answers(
            self.knowledge,
            Dialects(self.options),
            look_up=BY_MARK[1],
            allowed_hosts=host_headers([], []),
            record=record,
            wall=lambda: self.time + self.set_by,
            clock=lambda: self.time,
        )

    def tell(self, message):
        self.knowledge.apply(message, self.time)

    def change(self, **fields):
        self.tell(Delta(sequence=self.knowledge.sequence + 1, **fields))

    def event(self, number, guest, kind, lead, duration, status):
        now = self.time + self.set_by + self.knowledge.clock_offset
        happened = {
            EventStatus.SCHEDULED: {},
            EventStatus.STARTED: {"started": now},
            EventStatus.CANCELLED: {"ended": now},
        }[status]
        self.change(
            events=(
                Event(
                    id=ID.format(number),
                    type=kind,
                    source=EventSource.PLATFORM,
                    description="",
                    guests=(f"web{guest}",),
                    created=now,
                    not_before=now + lead,
                    duration=duration,
                    status=status,
                    **happened,
                ),
            ),
            incarnations={f"web{guest}": self.knowledge.sequence + 2},
        )

    def exchange(self, one, other):
        """Two guests exchange their ports, or one takes another."""
        placed = (
            Placed(
                guest=Guest(name="web1", port=one), incarnation=self.knowledge.sequence, edits=1
            ),
            Placed(
                guest=Guest(name="web2", port=other), incarnation=self.knowledge.sequence, edits=1
            ),
        )
        self.change(placed=placed)

    def made(self, caller, data):
        """The answer as it is made again."""
        reply = _asked(self.fresh_answers(), caller, data)
        return reply if isinstance(reply, Pending) else reply.frame

    def told(self, caller, data):
        """The answer as a connection gives it: kept, or made and kept."""
        kept = self.answers.replies.get(caller, data)
        if kept is not None:
            assert kept.count == 1
            self.answers.replies.used(kept)
            return kept.frame
        reply = _asked(self.answers, caller, data)
        if isinstance(reply, Pending):
            return reply
        self.answers.replies.keep(caller, data, [reply.made], reply.keep)
        return reply.frame


def _asked(answers, caller, data):
    reader = RequestReader()
    reader.feed(data)
    return answers.reply(caller, reader.next())


@pytest.fixture
def world():
    return World()


kinds = st.sampled_from(list(EventType))
statuses = st.sampled_from([EventStatus.SCHEDULED, EventStatus.STARTED, EventStatus.CANCELLED])
leads = st.sampled_from([0.4, 1.0, 29.9, 60.0, 120.5, 300.0, 301.0, 900.0])
steps = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from(CALLERS), st.sampled_from(REQUESTS)),
    st.tuples(st.just("ask"), st.just(1), st.sampled_from(REQUESTS[:2])),
    st.tuples(st.just("ask"), st.just(1), st.just(REQUESTS[0])),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.1, 0.5, 0.75, 1.0, 3.0])),
    st.tuples(st.just("back"), st.sampled_from([0.1, 1.0])),
    st.tuples(st.just("clock"), st.sampled_from([1.0, 59.6, 241.0, 870.0])),
    st.tuples(
        st.just("event"),
        st.integers(0, 3),
        st.integers(1, 2),
        kinds,
        leads,
        st.sampled_from([None, 0.5, 60.0]),
        statuses,
    ),
    st.tuples(st.just("exchange"), st.sampled_from([(1, 2), (2, 1), (3, 1), (1, 3)])),
    st.tuples(st.just("beat")),
)


@settings(max_examples=cases(75, 300), deadline=None)
@given(st.lists(steps, min_size=10, max_size=40))
@example([("ask", 1, REQUESTS[0]), ("wait", 0.75), ("ask", 1, REQUESTS[0])])
def test_remembered_or_not_every_guest_is_told_the_same(script):
    world = World()
    for step in script:
        match step:
            case ("ask", caller, data):
                for _ in range(2):
                    told, made = world.told(caller, data), world.made(caller, data)
                    if b"api/token" in data and told != made:
                        assert told[:15] == made[:15]  # a token has its own time in it
                    elif not isinstance(made, Pending):
                        assert told == made
            case ("wait", seconds):
                world.time += seconds
            case ("back", seconds):
                world.set_by -= seconds
                world.time += 1.0  # a clock that is set may be noticed a second later
            case ("clock", seconds):
                world.change(clock_offset=world.knowledge.clock_offset + seconds)
            case ("event", *fields):
                world.event(*fields)
            case ("exchange", ports):
                world.exchange(*ports)
            case _:
                world.tell(Heartbeat(sequence=world.knowledge.sequence))


def test_what_was_asked_before_is_not_made_again(world, monkeypatch):
    world.change(clock_offset=3600.0)
    first = world.told(1, REQUESTS[0])
    monkeypatch.setattr(world.answers, "reply", None)
    assert world.told(1, REQUESTS[0]) == first
    world.time += 1.0
    later = world.told(1, REQUESTS[0])
    assert later != first  # its date
    assert re.sub(rb"Date: .*", b"", later) == re.sub(rb"Date: .*", b"", first)
    assert world.answers.replies.get(2, REQUESTS[0]) is None


def test_a_rate_is_counted_for_every_request():
    world = World(azure_rate=2.0)
    events = REQUESTS[3]
    statuses = [world.told(1, events)[9:12] for _ in range(4)]
    assert statuses == [b"200", b"200", b"429", b"429"]


def test_every_answer_is_noted(world):
    noted = []
    world.answers = world.fresh_answers(noted.append)
    for _ in range(3):
        world.told(1, REQUESTS[0])
    assert [(one.guest, one.poll.status) for one in noted] == [("web1", 200)] * 3


def test_silence_of_the_agent_ends_what_is_remembered(world):
    world.time = START + 0.5  # a whole second would end with it
    assert world.told(1, REQUESTS[0])[9:12] == b"200"
    world.time = START + STALE_AFTER - 0.125  # of the same second as the end
    assert world.told(1, REQUESTS[0])[9:12] == b"200"
    world.time = START + STALE_AFTER
    assert world.told(1, REQUESTS[0])[9:12] == b"200"
    world.time += 0.001
    assert world.told(1, REQUESTS[0])[9:12] == b"503"


def test_what_is_remembered_is_bounded(world):
    for number in range(MAX_KEPT + 10):
        world.told(1, get("/metadata/v1/InstanceInfo", f"User-Agent: {number}"))
    assert len(world.answers.replies._kept) <= MAX_KEPT
    long = get("/metadata/v1/InstanceInfo", "User-Agent: " + "x" * 3000)
    world.told(1, long)
    assert world.answers.replies.get(1, long) is None


class Transport:
    """Takes what is written, here or past it; the guest reads it at once."""

    def __init__(self, reader):
        self.reader = reader
        self.sent = b""
        self.ended = False

    def write(self, data):
        self.drain()
        self.sent += data

    def drain(self):
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.reader, 65536):
                self.sent += data

    def get_write_buffer_size(self):
        return 0

    def set_write_buffer_limits(self, high):
        pass

    def pause_reading(self):
        pass

    resume_reading = pause_reading

    def write_eof(self):
        self.ended = True

    close = abort = write_eof

    def is_closing(self):
        return self.ended

    def get_extra_info(self, _name):
        return types.SimpleNamespace(family=None)


async def _hear(knowledge, pieces, requests, memory):
    responder = Responder(
        knowledge,
        limits=Limits(requests=requests),
        wall=lambda: START,
        dialects=Dialects(Options(azure_rate=0, ec2_secret=b"s" * 32)),
    )
    if not memory:
        responder.answers.replies.keep = lambda *_: None
    heard = []
    for _ in range(2):  # the second connection finds what the first has left
        reader, writer = os.pipe2(os.O_NONBLOCK)
        connection = Connection(
            responder, 1, RequestReader(), writer, unsent=b"", last=False, served=0
        )
        transport = Transport(reader)
        connection.connection_made(transport)
        await asyncio.sleep(0)
        for piece in pieces:
            if transport.ended:
                break
            connection.data_received(piece)
            for _ in range(4):
                await asyncio.sleep(0)  # the rest of a pipeline is answered in further turns
            transport.drain()
        os.close(reader)
        os.close(writer)
        heard.append((transport.sent, transport.ended))
        connection.connection_lost(None)
    responder.waiting.close()
    return heard


streams = st.lists(
    st.one_of(
        st.sampled_from([REQUESTS[0], REQUESTS[0], REQUESTS[0] * 3, REQUESTS[0] * 20, *REQUESTS]),
        st.sampled_from([b"\r\n", b"\r\n" + REQUESTS[0], REQUESTS[0] + b"\r\n", b"nonsense\r\n"]),
        st.sampled_from([b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"]),
        st.integers(1, 60).map(lambda length: REQUESTS[0][:length]),
        st.integers(1, 60).map(lambda length: REQUESTS[0][length:]),
    ),
    max_size=8,
)


@settings(max_examples=cases(40, 150), deadline=None)
@given(streams, st.sampled_from([4, 20, 1000]))
def test_a_connection_says_the_same_with_memory_and_without(pieces, requests):
    world = World()

    async def both():
        with_memory = await _hear(world.knowledge, pieces, requests, True)
        assert with_memory == await _hear(world.knowledge, pieces, requests, False)

    world.knowledge.stale_after = 1e12  # this machine's clock is not START
    asyncio.run(both())


def test_a_connection_that_repeats_itself_is_told_of_a_change_at_once():
    world = World()
    world.knowledge.stale_after = 1e12  # this machine's clock is not START
    made = []

    async def repeat():
        responder = Responder(
            world.knowledge,
            wall=lambda: START,
            dialects=Dialects(Options(azure_rate=0, ec2_secret=b"s" * 32)),
        )
        reply = responder.answers.reply
        responder.answers.reply = lambda *args, **more: made.append(args) or reply(*args, **more)
        reader, writer = os.pipe2(os.O_NONBLOCK)
        connection = Connection(
            responder, 1, RequestReader(), writer, unsent=b"", last=False, served=0
        )
        transport = Transport(reader)
        connection.connection_made(transport)
        await asyncio.sleep(0)
        for _ in range(5):
            connection.data_received(REQUESTS[0])
        assert len(made) == 1
        world.event(1, 1, EventType.REBOOT, 60.0, 60.0, EventStatus.SCHEDULED)
        connection.data_received(REQUESTS[0])
        assert len(made) == 2
        transport.drain()
        told = transport.sent.split(b"HTTP/1.1 200 OK")[1:]
        assert [b"Reboot" in one for one in told] == [False] * 5 + [True]
        connection.connection_lost(None)
        responder.waiting.close()
        os.close(reader)
        os.close(writer)

    asyncio.run(repeat())


@pytest.mark.parametrize("offset", [0.0, 3600.0])
@pytest.mark.parametrize("data", REQUESTS[:2])
def test_a_moment_within_the_second_ends_what_is_remembered(world, offset, data):
    world.change(clock_offset=offset)
    world.event(1, 1, EventType.REBOOT, 300.4, 60.0, EventStatus.SCHEDULED)  # told from 0.4 s on
    for wait, told in ((0.0, False), (0.3, False), (0.2, True)):
        world.time += wait
        assert int(world.time) == int(START)
        for _ in range(2):
            assert (b"Reboot" in world.told(1, data)) is told
