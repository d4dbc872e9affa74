"""The software of each node: a host agent and a responder, which fail with the node. Runs in the
supervisor.
"""

import asyncio
import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from netemu.errors import NotSo
from netemu.supervisor.nodes.services import PATIENCE, Service
from netemu.supervisor.nodes.wiring import WiredNode
from netemu.supervisor.nodes.zygote import Zygote
from netemu.topology import Dialects
from netemu.wire.profile import Profile

# The users of a node's two processes in root's lab. They own nothing and belong to nobody else:
# they are in the range that systemd reserves for such users (61184 to 65519).
AGENT_USER: Final = 61901
RESPONDER_USER: Final = 61902
# A hanging agent makes its node fail, once the lab is up (`Relocation.heal`); that takes less time.
AGENT_PATIENCE: Final = 2 * PATIENCE
# Seconds that a node which comes back is waited for: a responder takes one, on a busy machine ten.
SERVING_WITHIN: Final = 20.0
# A process that was killed ends in milliseconds, unless the kernel holds it.
DEAD_WITHIN: Final = 10.0
# Inside the sandbox, where no guest sees it: the agents' stores and feeds.
STATE: Final = Path("/run/hostagent")


def keep_signing_key(text: str) -> Path | None:
    """Write the key that responders sign documents with, which they read as they start."""
    if not text:
        return None
    path = STATE / "signing.pem"
    path.touch(mode=0o600)
    path.write_text(text)
    return path


class NodeServices:
    """One node's software. Its agent takes commands on `outer`, and from the lab at `commands`, a
    path that no guest and no process outside can reach.

    The sockets stay open here as long as a service may be started again.
    """

    def __init__(
        self,
        number: int,
        wired: WiredNode,
        outer: socket.socket,
        *,
        profile: Profile,
        zygote: Zygote,
        access_log: bool = False,
        signing_key: Path | None = None,
    ) -> None:
        self.wired = wired
        self.failed = False
        self.returning = False  # it runs again, and takes no guests yet
        self.services: Sequence[Service] = ()
        self.store = STATE / f"agent-{number}"
        self.feed = STATE / f"feed-{number}.sock"
        self._number = number
        self._profile = profile
        self._zygote = zygote
        self._access_log = access_log
        self._signing_key = signing_key
        self.commands = STATE / f"command-{number}.sock"
        self._outer = outer
        self._commands: socket.socket
        self._feed: socket.socket

    def open(self) -> None:
        """Make the agent's sockets and the directory of its repository; once, before `start`."""
        self._commands = _listening(self.commands)
        self._feed = _listening(self.feed)
        self._make_store()
        if is_root():
            os.chown(self.feed, RESPONDER_USER, RESPONDER_USER)

    @property
    def name(self) -> str:
        """The node's name."""
        return self.wired.node.name

    @property
    def repository(self) -> Path:
        """The agent's repository."""
        return self.store / "repository.sqlite"

    def start(self) -> None:
        """Start the node's software."""
        self.failed = False
        unix = [
            ("command", self._commands.fileno()),
            ("command", self._outer.fileno()),
            ("feed", self._feed.fileno()),
        ]
        http = [("http", one.fileno()) for one in self.wired.listeners]
        self.services = [
            self._service("agent", self._agent(), unix),
            self._service("responder", self._responder(), http),
        ]

    @property
    def responders(self) -> int:
        """How many responder processes follow its agent."""
        return self.wired.node.processes

    @property
    def state(self) -> str:
        """One of running, failed and coming back."""
        if self.returning:
            return "coming back"
        return "failed" if self.failed else "running"

    @property
    def trouble(self) -> str:
        """Why its software does not run, if it does not."""
        return "; ".join(
            f"{service.name}: {service.trouble}" for service in self.services if service.failing
        )

    async def dead(self) -> None:
        """Wait until the last process of a failed node has ended. Raises NotSo if one does not."""
        try:
            async with asyncio.timeout(DEAD_WITHIN):
                while any(service.pid is not None for service in self.services):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise NotSo(f"{self.name}: its processes do not end") from None

    async def serving(self) -> None:
        """Wait until its software is there, for a bounded time."""
        try:
            async with asyncio.timeout(SERVING_WITHIN):
                while any(service.state == "starting" for service in self.services):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pass

    def fail(self) -> None:
        """Kill all of it at once, without notice."""
        self.failed = True
        for service in self.services:
            service.kill()

    def forget(self) -> None:
        """Have the node come back as a new one, whose agent knows no guests."""
        shutil.rmtree(self.store)
        self._make_store()

    def stop(self) -> None:
        """Ask the services to end in order."""
        for service in self.services:
            service.stop()

    def _make_store(self) -> None:
        self.store.mkdir(mode=0o700)
        if is_root():
            os.chown(self.store, AGENT_USER, AGENT_USER)

    def _service(self, role: str, arguments: list[str], sockets: list[tuple[str, int]]) -> Service:
        service = Service(
            f"{self.name}/{role}",
            arguments,
            sockets=sockets,
            log_descriptor=2,
            notices=STATE / f"{role}-{self._number}.notices",
            patience=AGENT_PATIENCE if role == "agent" else PATIENCE,
            # (a weak responder is a program of its own)
            zygote=self._zygote if arguments[0] == "hostagent" else None,
        )
        service.start()
        return service

    def _agent(self) -> list[str]:
        arguments = ["hostagent", "agent", "--node", self.name]
        arguments += ["--repository", str(self.repository)]
        return arguments + (["--user", str(AGENT_USER)] if is_root() else [])

    def _responder(self) -> list[str]:
        arguments = [*self._profile.responder, "--agent", str(self.feed)]
        arguments += ["--identity", self._profile.identity]
        arguments += _dialect_options(self.wired.node.dialects)
        if self.responders > 1:
            arguments += ["--processes", str(self.responders)]
        if self._access_log:
            arguments.append("--access-log")
        if self._signing_key is not None:
            arguments += ["--signing-key", str(self._signing_key)]
        return arguments + (["--user", str(RESPONDER_USER)] if is_root() else [])


def _listening(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.listen()
    path.chmod(0o600)
    return made


def _dialect_options(dialects: Dialects) -> list[str]:
    """The responder's options for its dialects; those that the lab leaves out are defaults."""
    options = []
    if dialects.names != Dialects().names:
        options += ["--dialects", ",".join(dialects.names)]
    if dialects.azure_rate is not None:
        options += ["--azure-rate", f"{dialects.azure_rate:g}"]
    if dialects.azure_events_delay is not None:
        options += ["--azure-events-delay", f"{dialects.azure_events_delay:g}s"]
    if dialects.azure_incarnation_restarts:
        options.append("--azure-incarnation-restarts")
    if dialects.ec2_imdsv1 is not None:
        options += ["--ec2-imdsv1" if dialects.ec2_imdsv1 else "--no-ec2-imdsv1"]
    if dialects.ec2_hop_limit is not None:
        options += ["--ec2-hop-limit", str(dialects.ec2_hop_limit)]
    return options


def is_root() -> bool:
    """Whether the lab is root's. An ordinary user's lab has one user only, with the ID 0."""
    _, _, users = Path("/proc/self/uid_map").read_text().split()[:3]
    return int(users) > AGENT_USER
