"""Agent, responder and guests as real processes on loopback, without privilege.

The guests are known by their source address, 127.0.0.1 and 127.0.0.2.
"""

import json
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from hostagent.model import EventType, Guest
from tests.hostagent.daemons import read_all, wait_for

PLAIN = b'{"ID":"_web1","UD":"0","FD":"0"}'
OTHER = b'{"ID":"_web2","UD":"0","FD":"1"}'


def hits(node, source="127.0.0.1"):
    return b"reboot" in node.get(source=source)[2].lower()


def test_a_guest_learns_what_concerns_it_and_its_neighbour_does_not(full_node):
    node = full_node
    assert node.get()[2] == PLAIN
    assert node.get(source="127.0.0.2")[2] == OTHER
    assert node.get(source="127.0.0.3")[0] == 403
    with node.controller() as controller:
        event = controller.schedule(["web1"], EventType.REBOOT, duration=60)
        assert not hits(node)  # a quarter of an hour ahead
        controller.advance(601)
        wait_for(lambda: hits(node))
        told = json.loads(node.get("/metadata/v1/maintenance")[2])
        assert told["EventID"] == event.id
        assert node.get("/metadata/v1/maintenance", "127.0.0.2")[2] == b"{}"
        assert node.get(source="127.0.0.2")[2] == OTHER
        controller.advance(300)
        wait_for(lambda: controller.events()[0].status == "Started")
        assert hits(node)
        controller.complete(event.id)
        wait_for(lambda: not hits(node))
        assert node.get()[2] == PLAIN


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_way_a_guest_asks(full_node):
    node = full_node
    command = f"curl -s http://127.0.0.1:{node.port}/metadata/v1/InstanceInfo | grep -i reboot"

    def grep():
        return subprocess.run(command, shell=True, capture_output=True).returncode

    assert grep() == 1
    with node.controller() as controller:
        event = controller.schedule(["web1"], EventType.REBOOT, notice=200, duration=60)
        wait_for(lambda: grep() == 0)
        controller.cancel(event.id)
    wait_for(lambda: grep() == 1)
    url = f"http://127.0.0.1:{node.port}/metadata/v1/instanceinfo"
    both = f"curl -sv -d {'x' * 2000} {url} --next -s {url}/fd"
    verbose = subprocess.run(both.split(), capture_output=True)
    assert b"405" in verbose.stderr
    assert verbose.stdout.endswith(b"0")


def test_the_life_of_an_event_in_real_time(full_node):
    node = full_node
    with node.controller() as controller:
        event = controller.schedule(["web1"], EventType.REBOOT, notice=1.5, duration=1.0)
    wait_for(lambda: hits(node))
    end = event.not_before + 1.0
    seen = []
    while time.time() < end + 0.4:
        at = time.time()
        seen.append((hits(node), at, time.time()))
        time.sleep(0.02)
    assert all(hit for hit, _, after in seen if after < end)
    assert not any(hit for hit, before, _ in seen if before > end)
    assert not hits(node)


def test_a_token_outlives_the_responder_that_has_a_key(full_node):
    """A guest's token of EC2 is good for as long as it says, whatever happens to the responder."""
    node = full_node
    key = ("--signing-key", str(Path(__file__).with_name("signing.pem")))

    def asked(line, header):
        with socket.create_connection(("127.0.0.1", node.port)) as link:
            link.sendall(f"{line} HTTP/1.0\r\nX-aws-ec2-metadata-token{header}\r\n\r\n".encode())
            return read_all(link).partition(b"\r\n\r\n")

    node.kill("responder")
    node.start_responder(*key)
    token = asked("PUT /latest/api/token", "-ttl-seconds: 60")[2].decode()
    node.kill("responder")
    node.start_responder(*key)
    head, _, body = asked("GET /latest/meta-data/instance-id", f": {token}")
    assert b" 200 " in head
    assert body.startswith(b"i-")


def test_what_a_guest_has_written_outlives_the_responder(full_node):
    """A guest stores that it has booted; the responder, and then the agent, is killed."""
    node = full_node
    state = "/computeMetadata/v1/instance/guest-attributes/boot/state"
    with node.controller() as controller:
        on = {"attributes.enable-guest-attributes": "TRUE"}
        controller.place([Guest(name="web1", address="127.0.0.1", properties=on)])

    def asked(method="GET", body=b""):
        with socket.create_connection(("127.0.0.1", node.port)) as link:
            head = f"{method} {state} HTTP/1.0\r\nMetadata-Flavor: Google\r\n"
            link.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            return read_all(link)

    wait_for(lambda: b" 404 " in asked())
    assert b" 200 " in asked("PUT", b"done")
    assert asked().endswith(b"\r\n\r\ndone")
    node.kill("responder")
    node.start_responder()
    assert asked().endswith(b"\r\n\r\ndone")
    node.kill("agent")
    node.start_agent()
    wait_for(lambda: b" 200 " in asked("PUT", b"again"))
    assert asked().endswith(b"\r\n\r\nagain")


def test_the_responder_outlives_its_agent(full_node):
    node = full_node
    with node.controller() as controller:
        event = controller.schedule(["web1"], EventType.REBOOT, notice=100)
    wait_for(lambda: hits(node))
    node.kill("agent")
    for _ in range(20):
        assert hits(node)
        time.sleep(0.02)
    node.start_agent()
    with node.controller() as controller:
        controller.cancel(event.id)
    wait_for(lambda: not hits(node))
    assert node.get(source="127.0.0.2")[2] == OTHER


def test_kill_9_in_a_stream_of_commands(full_node):
    """What was acknowledged is there, once, and no guest's incarnation goes back."""
    node = full_node
    randomness = random.Random(7)
    acknowledged = []
    incarnations = []
    done = threading.Event()

    def command():
        with node.controller(30) as controller:
            while not done.is_set():
                event = controller.schedule(["web1"], EventType.FREEZE, notice=3600)
                acknowledged.append(event.id)
                incarnations.append(controller.guests()[0].incarnation)

    thread = threading.Thread(target=command)
    thread.start()
    try:
        for _ in range(8):
            time.sleep(randomness.uniform(0.0, 0.15))
            node.kill("agent")
            node.start_agent()
    finally:
        done.set()
        thread.join()
    with node.controller() as controller:
        stored = [event.id for event in controller.events()]
        # one command at a time, repeated until it was answered: all of them, and in order
        assert stored == acknowledged
        assert len(set(stored)) > 8
        assert incarnations == [2 + i for i in range(len(stored))]
        controller.schedule(["web1"], EventType.REBOOT, notice=0)
    wait_for(lambda: hits(node))  # the responder has kept up


def test_stale_knowledge_is_not_told(node):
    node.start_agent()
    node.start_responder("--stale-after", "3s")  # longer than a heartbeat takes
    with node.controller() as controller:
        controller.place([Guest(name="web1", address="127.0.0.1")])
    wait_for(lambda: node.get()[0] == 200)
    node.kill("agent")
    wait_for(lambda: node.get()[0] == 503)
    status, headers, body = node.get()
    assert (status, headers["Retry-After"]) == (503, "5")
    assert b"web1" not in body
    node.start_agent()
    wait_for(lambda: node.get()[2] == PLAIN)


def test_a_hung_agent_is_as_good_as_none(node):
    node.start_agent()
    node.start_responder("--stale-after", "3s")
    with node.controller() as controller:
        controller.place([Guest(name="web1", address="127.0.0.1")])
    wait_for(lambda: node.get()[0] == 200)
    node.processes["agent"].send_signal(signal.SIGSTOP)
    wait_for(lambda: node.get()[0] == 503)
    node.processes["agent"].send_signal(signal.SIGCONT)
    wait_for(lambda: node.get()[0] == 200)


def test_a_new_responder_waits_for_its_agent_rather_than_refuse(node):
    node.start_responder(ready=False)
    with node.connect() as early:
        early.sendall(
            b"GET /metadata/v1/InstanceInfo HTTP/1.1\r\nHost: 169.254.169.254\r\n"
            b"Connection: close\r\n\r\n"
        )
        node.start_agent(ready=False)
        assert b" 403 " in read_all(early)  # it has heard that no such guest is there
    assert {node.ready(), node.ready()} == {
        "READY=1\nSTATUS=READY agent n1",
        f"READY=1\nSTATUS=READY responder on 127.0.0.1:{node.port}",
    }


def test_without_any_agent_it_says_so_after_a_moment(node):
    node.start_responder()
    assert node.get()[0] == 503
    assert node.terminate("responder") == 0


def is_closed(sock):
    """Whether the other side has closed it, or reset it."""
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True
    except BlockingIOError:
        return False


def test_a_greedy_guest_has_its_share_and_no_more(full_node):
    node = full_node
    greedy = [node.connect() for _ in range(40)]
    for sock in greedy:
        sock.sendall(b"GET /metadata/v1/Insta")
    wait_for(lambda: sum(map(is_closed, greedy)) == 40 - 30)
    assert node.get(source="127.0.0.2")[2] == OTHER
    assert node.get()[2] == PLAIN
    assert sum(map(is_closed, greedy)) == 40 - 30
    for sock in greedy:
        sock.close()


def test_the_access_log(full_node):
    node = full_node
    node.get("/metadata/v1/maintenance?a=b", "127.0.0.2")
    with node.connect() as sock:
        sock.sendall(b"\x1b[31mGET / HTTP/1.1\r\n\r\n")
        read_all(sock)
    log = node.log("responder")
    assert "access caller=127.0.0.2 guest=web2 status=200 GET /metadata/v1/maintenance?a=b\n" in log
    assert "access caller=127.0.0.1 guest=web1 status=400 - -\n" in log
    assert "\x1b" not in log


def test_a_path_that_lasts(full_node):
    """One connection over the agent's death, and over events, as an SDK would hold it."""
    node = full_node
    ask = b"GET /metadata/v1/maintenance HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n"
    with node.connect() as sock:

        def answer():
            sock.sendall(ask)
            return sock.recv(65536).partition(b"\r\n\r\n")[2]

        assert answer() == b"{}"
        node.kill("agent")
        assert answer() == b"{}"
        node.start_agent()
        with node.controller() as controller:
            event = controller.schedule(["web1"], EventType.FREEZE, notice=0)
        wait_for(lambda: event.id.encode() in answer())


def test_both_end_in_order(full_node):
    held = full_node.connect()
    assert full_node.terminate("responder") == 0
    assert full_node.terminate("agent") == 0
    assert "Traceback" not in full_node.log("agent") + full_node.log("responder")
    full_node.sockets["http"].close()
    with held, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", full_node.port))


def test_a_daemon_says_why_it_ends(node):
    """Its supervisor shows that beside the exit code, without reading a log."""
    (node.directory / "node.sqlite").write_bytes(b"no repository" * 100)
    node.start_agent(ready=False)
    assert "node.sqlite" in node.ready().removeprefix("STATUS=")
    assert node.processes.pop("agent").wait(20) in (2, 3)
    node.start_responder("--dialects", "klingon", ready=False)
    assert "klingon" in node.ready().removeprefix("STATUS=")
    assert node.processes.pop("responder").wait(20) == 2
