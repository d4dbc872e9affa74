"""Measures the delay from a command's acknowledgement to the last guest, and commands a second.

Guests wait in GCE's long poll for a change. `stage.measure` runs it as
`python -m netemu.bench.events`.
"""

import asyncio
import re
import selectors
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from hostagent.controller import Controller, SyncController
from hostagent.model import EventType
from netemu.bench import load, processes, servers, stage
from netemu.bench.report import Goal, Report
from netemu.bench.rounds import Sample, Spread, in_turn
from netemu.errors import NotSo
from netemu.kernel.namespaces import inside
from netemu.kernel.sockets import HTTP
from netemu.supervisor.nodes.wiring import METADATA, WiredNode

PATH: Final = "/computeMetadata/v1/instance/maintenance-event"
_FLAVOUR: Final = ("Metadata-Flavor: Google",)
_ETAG: Final = re.compile(rb"(?i)\r\netag: (\S+)\r\n")
_PATIENCE: Final = 10.0
_SETTLE: Final = 0.3
"""Seconds after the last request: by then the responder has parked all of them."""

_ASLEEP: Final = 0.01
"""Seconds until the responder sleeps again: a running process's CPU time lags by up to a tick."""

DELAY: Final = "ms"
LIMITS: Final = (2.0, 50.0)
"""Milliseconds allowed until a single guest, and until the last of a thousand, is answered."""

_CONTROLLERS: Final = 32
"""Controllers that command one agent at the same time."""

_IN_FLIGHT: Final = 8
"""Events that each of them plans before it cancels them."""


class Job(Struct):
    """How many guests wait, how often they are woken, and how many connections are parked."""

    rounds: int
    guests: int
    wakes: int
    parked: int
    seconds: float


def run(job: Job) -> Report:
    """Measure the agent and the responder of one node."""
    stage.say("building the lab")
    (node,) = stage.set_up({"node": job.guests})
    store = Path(tempfile.mkdtemp(prefix="netemu-bench-", dir="/var/tmp"))
    try:
        return _run(job, node, store)
    finally:
        shutil.rmtree(store, ignore_errors=True)
        stage.say("")


def _run(job: Job, node: WiredNode, store: Path) -> Report:
    (stage.HERE / node.node.name).mkdir()
    running = servers.Ours.start(node, store)
    nets = [stage.net_of(one) for one in node.guests]
    names = [one.guest.name for one in node.guests]
    stage.await_answer("the responder", nets[0], load.request(PATH, headers=_FLAVOUR))
    report = Report("events", {})
    with SyncController.connect(servers.command_socket(node)) as controller:

        def wake(count: int) -> Callable[[], Sample]:
            return lambda: _wake(controller, running, nets[:count], names[:count])

        woken = in_turn(
            {
                "acknowledged to a single poller": wake(1),
                f"acknowledged to the last of {len(nets):,}": wake(len(nets)),
            },
            rounds=job.rounds * job.wakes,
            warm_up=job.wakes,
            on_turn=stage.say,
        )
        for (what, samples), limit in zip(woken.items(), LIMITS, strict=True):
            report.samples[what] = samples
            worst = Spread.of([load.percentile([one[DELAY] for one in samples], 0.99)])
            report.goals.append(Goal(f"{what}, ms, p99", worst, "at most", limit))
        stage.say(f"{job.parked:,} parked connections")
        _memory(report, running, nets, job.parked)
    commands = in_turn(
        {"commands": lambda: asyncio.run(_commands(node, running, names, job.seconds))},
        rounds=job.rounds,
        on_turn=stage.say,
    )["commands"]
    report.samples[f"commands of {_CONTROLLERS} controllers"] = commands
    rates = Spread.of([one["1/s"] for one in commands])
    report.goals.append(Goal("durable commands, 1/s", rates, "at least", 2000))
    report.notes.append(f"the repository was at {store}, on the disk")
    kept = _kept(node, running, names, job)
    report.goals.append(Goal("commands lost by kill -9", Spread.of([kept]), "at most", 0))
    return report


def _poll(net: int) -> socket.socket:
    """Open a long poll that waits for the next change."""
    with inside(net):
        link = socket.socket()
    link.settimeout(_PATIENCE)
    link.connect((METADATA, HTTP))
    link.sendall(load.request(PATH, headers=_FLAVOUR))
    _wait_on(link, link.recv(65536))
    return link


def _wait_on(link: socket.socket, told: bytes) -> None:
    """Send a long poll for a change after the given answer."""
    etag = _ETAG.search(told)
    if etag is None:
        raise NotSo("the responder sent no ETag")
    path = f"{PATH}?wait_for_change=true&last_etag={etag[1].decode()}"
    link.sendall(load.request(path, headers=_FLAVOUR))


def _wake(
    controller: SyncController, running: servers.Ours, nets: list[int], names: list[str]
) -> Sample:
    """Measure the milliseconds from an event's acknowledgement to the last guest's answer.

    The CPU time is the responder's, from before the command on.
    """
    links = [_poll(net) for net in nets]
    with selectors.EpollSelector() as poll:
        for link in links:
            poll.register(link, selectors.EVENT_READ)
        time.sleep(_SETTLE if len(links) > 1 else _SETTLE / 10)
        if poll.select(0):
            raise NotSo("a long poll was answered although nothing had changed")
        before = processes.cpu_of(running.pids)
        event = controller.schedule(names, EventType.REBOOT, notice=3600)
        start = time.perf_counter()
        waiting = len(links)
        while waiting:
            ready = _ready(poll)
            if not ready:
                raise NotSo(f"{waiting} of {len(links)} long polls were not answered")
            for key, _ in ready:
                last = key.fileobj
                assert isinstance(last, socket.socket)
                told = last.recv(65536)
                if not told.startswith(b"HTTP/1.1 200"):
                    raise NotSo("a long poll was answered by another status than 200")
                poll.unregister(last)
                waiting -= 1
        took = time.perf_counter() - start
    time.sleep(_ASLEEP)
    used = processes.cpu_of(running.pids) - before
    assert isinstance(last, socket.socket)
    _wait_on(last, told)
    controller.cancel(event.id)
    last.recv(65536)  # so that it is not taken for the next answer
    for link in links:
        link.close()
    return {DELAY: 1000 * took, "CPU, ms": 1000 * used}


def _ready(poll: selectors.EpollSelector) -> list[tuple[selectors.SelectorKey, int]]:
    """Poll without sleeping for answered connections; returns none if it takes too long.

    On a virtual machine the hypervisor wakes a sleeping core, at the server's expense: 8 µs for
    each guest, where it was measured.
    """
    end = time.perf_counter() + _PATIENCE
    while not (ready := poll.select(0)):
        if time.perf_counter() > end:
            break
    return ready


def _memory(report: Report, running: servers.Running, nets: list[int], count: int) -> None:
    before = processes.resident(running.pids)
    links = [_poll(nets[number % len(nets)]) for number in range(count)]
    time.sleep(_SETTLE)
    after = processes.resident(running.pids)
    for link in links:
        link.close()
    used = (after - before) / 1e6
    report.samples[f"{count:,} parked"] = [{"MB": used, "KB each": 1000 * used / count}]
    goal = f"memory of {count:,} parked connections, MB"
    report.goals.append(Goal(goal, Spread.of([used]), "at most", 100))


async def _commands(
    node: WiredNode, running: servers.Ours, names: list[str], seconds: float
) -> Sample:
    """Measure acknowledged commands a second, each with a commit, from parallel controllers.

    The CPU time is the agent's.
    """
    path = servers.command_socket(node)
    controllers = [await Controller.connect(path) for _ in range(_CONTROLLERS)]
    end = time.perf_counter() + seconds
    done = 0

    async def command(controller: Controller, turn: Iterator[str]) -> None:
        nonlocal done
        while time.perf_counter() < end:
            planned = []
            for _ in range(_IN_FLIGHT):
                event = await controller.schedule([next(turn)], EventType.REBOOT, notice=3600)
                planned.append(event.id)
                done += 1
            for event_id in planned:
                await controller.cancel(event_id)
                done += 1

    before = processes.cpu_of([running.agent_pid])
    start = time.perf_counter()
    turns = [_from(names, number) for number in range(_CONTROLLERS)]
    await asyncio.gather(*map(command, controllers, turns))
    took = time.perf_counter() - start
    for controller in controllers:
        await controller.close()
    used = processes.cpu_of([running.agent_pid]) - before
    return {"1/s": done / took, "CPU, µs each": 1e6 * used / done}


def _from(names: list[str], number: int) -> Iterator[str]:
    while True:
        yield names[number % len(names)]
        number += 1


def _kept(node: WiredNode, running: servers.Ours, names: list[str], job: Job) -> int:
    """Plan events, kill the agent after the last acknowledgement, and count the missing."""
    with SyncController.connect(servers.command_socket(node)) as controller:
        planned = {
            controller.schedule([names[number % len(names)]], EventType.REBOOT, notice=3600).id
            for number in range(min(100, 10 * job.wakes))
        }
    running.kill_agent()
    servers.place(node)  # it may take a moment to start
    with SyncController.connect(servers.command_socket(node)) as controller:
        return len(planned - {event.id for event in controller.events()})


if __name__ == "__main__":
    sys.exit(stage.main(Job, run))
