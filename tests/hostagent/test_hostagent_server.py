"""The responder's server, in this process, with bounds small enough to be reached."""

import asyncio
import contextlib
import os
import resource
import socket
import struct
import time
from math import inf

import pytest

from hostagent.channel.messages import Delta, Snapshot
from hostagent.channel.requests import Placed
from hostagent.http import MAX_HEAD, RequestReader
from hostagent.model import Event, EventSource, EventType, Guest
from hostagent.responder import connection as connection_module
from hostagent.responder import server as server_module
from hostagent.responder.answers import BY_ADDRESS, METADATA_NAMES, host_headers
from hostagent.responder.connection import PIPELINE_BATCH, Connection
from hostagent.responder.knowledge import Knowledge
from hostagent.responder.server import Limits, Responder
from hostagent.sockets import listen_tcp
from tests.hostagent.clock import AsyncioLoop, UvLoop, move, until
from tests.hostagent.daemons import answer_of

INFO = b"GET /metadata/v1/InstanceInfo HTTP/1.1\r\nHost: 169.254.169.254\r\n"
PLAIN = b'{"ID":"_web1","UD":"0","FD":"0"}'
# Times that pass only if a test moves the clock, however busy the machine is.
SMALL = Limits(request_timeout=1000.0, idle_timeout=5000.0, held_per_guest=3, held=5, requests=4)
SWEEP = 0.01

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=[UvLoop, AsyncioLoop], ids=["uvloop", "asyncio"])
def run(request, monkeypatch):
    """Run a coroutine function against a responder; the function gets a `World`."""
    monkeypatch.setattr(connection_module, "LINGER", 0.3)
    monkeypatch.setattr(server_module, "SWEEP_INTERVAL", SWEEP)

    def run(scenario, limits=SMALL):
        async def main():
            knowledge = Knowledge(stale_after=1000.0)
            guests = (
                Guest(name="web1", address="127.0.0.1"),
                Guest(name="web2", address="127.0.0.2"),
            )
            knowledge.apply(
                Snapshot(
                    sequence=1,
                    node="n1",
                    clock_offset=0.0,
                    guests=tuple(Placed(guest=guest, incarnation=1) for guest in guests),
                ),
                time.monotonic(),
            )
            listener = socket.create_server(("127.0.0.1", 0))
            world = World(listener, knowledge)
            responder = world.responder = Responder(
                knowledge,
                identity=BY_ADDRESS,
                allowed_hosts=host_headers([], [listener]),
                limits=limits,
                record=world.accesses.append,
            )
            stop, heard, ready = asyncio.Event(), asyncio.Event(), asyncio.Event()
            heard.set()
            serving = asyncio.create_task(responder.serve([listener], stop, heard, ready.set))
            await ready.wait()
            try:
                await scenario(world)
            finally:
                for writer in world.writers:
                    writer.close()
                stop.set()
                await serving
            await until(lambda: not responder._held)
            assert not responder._held_by

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main())

    return run


class World:
    def __init__(self, listener, knowledge):
        self.listener = listener
        self.port = listener.getsockname()[1]
        self.knowledge = knowledge
        self.accesses = []
        self.writers = []

    async def connect(self, source="127.0.0.1"):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(source, 0)
        )
        self.writers.append(writer)
        return reader, writer

    async def send(self, data, source="127.0.0.1"):
        """Send it on a new connection, and give everything until the responder closes."""
        reader, writer = await self.connect(source)
        writer.write(data)
        return await reader.read()


async def one_answer(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    status, headers, _ = answer_of(head)
    return status, headers, await reader.readexactly(int(headers["Content-Length"]))


def test_one_request_one_connection(run):
    async def scenario(world):
        data = await world.send(INFO + b"Connection: close\r\n\r\n")
        status, headers, body = answer_of(data)
        assert (status, body) == (200, PLAIN)
        assert headers["Connection"] == "close"
        assert headers["Server"] == "hostagent"
        assert set(headers) == {"Server", "Date", "Content-Type", "Content-Length", "Connection"}
        ((caller, guest, poll),) = world.accesses
        assert (caller, guest) == ("127.0.0.1", "web1")
        assert (poll.status, poll.method, poll.target) == (200, "GET", "/metadata/v1/InstanceInfo")

    run(scenario)


def test_one_guests_rush_does_not_hold_up_another(run, monkeypatch):
    """A hundred connections of one guest wait at once: the next one, another's, is served soon.

    Those beyond what may wait for one guest are reset; all others are answered.
    """
    monkeypatch.setattr(server_module, "WAITING_PER_GUEST", 50)

    def asking(world, source):
        made = socket.create_connection(("127.0.0.1", world.port), source_address=(source, 0))
        made.sendall(INFO + b"Connection: close\r\n\r\n")
        return made

    def said(made):
        made.settimeout(20)
        try:
            return made.recv(4096)
        except ConnectionError:
            return b""

    async def scenario(world):
        rush = [asking(world, "127.0.0.1") for _ in range(100)]  # while the loop stands
        other = asking(world, "127.0.0.2")
        assert answer_of(await asyncio.to_thread(said, other))[2] == PLAIN.replace(b"web1", b"web2")
        answers = [await asyncio.to_thread(said, one) for one in rush]
        answered = sum(PLAIN in one for one in answers)
        assert 80 <= answered < 100
        assert answers.count(b"") == 100 - answered
        callers = [caller for caller, *_ in world.accesses]
        assert callers.index("127.0.0.2") <= 2 * server_module.SHARE
        for one in (*rush, other):
            one.close()

    run(scenario)


def test_each_guest_gets_its_own(run):
    async def scenario(world):
        data = await world.send(INFO + b"Connection: close\r\n\r\n", "127.0.0.2")
        assert answer_of(data)[2] == PLAIN.replace(b"web1", b"web2")
        data = await world.send(INFO + b"Connection: close\r\n\r\n", "127.0.0.3")
        assert answer_of(data)[0] == 403
        assert [access.guest for access in world.accesses] == ["web2", None]

    run(scenario)


def test_keep_alive(run):
    async def scenario(world):
        reader, writer = await world.connect()
        for _ in range(3):
            writer.write(INFO + b"\r\n")
            status, headers, body = await one_answer(reader)
            assert (status, body) == (200, PLAIN)
            assert "Connection" not in headers
        writer.write(INFO + b"Connection: close\r\n\r\n")
        assert (await one_answer(reader))[1]["Connection"] == "close"
        assert await reader.read() == b""

    run(scenario)


def test_ec2_ends_every_connection(run):
    """A client that keeps connections alive has none left open after EC2's answer, kept or new."""

    async def scenario(world):
        paths = ("/latest/meta-data/mac", "/latest/meta-data/else", "/latest/meta-data/mac")
        for path in paths:
            reader, writer = await world.connect()
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n".encode())
            status, headers, _ = await one_answer(reader)
            assert (status, headers["Connection"]) == (404 if "else" in path else 200, "close")
            assert await reader.read() == b""
            writer.close()
        assert world.responder.held == 0

    run(scenario)


def test_http_1_0(run):
    async def scenario(world):
        head = b"GET /metadata/v1/InstanceInfo HTTP/1.0\r\n"
        status, headers, body = answer_of(await world.send(head + b"\r\n"))
        assert (status, headers["Connection"], body) == (200, "close", PLAIN)
        reader, writer = await world.connect()
        for _ in range(2):
            writer.write(head + b"Connection: keep-alive\r\n\r\n")
            assert (await one_answer(reader))[1]["Connection"] == "keep-alive"

    run(scenario)


def test_a_request_in_single_bytes(run):
    async def scenario(world):
        reader, writer = await world.connect()
        for i in range(0, len(INFO), 7):
            writer.write(INFO[i : i + 7])
            await asyncio.sleep(0.001)
        writer.write(b"\r\n")
        assert (await one_answer(reader))[2] == PLAIN

    run(scenario)


def test_pipelining_more_than_one_batch(run):
    async def scenario(world):
        count = 3 * PIPELINE_BATCH + 1
        data = await world.send(
            (INFO + b"\r\n") * (count - 1) + INFO + b"Connection: close\r\n\r\n"
        )
        assert data.count(b"HTTP/1.1 200 OK") == data.count(PLAIN) == count

    run(scenario, Limits(held_per_guest=3))


def test_pipelined_and_half_closed(run):
    async def scenario(world):
        reader, writer = await world.connect()
        writer.write((INFO + b"\r\n") * 40)
        writer.write_eof()
        assert (await reader.read()).count(PLAIN) == 40

    run(scenario, Limits(held_per_guest=3))


def test_head(run):
    async def scenario(world):
        data = await world.send(INFO.replace(b"GET", b"HEAD") + b"Connection: close\r\n\r\n")
        status, headers, body = answer_of(data)
        assert (status, headers["Content-Length"], body) == (200, str(len(PLAIN)), b"")

    run(scenario)


def test_a_body_is_waited_for_and_continue_is_said(run):
    async def scenario(world):
        reader, writer = await world.connect()
        writer.write(
            INFO.replace(b"GET", b"POST") + b"Content-Length: 6\r\nExpect: 100-continue\r\n\r\n"
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        await asyncio.sleep(0.05)
        assert world.accesses == []
        writer.write(b"def" + INFO + b"\r\n")
        assert (await one_answer(reader))[0] == 405
        assert (await one_answer(reader))[2] == PLAIN  # the body was not taken for a request

    run(scenario)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\n\r\n", 505),
        (INFO + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (INFO + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n\r\n", 400),
        (INFO + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (INFO + b"X: " + b"y" * MAX_HEAD, 431),
        (INFO.replace(b"169.254.169.254", b"evil.example") + b"\r\n", 421),
        (INFO + b"X-Forwarded-For: 1.2.3.4\r\n\r\n", 400),
        (b"GET /else HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n", 404),
        (INFO.replace(b"GET", b"PUT") + b"\r\n", 405),
    ],
)
def test_errors(run, data, status):
    async def scenario(world):
        reader, writer = await world.connect()
        writer.write(data)
        assert (await one_answer(reader))[0] == status
        # the neighbour does not notice
        other = await world.send(INFO + b"Connection: close\r\n\r\n", "127.0.0.2")
        assert answer_of(other)[0] == 200

    run(scenario)


@pytest.mark.parametrize(
    ("path", "server"),
    [
        ("/metadata/instance", "IMDS/150.870.65.1103"),
        ("/latest/meta-data/", "EC2ws"),
        ("/computeMetadata/v1/", "Metadata Server for VM"),
        ("/metadata/v1/maintenance", "hostagent"),
    ],
)
def test_errors_are_in_the_clouds_words(run, path, server):
    async def scenario(world):
        head = f"GET {path} HTTP/1.1\r\n".encode()
        for rest, status in (
            (b"\r\n", 400),
            (b"Host: evil.example\r\nConnection: close\r\n\r\n", 421),
            (b"Host: 169.254.169.254\r\nX: " + b"y" * MAX_HEAD, 431),
            (b"Host: 169.254.169.254\r\nContent-Length: 99999\r\n\r\n", 413),
        ):
            told, headers, _ = answer_of(await world.send(head + rest))
            assert (told, headers["Server"]) == (status, server)
            assert ("Metadata-Flavor" in headers) == ("compute" in path)

    run(scenario)


def test_after_a_bad_request_nothing_more_is_answered(run):
    async def scenario(world):
        data = await world.send(INFO + b"\r\nBAD\r\n" + INFO + b"\r\n")
        assert data.count(b"HTTP/1.1") == 2
        assert data.count(PLAIN) == 1
        assert b"Connection: close" in data
        assert [access.poll.status for access in world.accesses] == [200, 400]

    run(scenario)


def test_the_error_arrives_even_if_the_guest_goes_on_sending(run):
    """Closing with unread input would send a reset, which may overtake the answer."""

    async def scenario(world):
        reader, writer = await world.connect()
        writer.write(b"GET / HTTP/9.9\r\n\r\n")
        for _ in range(10):
            writer.write(b"x" * 60000)
            await asyncio.sleep(0.005)
        assert (await one_answer(reader))[0] == 505

    run(scenario)


async def status_for_host(world, host):
    data = await world.send(
        f"GET /metadata/v1/maintenance HTTP/1.1\r\nHost: {host}\r\n"
        "Connection: close\r\n\r\n".encode()
    )
    return answer_of(data)[0]


def test_hosts_of_a_responder_that_listens_everywhere(run):
    """It cannot know its addresses; and no address can be pointed elsewhere, as a name can."""

    async def scenario(world):
        with listen_tcp("0.0.0.0:0") as everywhere:
            world.responder.answers._hosts = host_headers([], [everywhere])
        for host, status in [
            ("192.0.2.7", 200),
            ("192.0.2.7:8080", 200),
            ("localhost:80", 200),
            ("192.0.2.7.evil.example", 421),
            ("evil.example", 421),
            ("1.2.3", 421),
            ("", 421),
        ]:
            assert await status_for_host(world, host) == status, host

    run(scenario)


def test_hosts(run):
    async def scenario(world):
        for host, status in [
            ("169.254.169.254", 200),
            ("169.254.169.254:80", 200),
            (f"127.0.0.1:{world.port}", 200),
            ("127.0.0.1", 200),
            ("169.254.169.254:81", 421),
            ("169.254.169.254.", 421),
            ("localhost", 200),  # a name that nobody can point elsewhere
            ("192.0.2.7", 421),
            ("evil.example", 421),
            ("", 421),
        ]:
            assert await status_for_host(world, host) == status, host

    run(scenario)


class Listener:
    """A socket that listens at an address of IPv6 which this machine does not have."""

    def __init__(self, address):
        self.address = address

    def getsockname(self):
        return (self.address, 80, 0, 2)


def test_hosts_of_a_responder_that_speaks_ipv6(run):
    """However the address is written, and with the zone that some clients leave in it."""

    async def scenario(world):
        listeners = [Listener("fe80::a9fe:a9fe%br0"), Listener("fd00:ec2::254")]
        hosts = [
            "[fd00:ec2::254]",
            "[fd00:ec2::254]:80",
            "[FD00:0EC2:0:0::0254]",
            "[fe80::a9fe:a9fe]",
            "[fe80::a9fe:a9fe%25eth0]",
            "[fe80::169.254.169.254%eth0]:80",
        ]
        for host in hosts:
            assert await status_for_host(world, host) == 421, host
        world.responder.answers._hosts = host_headers([], listeners)
        for host in hosts:
            assert await status_for_host(world, host) == 200, host
        for host, status in [
            ("[fd00:ec2::254]:81", 421),
            ("[fd00:ec2::255]", 421),
            ("[::ffff:169.254.169.254]", 421),
            ("[fd00:ec2::254%]", 400),
            ("[fd00:ec2::254]x", 400),
            ("[1::2::3]", 421),
        ]:
            assert await status_for_host(world, host) == status, host

    run(scenario)


async def swept():
    """Wait until the responder has looked who has held a connection for too long."""
    await asyncio.sleep(5 * SWEEP)


def test_an_unfinished_request_gets_408(run):
    async def scenario(world):
        for data in (INFO, INFO.replace(b"GET", b"POST") + b"Content-Length: 9\r\n\r\nabc", b"G"):
            reader, writer = await world.connect()
            writer.write(data)
            answer = asyncio.create_task(reader.read())
            await until(lambda: world.responder.held == 1)
            move(SMALL.request_timeout - 100)
            await swept()
            assert not answer.done()
            move(200)
            assert answer_of(await answer)[0] == 408
            await until(lambda: world.responder.held == 0)

    run(scenario)


def test_ten_seconds_are_enough_for_any_request(run):
    async def scenario(world):
        reader, writer = await world.connect()
        writer.write(INFO)
        await until(lambda: world.responder.held == 1)
        move(10)
        assert answer_of(await reader.read())[0] == 408

    run(scenario, Limits())


def test_a_trickle_gets_408_all_the_same(run):
    async def scenario(world):
        reader, writer = await world.connect()
        answer = asyncio.create_task(reader.read())
        sent = 0
        for byte in INFO:  # it would be whole after more than twice the time
            if answer.done():
                break
            with contextlib.suppress(ConnectionError):
                writer.write(bytes([byte]))
            sent += 1
            await until(lambda: world.responder.held == 1 or answer.done())
            move(2.5 * SMALL.request_timeout / len(INFO))
            await swept()
        assert answer_of(await answer)[0] == 408
        assert len(INFO) / 4 < sent < len(INFO) * 3 / 4

    run(scenario)


def test_an_idle_connection_is_closed_without_a_word(run):
    async def scenario(world):
        reader, writer = await world.connect()
        writer.write(INFO + b"\r\n")
        await one_answer(reader)
        await swept()
        move(SMALL.idle_timeout - 100)
        await swept()
        assert not reader.at_eof()
        move(200)
        assert await reader.read() == b""
        assert [access.poll.status for access in world.accesses] == [200]

    run(scenario)


def test_requests_on_one_connection_are_bounded(run):
    async def scenario(world):
        data = await world.send((INFO + b"\r\n") * 10)
        assert data.count(PLAIN) == SMALL.requests
        assert data.count(b"Connection: close") == 1

    run(scenario)


def test_a_greedy_guest_is_bounded_and_its_neighbour_is_not(run):
    async def scenario(world):
        greedy = []
        for _ in range(10):
            reader, writer = await world.connect()
            writer.write(INFO)
            greedy.append(reader)
        # those beyond its share are closed at once
        closed = [asyncio.create_task(reader.read()) for reader in greedy]
        await until(lambda: sum(task.done() for task in closed) == 10 - SMALL.held_per_guest)
        assert len(world.responder._held) == SMALL.held_per_guest
        # it is still answered where nothing has to be held, and told that nothing is
        data = await world.send(INFO + b"\r\n")
        assert answer_of(data)[1]["Connection"] == "close"
        # its neighbour has a share of its own
        reader, writer = await world.connect("127.0.0.2")
        writer.write(INFO + b"\r\n")
        assert "Connection" not in (await one_answer(reader))[1]
        for task in closed:
            task.cancel()

    run(scenario)


def test_the_whole_is_bounded(run):
    async def scenario(world):
        readers = []
        for source in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
            for _ in range(2):
                reader, writer = await world.connect(source)
                writer.write(INFO)
                readers.append(reader)
                await until(lambda: world.responder.held == min(len(readers), SMALL.held))
        assert await readers[5].read() == b""  # the sixth, of five
        assert len(world.responder._held) == SMALL.held

    run(scenario)


BUFFER = 65536


def test_a_guest_that_does_not_read_is_dropped(run):
    async def scenario(world):
        # However large the machine lets buffers grow (tcp_wmem): what is accepted takes over ours.
        world.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        sock = socket.create_connection(("127.0.0.1", world.port), 30)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with sock, pytest.raises(ConnectionError):
            await asyncio.to_thread(sock.sendall, (INFO + b"\r\n") * 200_000)
        assert not world.responder._held
        assert 0 < len(world.accesses) < 100_000

    run(scenario, Limits(request_timeout=0.6, requests=10**9))


class Slow(asyncio.Transport):
    """A transport that keeps what it is given; what is written past it is at the other end."""

    def __init__(self, blocks_after=inf):
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.kept, self.sent, self.aborted, self.protocol = b"", b"", False, None
        self.blocks_after, self.writes = blocks_after, 0

    def write(self, data):
        self.kept += data
        self.writes += 1
        if self.writes > self.blocks_after:
            self.protocol.pause_writing()

    def flush(self):
        self.sent, self.kept = self.sent + self.kept, b""

    def get_write_buffer_size(self):
        return len(self.kept)

    def abort(self):
        self.aborted = True

    def set_write_buffer_limits(self, high=None, low=None):
        """It has a limit of its own."""


async def on(transport, world):
    """A connection on the transport that has been asked once."""
    descriptor = transport.ours.fileno()
    transport.protocol = connection = Connection(
        world.responder, "127.0.0.1", RequestReader(), descriptor, unsent=b"", last=False, served=0
    )
    connection.connection_made(transport)
    await asyncio.sleep(0)
    connection.data_received(INFO + b"\r\n")
    assert transport.kept.endswith(PLAIN)
    return connection


def test_what_is_written_past_the_transport_overtakes_nothing(run, monkeypatch):
    async def scenario(world):
        transport = Slow()
        with transport.ours, transport.theirs:
            connection = await on(transport, world)
            connection.data_received(INFO + b"\r\n")  # an answer is still kept: this goes behind it
            assert transport.kept.count(PLAIN) == 2
            transport.flush()
            connection.data_received(INFO + b"\r\n")
            assert transport.theirs.recv(1000).count(PLAIN) == 1
            assert transport.kept == b""
            connection.data_received(INFO + b"X: new\r\n\r\n")  # made, and kept
            connection.data_received(INFO + b"\r\n")
            assert transport.kept.count(PLAIN) == 2
            transport.flush()
            whole = os.write
            monkeypatch.setattr(os, "write", lambda to, data: whole(to, data[:10]))
            connection.data_received(INFO + b"\r\n")  # the guest's buffers take ten bytes
            connection.data_received(INFO + b"\r\n")
            assert transport.theirs.recv(1000) == b"HTTP/1.1 2"
            assert transport.kept.startswith(b"00 OK\r\n")
            assert transport.kept.count(PLAIN) == 2

    run(scenario, Limits())


def test_a_guest_that_has_gone_is_let_go(run):
    async def scenario(world):
        transport = Slow()
        with transport.ours, transport.theirs:
            connection = await on(transport, world)
            transport.flush()
            transport.theirs.close()
            connection.data_received(INFO + b"\r\n")
            assert transport.aborted

    run(scenario)


def test_a_guest_that_reads_no_further_has_no_longer_for_having_been_quick(run):
    async def scenario(world):
        transport = Slow(blocks_after=1)
        with transport.ours, transport.theirs:
            connection = await on(transport, world)
            connection.data_received(INFO + b"\r\n")  # answered as before
            now = asyncio.get_running_loop().time()
            # A sum, as the deadline is: the difference of two doubles may be a little more.
            assert now < connection.deadline <= now + SMALL.request_timeout
            connection.expire()
            assert transport.aborted

    run(scenario)


def test_resets_are_survived(run):
    async def scenario(world):
        for data in (b"", INFO, INFO + b"\r\n"):
            for _ in range(20):
                sock = socket.create_connection(("127.0.0.1", world.port), 10)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if data:
                    sock.send(data)
                sock.close()
        data = await world.send(INFO + b"Connection: close\r\n\r\n")
        assert answer_of(data)[0] == 200

    run(scenario, Limits())


def test_stale(run):
    async def scenario(world):
        world.knowledge.stale_after = -1.0
        status, headers, _ = answer_of(await world.send(INFO + b"Connection: close\r\n\r\n"))
        assert status == 503
        assert int(headers["Retry-After"]) > 0

    run(scenario)


def test_the_metadata_planes_clock_is_used(run):
    async def scenario(world):
        event = Event(
            id="6f0a13a3-dc0d-4bbe-ab24-df710a3917e6",
            type=EventType.REBOOT,
            source=EventSource.PLATFORM,
            description="",
            guests=("web1",),
            created=time.time(),
            not_before=time.time() + 900,
            duration=60.0,
        )
        told = Delta(sequence=world.knowledge.sequence + 1, events=(event,))
        world.knowledge.apply(told, time.monotonic())
        for offset, hit in ((0.0, False), (601.0, True), (901.0, True), (961.0, False)):
            world.knowledge.clock_offset = offset
            data = await world.send(INFO + b"Connection: close\r\n\r\n")
            assert (b"Reboot" in data) is hit

    run(scenario)


def test_running_out_of_descriptors_is_survived(run, caplog):
    async def scenario(world):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as sock:  # the guest's descriptor is had before
            sock.setblocking(False)
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
            try:
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", world.port))
                sock.send(INFO + b"\r\n")
                await until(lambda: "Too many open files" in caplog.text)
                assert world.accesses == []
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            reader, writer = await asyncio.open_connection(sock=sock.dup())
            world.writers.append(writer)
            assert (await one_answer(reader))[0] == 200

    run(scenario)


def test_hosts_that_are_answered():
    with listen_tcp("127.0.0.1:0") as sock:
        port = sock.getsockname()[1]
        assert host_headers(["Example.ORG"], [sock]) == {
            *("169.254.169.254", "169.254.169.254:80", f"169.254.169.254:{port}"),
            *("example.org", "example.org:80", f"example.org:{port}"),
            *("127.0.0.1", "127.0.0.1:80", f"127.0.0.1:{port}"),
            *("localhost", "localhost:80", f"localhost:{port}"),
            *(f"{name}{end}" for name in METADATA_NAMES for end in ("", ":80", f":{port}")),
        }
