"""A lab to measure in: wired and guarded like any, with its guests bound without claims.

A measuring process runs in a sandbox of its own. No guest claims anything there, and the bench
starts the servers on the nodes. All of it ends with the process.
"""

import asyncio
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from netemu.bench.build import lab_of
from netemu.bench.report import Report
from netemu.errors import NetemuError, NotSo, of_exit_code
from netemu.kernel import addressing, confinement, links, netlink
from netemu.kernel import namespaces as ns
from netemu.kernel.bindings import Binding, Bindings
from netemu.kernel.factory_client import Factory
from netemu.kernel.namespaces import inside
from netemu.kernel.sockets import HTTP
from netemu.linklocal import addresses
from netemu.linklocal.addresses import BROADCAST_TEXT
from netemu.supervisor.boot import sandbox
from netemu.supervisor.guests.namespace_machine import NamespaceMachine
from netemu.supervisor.nodes.wiring import (
    BRIDGE_INDEX,
    METADATA,
    Manner,
    WiredGuest,
    WiredNode,
    wire,
)
from netemu.topology import Lab
from netemu.wire.progress import Progress
from netemu.wire.source import python_path

_Job = TypeVar("_Job", bound=msgspec.Struct)

_PATIENCE: Final = 20.0
"""Seconds for a server to answer its first request."""

HERE: Final = Path("/run/bench")
"""The servers' directory in the sandbox."""

LOG: Final = HERE / "log"
"""The servers' output."""


class Outcome(msgspec.Struct):
    """The result of a measuring process: a report, or an error and its exit code."""

    report: Report | None = None
    failed: str = ""
    code: int = 0


def measure(module: str, job: msgspec.Struct) -> Report:
    """Run `module` in a sandbox with this job; its progress goes to standard error."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, str(os.getpid())],
        input=msgspec.json.encode(job),
        stdout=subprocess.PIPE,
        check=False,
        env={**os.environ, "PYTHONPATH": python_path()},
    )
    if not done.stdout:
        raise NotSo(f"the measuring process ended with {done.returncode}")
    outcome = msgspec.json.decode(done.stdout, type=Outcome)
    if outcome.report is None:
        raise of_exit_code(outcome.code, outcome.failed)
    return outcome.report


def main(job_type: type[_Job], run: Any) -> int:
    """Be a measuring process: enter a sandbox, and write the result of `run(job)`."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=job_type)
    out = os.dup(1)
    try:
        confinement.end_with_parent()
        if str(os.getppid()) != sys.argv[1]:  # it ended before the kernel was asked
            return 1
        sandbox.enter()
        confinement.end_with_parent()  # entering the sandbox resets it
        if (child := os.fork()) != 0:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        confinement.end_with_parent()
        _settle()
        outcome = Outcome(run(job))
    except NetemuError as error:
        outcome = Outcome(failed=f"{error}{_last_words()}", code=error.exit_code)
    with os.fdopen(out, "wb") as pipe:
        pipe.write(msgspec.json.encode(outcome))
    return 0


def _last_words() -> str:
    if not LOG.exists():
        return ""
    lines = LOG.read_text(errors="replace").splitlines()
    return "".join(f"\n    {line}" for line in lines[-5:])


def _settle() -> None:
    quiet = ns.MS_NOSUID | ns.MS_NODEV
    ns.mount("none", "/", flags=ns.MS_REC | ns.MS_PRIVATE)
    ns.mount("proc", "/proc", "proc", quiet | ns.MS_NOEXEC)
    ns.mount("sysfs", "/sys", "sysfs", quiet | ns.MS_NOEXEC)
    ns.mount("tmpfs", "/run", "tmpfs", quiet, "mode=755")
    HERE.mkdir()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def set_up(sizes: dict[str, int], processes: Mapping[str, int] = {}) -> list[WiredNode]:
    """Build a node for each name with that many guests, each bound to an address.

    `processes`: the processes of a node's responder (default: one).

    Guests have permanent neighbour entries for their node: a thousand ordinary ones would fill the
    kernel's one neighbour table by default, which would distort the measurement.
    """
    largest = max(sizes.values())
    lab = lab_of(len(sizes), len(sizes) * largest, "bench")
    cut = [
        msgspec.structs.replace(
            node, guests=node.guests[: sizes[name]], processes=processes.get(name, 1)
        )
        for node, name in zip(lab.nodes, sizes, strict=True)
    ]
    lab = msgspec.structs.replace(lab, nodes=tuple(cut))
    nodes = asyncio.run(_wired(lab))
    for node in nodes:
        with inside(node.net):
            table = Bindings.open(BRIDGE_INDEX)
        table.add([Binding(one.guest.port, one.guest.mac, address_of(one)) for one in node.guests])
        table.close()
        for one in node.guests:
            with inside(net_of(one)), netlink.Netlink.open() as kernel:
                prefix, index = addresses.PREFIX_LENGTH, links.GUEST_INDEX
                own = addressing.address(index, address_of(one), prefix, BROADCAST_TEXT)
                way = addressing.neighbour(index, METADATA, node.node.mac)
                kernel.run((own, addressing.direct_route(index), way))
    return nodes


async def _wired(lab: Lab) -> list[WiredNode]:
    silent = Silent(os.open(os.devnull, os.O_WRONLY))
    return await wire(lab, Factory(), Manner(lab.policy), progress=silent)


class Silent(Progress):
    """Progress that is discarded."""

    def step(self, phase: str, done: int, of: int) -> None:
        """Discard the step."""


def net_of(wired: WiredGuest) -> int:
    """Return a descriptor of a guest's network namespace."""
    assert isinstance(wired.machine, NamespaceMachine)
    return wired.machine.net


def address_of(wired: WiredGuest) -> str:
    """Return the address to which a guest is bound."""
    return addresses.to_text(addresses.FIRST + wired.guest.mark)


def await_answer(name: str, net: int, request: bytes) -> bytes:
    """Return the first 200 of `name` to a guest; raises NotSo if none comes in time."""
    deadline = time.monotonic() + _PATIENCE
    heard = b""
    while time.monotonic() < deadline:
        with inside(net):
            link = socket.socket()
        with link:
            link.settimeout(1.0)
            try:
                link.connect((METADATA, HTTP))
                link.sendall(request)
                heard = link.recv(65536)
            except OSError as error:
                heard = str(error).encode()
        if heard.startswith(b"HTTP/1.1 200"):
            return heard
        time.sleep(0.05)
    raise NotSo(f"{name} does not answer: {heard[:200].decode(errors='replace')}")


def say(what: str) -> None:
    """Print what is being measured, on standard error."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{what}")
        sys.stderr.flush()
