"""The measured servers: this project's responder, and the usual alternatives.

Each answers on a node of its own, at the metadata address, behind the same guard. The peers return
a constant; the responder identifies the guest and returns its own document.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Final

from hostagent.controller import AgentUnreachable, SyncController
from hostagent.model import Guest
from netemu.bench import stage
from netemu.bench.load import PEERS
from netemu.bench.processes import descendants
from netemu.kernel.namespaces import inside
from netemu.kernel.sockets import HTTP
from netemu.supervisor.nodes.wiring import METADATA, WiredNode
from netemu.wire.source import python_path

OURS: Final = "netemu"
OURS_TWICE: Final = "netemu, 2 processes"
NGINX: Final = "nginx"
EPOLL: Final = "epoll in C"
UVICORN: Final = "uvicorn + Starlette"
UVICORN_PLAIN: Final = "uvicorn + Starlette, plain"
AIOHTTP: Final = "aiohttp"
AIOHTTP_PLAIN: Final = "aiohttp, plain"
"""Plain is as pip installs them: on asyncio's own loop, uvicorn with h11. The others are given
uvloop, and uvicorn httptools too."""

PATH: Final = "/metadata/v1/InstanceInfo"
BODY: Final = '{"ID":"_n0-1","UD":"0","FD":"0"}'
"""As long as the responder's answer to a guest."""

_APPS: Final = Path(__file__).parent / "peers"
_HOW: Final = "run netns-scripts/bench-peers"
_PATIENCE: Final = 20.0

# sd_listen_fds(3): the first socket is descriptor 3.
_HAND_OVER: Final = """
import fcntl, os, sys
given = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 64) for number in sys.argv[1].split(",")]
for number, descriptor in enumerate(given, start=3):
    os.dup2(descriptor, number)
os.execv(sys.argv[2], sys.argv[2:])
"""

_NGINX: Final = """
daemon off; user root; worker_processes 1; pid @/nginx.pid; error_log @/error.log;
events {{ worker_connections 8192; multi_accept on; }}
http {{
    access_log off; default_type application/json; keepalive_requests 1000; tcp_nodelay on;
    client_body_temp_path @/b; proxy_temp_path @/p; fastcgi_temp_path @/f; uwsgi_temp_path @/u;
    scgi_temp_path @/s;
    server {{
        listen {address}:{port} backlog=2048 deferred;
        location / {{ return 200 '{body}'; }}
    }}
}}
"""


def missing() -> dict[str, str]:
    """Return the peers that cannot be measured here, and why."""
    found = {}
    if _nginx() is None:
        found[NGINX] = f"not installed; {_HOW}"
    if not (PEERS / "epoll-server").exists():
        found[EPOLL] = f"not compiled; {_HOW}"
    for name, module in (
        (UVICORN, "uvicorn, starlette, uvloop, httptools"),
        (UVICORN_PLAIN, "uvicorn, starlette"),
        (AIOHTTP, "aiohttp, uvloop"),
        (AIOHTTP_PLAIN, "aiohttp"),
    ):
        python = PEERS / "python"
        if (
            not python.exists()
            or subprocess.run(
                [python, "-c", f"import {module}"], capture_output=True, check=False
            ).returncode
        ):
            found[name] = f"not installed; {_HOW}"
    return found


def _nginx() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


class Running:
    """A server that runs on a node."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    @property
    def pids(self) -> list[int]:
        """Return the serving process and its descendants."""
        return descendants(self.process.pid)


class Ours(Running):
    """This project's responder, and the agent that feeds it."""

    def __init__(
        self,
        agent: Callable[[], subprocess.Popen[bytes]],
        running: subprocess.Popen[bytes],
        responder: subprocess.Popen[bytes],
    ) -> None:
        super().__init__(responder)
        self._start_agent = agent
        self._agent = running

    @classmethod
    def start(cls, node: WiredNode, store: Path) -> "Ours":
        """Start both, on this store, and place the node's guests."""
        directory = stage.HERE / node.node.name
        words = [*_python("agent"), "--node", node.node.name]
        words += ["--command", str(command_socket(node)), "--feed", str(directory / "feed")]
        words += ["--repository", str(store / "repository.sqlite")]
        agent = partial(_spawn, words)
        running = agent()
        place(node)
        given = [one.fileno() for one in node.listeners]
        options = ["--agent", str(directory / "feed"), "--azure-rate", "0"]
        options += ["--processes", str(len(given))]
        names = {"LISTEN_FDS": str(len(given)), "LISTEN_FDNAMES": ":".join("http" for _ in given)}
        between = [",".join(map(str, given)), *_python("responder"), *options]
        command = [sys.executable, "-c", _HAND_OVER, *between]
        return cls(agent, running, _spawn(command, extra=names, descriptors=given))

    @property
    def agent_pid(self) -> int:
        """Return the PID of the current agent."""
        return self._agent.pid

    def kill_agent(self) -> None:
        """Kill the agent like a crash, and start another on the same store."""
        self._agent.kill()
        self._agent.wait()
        self._agent = self._start_agent()


def _python(daemon: str) -> list[str]:
    return [sys.executable, "-P", "-m", "hostagent", daemon]


def start(name: str, node: WiredNode) -> Running:
    """Start the server of this name on the node; it may answer only after a moment."""
    directory = stage.HERE / node.node.name
    directory.mkdir()
    if name in (OURS, OURS_TWICE):
        return Ours.start(node, directory)
    for listener in node.listeners:
        listener.close()  # the peer binds their address
    where = (METADATA, str(HTTP))
    if name == NGINX:
        text = _NGINX.format(address=METADATA, port=HTTP, body=BODY).replace("@", str(directory))
        (directory / "nginx.conf").write_text(text)
        nginx = _nginx()
        assert nginx is not None
        command = [nginx, "-p", str(directory), "-c", str(directory / "nginx.conf")]
        command += ["-e", str(directory / "error.log")]
    elif name == EPOLL:
        command = [str(PEERS / "epoll-server"), *where, str(len(BODY))]
    elif name in (UVICORN, UVICORN_PLAIN):
        loop, http = ("uvloop", "httptools") if name == UVICORN else ("asyncio", "h11")
        command = [str(PEERS / "uvicorn"), "--app-dir", str(_APPS), "starlette_app:app"]
        command += ["--host", where[0], "--port", where[1], "--loop", loop, "--http", http]
        command += ["--no-access-log", "--log-level", "warning"]
    else:
        loop = "uvloop" if name == AIOHTTP else "asyncio"
        command = [str(PEERS / "python"), str(_APPS / "aiohttp_app.py"), *where, loop]
    return Running(_spawn(command, net=node.net, extra={"BODY": BODY}))


def command_socket(node: WiredNode) -> Path:
    """Return the path of the command socket of the node's agent."""
    return stage.HERE / node.node.name / "command"


def place(node: WiredNode) -> None:
    """Place the node's guests at its agent as soon as it can be reached."""
    guests = [Guest(name=one.guest.name, port=one.guest.mark) for one in node.guests]
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            with SyncController.connect(command_socket(node)) as controller:
                controller.place(guests)
                return
        except AgentUnreachable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _spawn(
    command: list[str],
    *,
    net: int | None = None,
    extra: Mapping[str, str] = {},
    descriptors: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": python_path(), **extra}
    with stage.LOG.open("ab") as log, nullcontext() if net is None else inside(net):
        return subprocess.Popen(
            command,
            env=environment,
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
