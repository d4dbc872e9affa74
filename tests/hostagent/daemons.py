"""Daemons as real processes, with sockets handed over as a supervisor would."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from hostagent.controller import SyncController

# Moves the descriptors to 3, 4, … and becomes the program, as systemd's protocol has it.
_SHIM = """
import os, sys
fds = [int(fd) for fd in sys.argv[1].split(",")]
high = [os.dup2(fd, 100 + i) for i, fd in enumerate(fds)]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i)
    os.close(fd)
os.execv(sys.executable, [sys.executable, "-m", "hostagent", *sys.argv[2:]])
"""


def wait_for(condition, seconds=30.0):
    """Return the condition's first true value; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "not within the time allowed"
        time.sleep(0.01)
    return value


class Node:
    """An agent and a responder on loopback, guests known by address; each can be killed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes = {}
        self.sockets = {name: self._unix(name) for name in ("command", "feed")}
        self.sockets["http"] = socket.create_server(("127.0.0.1", 0))
        self.port = self.sockets["http"].getsockname()[1]
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(directory / "notify"))
        self.notify.settimeout(60)

    def _unix(self, name):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(self.directory / name))
        sock.listen()
        return sock

    def run(self, name, names, *args):
        fds = [self.sockets[one].fileno() for one in names]
        with open(self.directory / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-c", _SHIM, ",".join(map(str, fds)), name, *args],
                pass_fds=fds,
                stderr=log,
                env=os.environ
                | {
                    "LISTEN_FDS": str(len(fds)),
                    "LISTEN_FDNAMES": ":".join(names),
                    "NOTIFY_SOCKET": str(self.directory / "notify"),
                },
            )

    def ready(self):
        """Wait until a daemon says that it is; give what it says."""
        return self.notify.recv(1000).decode()

    def start_agent(self, ready=True):
        repository = str(self.directory / "node.sqlite")
        self.run("agent", ["command", "feed"], "--node", "n1", "--repository", repository)
        return self.ready() if ready else None

    def start_responder(self, *args, ready=True):
        self.run(
            "responder",
            ["http"],
            "--agent",
            str(self.directory / "feed"),
            "--identity",
            "address",
            "--access-log",
            *args,
        )
        return self.ready() if ready else None

    def kill(self, name):
        self.processes[name].kill()
        return self.processes.pop(name).wait()

    def terminate(self, name):
        self.processes[name].terminate()
        return self.processes.pop(name).wait(30)

    def log(self, name):
        return (self.directory / f"{name}.log").read_text()

    def controller(self, timeout=10.0):
        return SyncController.connect(self.directory / "command", timeout)

    def connect(self, source="127.0.0.1"):
        return socket.create_connection(("127.0.0.1", self.port), 10, (source, 0))

    def get(self, path="/metadata/v1/InstanceInfo", source="127.0.0.1", *headers):
        """Ask as the guest with this address; give the status, the headers and the body."""
        lines = [f"GET {path} HTTP/1.1", "Host: 169.254.169.254", "Connection: close", *headers]
        with self.connect(source) as sock:
            sock.sendall("\r\n".join([*lines, "", ""]).encode())
            return answer_of(read_all(sock))

    def close(self):
        for process in self.processes.values():
            process.kill()
            process.wait()
        for sock in (*self.sockets.values(), self.notify):
            sock.close()


def read_all(sock):
    """Return everything until the other side closes."""
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def answer_of(data):
    """Return the status, the headers and the body of one answer."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body
