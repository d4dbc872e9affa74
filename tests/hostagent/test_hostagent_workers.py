"""A responder of several processes, as real processes."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hostagent.model import Guest
from hostagent.sockets import SocketError, divide, listen_many
from tests.hostagent.daemons import answer_of, read_all, wait_for

COUNT = 2


class Crew:
    """The processes of one responder, and the way to ask them."""

    def __init__(self, node, process, port):
        self.node, self.process, self.port = node, process, port

    @property
    def others(self):
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def ask(self, source, path="/metadata/v1/InstanceInfo", *headers, method="GET", timeout=5.0):
        lines = [f"{method} {path} HTTP/1.1", "Host: 169.254.169.254", "Connection: close"]
        with socket.create_connection(("127.0.0.1", self.port), timeout, (source, 0)) as sock:
            sock.sendall("\r\n".join([*lines, *headers, "", ""]).encode())
            return answer_of(read_all(sock))


@pytest.fixture
def crew(node):
    """Two processes that share the guests 127.0.0.1 to .4."""
    node.start_agent()
    with node.controller() as controller:
        controller.place([Guest(name=f"web{i}", address=f"127.0.0.{i}") for i in range(1, 5)])
    with open(node.directory / "crew.log", "wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "hostagent", "responder", "--identity", "address"),
                *("--agent", str(node.directory / "feed"), "--processes", str(COUNT)),
                *("--listen", "127.0.0.1:0"),
            ],
            stderr=log,
            env=os.environ | {"NOTIFY_SOCKET": str(node.directory / "notify")},
        )
    node.processes["crew"] = process
    port = int(node.ready().rpartition(":")[2])
    made = Crew(node, process, port)
    for guest in range(1, 5):
        wait_for(lambda guest=guest: made.ask(f"127.0.0.{guest}")[0] == 200)
    return made


def test_a_guest_is_always_served_by_the_same_process(crew):
    (other,) = crew.others
    os.kill(other, signal.SIGSTOP)
    try:
        served = []
        for guest in range(1, 5):
            for _ in range(3):
                try:
                    assert crew.ask(f"127.0.0.{guest}", timeout=0.3)[0] == 200
                    served.append(guest)
                except TimeoutError:
                    pass
        assert served == [2, 2, 2, 4, 4, 4]  # by the source's remainder
    finally:
        os.kill(other, signal.SIGCONT)
    assert b"web3" in crew.ask("127.0.0.3")[2]


def test_when_one_ends_all_end(crew):
    (other,) = crew.others
    os.kill(other, signal.SIGKILL)
    assert crew.process.wait(10) == 3
    assert "a process of the responder has ended" in crew.node.log("crew")
    with pytest.raises(ConnectionRefusedError):
        crew.ask("127.0.0.1")


def test_when_the_first_is_killed_the_others_end(crew):
    assert crew.others
    crew.process.kill()
    crew.process.wait()

    def refused():
        try:
            crew.ask("127.0.0.1")
        except ConnectionRefusedError:
            return True
        return False

    wait_for(refused)


def test_told_to_end_all_end_well(crew):
    (other,) = crew.others
    crew.process.terminate()
    assert crew.process.wait(10) == 0
    assert not Path(f"/proc/{other}").exists()


def test_tokens_of_one_process_are_good_with_all(node):
    node.start_agent()
    with node.controller() as controller:
        controller.place([Guest(name="web1", address="127.0.0.1")])
    node.start_responder("--processes", str(COUNT))  # they share the socket handed over
    crew = Crew(node, node.processes["responder"], node.port)
    wait_for(lambda: crew.ask("127.0.0.1")[0] == 200)
    ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60"
    _, _, token = crew.ask("127.0.0.1", "/latest/api/token", ttl, method="PUT")
    (other,) = crew.others
    path, header = "/latest/meta-data/instance-id", f"X-aws-ec2-metadata-token: {token.decode()}"
    for stopped in (other, crew.process.pid):  # so that the one answers, then the other
        os.kill(stopped, signal.SIGSTOP)
        try:
            assert crew.ask("127.0.0.1", path, header)[0] == 200
        finally:
            os.kill(stopped, signal.SIGCONT)


def test_sockets_are_divided():
    sockets = listen_many("127.0.0.1:0", 3)
    (one,) = listen_many("127.0.0.1:0", 1)
    try:
        assert len({sock.getsockname() for sock in sockets}) == 1
        shares = divide([*sockets, one], 3, by_mark=True)
        assert shares == [[sockets[0], one], [sockets[1], one], [sockets[2], one]]
        with pytest.raises(SocketError, match=r"3 sockets at .*: for 2 processes use 2, or 1"):
            divide(sockets, 2, by_mark=True)
    finally:
        for sock in (*sockets, one):
            sock.close()
