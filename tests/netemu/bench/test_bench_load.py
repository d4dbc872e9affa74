"""Our own load generator, compiled and held against a server of a few lines."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from netemu.bench import load
from netemu.errors import NotSo
from netemu.kernel.namespaces import open_own

# Answers each request, so late as it is told; the seventh and any after it with another status.
SERVER = """
import socketserver, sys, time
delay, bad_from = float(sys.argv[1]), int(sys.argv[2])
class Handler(socketserver.StreamRequestHandler):
    count = 0
    def handle(self):
        head = b""
        while line := self.rfile.readline():
            head += line
            if line != b"\\r\\n":
                continue
            Handler.count += 1
            time.sleep(delay)
            status = b"503 No" if Handler.count >= bad_from else b"200 OK"
            self.wfile.write(b"HTTP/1.1 " + status + b"\\r\\nContent-Length: 5\\r\\n\\r\\nhello")
            if b"Connection: close" in head:
                return
            head = b""
class Server(socketserver.ThreadingTCPServer):
    daemon_threads, request_queue_size = True, 1024
with Server(("127.0.0.1", 0), Handler) as server:
    print(server.server_address[1], flush=True)
    server.serve_forever()
"""

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="it enters namespaces"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed"),
]


@pytest.fixture(autouse=True)
def generator(tmp_path_factory, monkeypatch):
    """The generator, compiled as netns-scripts/bench-peers does it; without a warning."""
    binary = tmp_path_factory.getbasetemp() / "load"
    if not binary.exists():
        source = Path(load.__file__).parent / "peers" / "load.c"
        flags = ("-O2", "-Wall", "-Wextra", "-Werror")
        subprocess.run(["gcc", *flags, "-o", binary, source], check=True)
    monkeypatch.setattr(load, "OWN", binary)
    monkeypatch.setattr(load, "METADATA", "127.0.0.1")


@pytest.fixture
def serve(monkeypatch):
    """Start a server to be asked. Returns its process."""
    started = []

    def start(delay=0.0, bad_from=10**9):
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(delay), str(bad_from)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        monkeypatch.setattr(load, "HTTP", int(process.stdout.readline()))
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def net():
    descriptor = open_own("net")
    yield descriptor
    os.close(descriptor)


def test_connections_are_kept_alive_and_ask_again_once_answered(serve, net):
    serve()
    got = load.as_answered([net], "/", 0.3)
    assert got.requests > 20
    assert got.seconds > 0.25


def test_connections_are_replaced_before_the_server_ends_them(serve, net, monkeypatch):
    serve()
    monkeypatch.setattr(load, "REQUESTS_KEPT", 3)
    assert load.as_answered([net], "/", 0.3).requests > 20


def test_a_paced_load_keeps_its_rate_and_counts_from_when_a_request_was_due(serve, net):
    process = serve()
    quick = load.paced(net, "/", rate=200, seconds=0.5)
    assert 0 < quick.median <= quick.p90 <= quick.p99 <= quick.worst
    assert quick.median < 0.3
    # All wait for a server that stalls, and those that were due meanwhile, too.
    asked = subprocess.Popen(
        [load.OWN, "127.0.0.1", str(load.HTTP), str(net), "24", "1", "1", "960", "paced", "100"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[net],
    )
    asked.stdin.write(load.request("/"))
    asked.stdin.close()
    time.sleep(0.2)
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.4)
    process.send_signal(signal.SIGCONT)
    count, _, median, _, _, worst = map(float, asked.stdout.read().split())
    asked.stdout.close()
    assert asked.wait() == 0
    assert count == 100
    assert worst > 300_000
    assert median < worst / 3


def test_a_burst_is_timed_from_when_the_server_goes_on(serve, net, monkeypatch):
    process = serve(delay=0.1)
    monkeypatch.setattr(load, "WAITING", 20)
    got = load.bursts([net], "/", 0.1, [process.pid])
    assert got.requests == 20  # one burst, whose connections have a thread each
    assert got.seconds > 0.1
    state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    assert state in "SR"  # it was left running


def test_what_is_no_200_is_no_measurement(serve, net):
    serve(bad_from=7)
    with pytest.raises(NotSo, match=r"no 200: HTTP/1\.1 503 No"):
        load.as_answered([net], "/", 0.3)


def test_where_nobody_listens_nothing_is_measured(net, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(load, "HTTP", unused.getsockname()[1])
        with pytest.raises(NotSo, match="connect: Connection refused"):
            load.as_answered([net], "/", 0.3)
