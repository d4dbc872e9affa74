"""What each process of a running lab may do is what the supervisor's README says."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from netemu.bench.processes import descendants
from tests.conftest import NOBODY, SOURCE, RunningLab
from tests.netemu.labs.test_lab_freeze import Frozen
from tests.netemu.labs.test_lab_isolation import wait_until

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may look at all of them"),
]

README = SOURCE / "netemu" / "supervisor" / "README.md"
SERVICES = {61901, 61902, 61903, 61904}
FIRST_OF_GUESTS = 0x70000000
LAB = "nodes: {n: {guests: [{name: a, run: [sleep, '7501'], link: {delay: 1ms}}, b]}}"
# By which a process is known: a part of its command line, NUL for each space.
KNOWN = {
    "supervisor": "netemu.supervisor.boot.pid1",
    "factory": "netemu.kernel.factory",
    "zygote": "hostagent.zygote",
    "agent": "hostagent\0agent",
    "responder": "hostagent\0responder",
    "relay": "netemu.impairment.relay",
    "store dialler": "netemu.supervisor.boot.store_dialler",
    "first process of a guest": "netemu.kernel.factory",
    "program of a guest": "sleep\x007501",
    "command in a guest": "sleep\x007502",
    "command on a node": "sleep\x007503",
    "tracer of a frozen guest": "netemu.kernel.factory",
}


class Seen(NamedTuple):
    """What the kernel says of a process."""

    line: str
    name: str
    user: int
    capabilities: int
    filtered: bool
    descriptors: set[str]
    place: str
    tracer: int
    number: int

    @classmethod
    def of(cls, number: int) -> "Seen":
        place = Path(f"/proc/{number}")
        told = dict(re.findall(r"(\w+):\t(.*)", (place / "status").read_text()))
        return cls(
            (place / "cmdline").read_text(),
            told["Name"],
            int(told["Uid"].split()[0]),
            int(told["CapEff"], 16),
            told["Seccomp"] == "2",
            {path.name for path in (place / "fd").iterdir()},
            os.readlink(place / "ns" / "mnt"),
            int(told["TracerPid"]),
            number,
        )


def table() -> Iterator[list[str]]:
    """The rows of the README's table."""
    text = README.read_text().split("## What each process may do")[1].split("\n## ")[0]
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[0] != "Process" and set(cells[0]) != {"-"}:
            yield cells


def found(all_of_them: list[Seen], process: str) -> Seen:
    fits = [one for one in all_of_them if KNOWN[process] in one.line]
    if process == "first process of a guest":
        fits = [one for one in fits if one.name == "init a"]
    elif process == "tracer of a frozen guest":
        fits = [one for one in fits if one.number in {other.tracer for other in all_of_them}]
    elif process == "factory":
        tracers = {other.tracer for other in all_of_them}
        fits = [one for one in fits if one.number not in tracers and "init" not in one.name]
    # A helper that starts a command has its words behind its own.
    return min(fits, key=lambda one: len(one.line))


def test_the_table_of_privileges_is_true(fresh_lab: Callable[..., RunningLab]) -> None:
    """What a process may do (user, capabilities, calls, descriptors, place) is what is written."""
    lab = fresh_lab(LAB)
    owner = NOBODY if lab.person.kind == "user" else 0
    commands = [
        lab.person.start("exec", "--name", lab.name, place, "--", "sleep", length)
        for place, length in (("a", "7502"), ("n", "7503"))
    ]
    link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    module = "netemu.supervisor.boot.store_dialler"
    with theirs:  # no store is there: it is started as a lab with one does
        dialler = subprocess.Popen(
            [*lab.person.prefix, sys.executable, "-P", "-m", module, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
        )
    try:
        wait_until(lambda: all(line.startswith(b"sleep") for line in map(innermost, commands)), 20)
        with Frozen(lab, "a"):
            supervisor = lab.status()["supervisor"]
            numbers = [supervisor, *descendants(supervisor), dialler.pid]
            numbers += [pid for one in commands for pid in descendants(one.pid)]
            seen = [Seen.of(number) for number in numbers]
        # What guests wait for has a session of its own, and as root's a priority.
        own = os.getpriority(os.PRIO_PROCESS, 0)
        responder = found(seen, "responder").number
        sessions = [os.getsid(found(seen, one).number) for one in ("agent", "zygote", "supervisor")]
        assert os.getsid(responder) not in sessions
        assert os.getpriority(os.PRIO_PROCESS, responder) == (own if owner else -10)
        here, inside = os.readlink("/proc/self/ns/mnt"), Seen.of(supervisor).place
        rows = list(table())
        assert {row[0] for row in rows} == set(KNOWN)
        for process, user, capabilities, calls, descriptors, place in rows:
            one = found(seen, process)
            as_told = {
                "owner": one.user == owner,
                "service's": one.user in SERVICES if owner == 0 else one.user == owner,
                "guest's": one.user >= FIRST_OF_GUESTS if owner == 0 else one.user == owner,
            }
            assert as_told[user], (process, one)
            assert (one.capabilities != 0) == (capabilities == "all"), (process, one)
            assert one.filtered == (calls == "filtered"), (process, one)
            if descriptors.startswith("0, 1, 2"):
                assert one.descriptors >= {"0", "1", "2"}, (process, one)
                assert len(one.descriptors) == len(descriptors.split(",")), (process, one)
            seen_at = {here: "machine", inside: "sandbox"}.get(one.place, "guest")
            assert seen_at == place, (process, one)
    finally:
        link.close()
        dialler.wait(timeout=20)
        for command in commands:
            command.send_signal(signal.SIGTERM)
            command.communicate(timeout=20)


def innermost(command: "subprocess.Popen[str]") -> bytes:
    """The command line of what a command has started at last."""
    started = [*descendants(command.pid)]
    return Path(f"/proc/{started[-1]}/cmdline").read_bytes() if started else b""
