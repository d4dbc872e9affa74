"""From a controller's acknowledgement to the last guest that knows; and how many commands a second.

Guests wait in GCE's long poll for a change. Run as `python -m netemu.bench.events` by
`stage.measure`.
"""

import asyncio
import re
import selectors
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from hostagent.controller import Controller, SyncController
from hostagent.model import EventType
from netemu.bench import load, processes, servers, stage
from netemu.bench.report import Goal, Report
from netemu.bench.rounds import Sample, Spread
from netemu.errors import NotSo
from netemu.kernel.namespaces import inside
from netemu.lab.wiring import HTTP, METADATA, WiredNode

PATH: Final = "/computeMetadata/v1/instance/maintenance-event"
_FLAVOUR: Final = ("Metadata-Flavor: Google",)
_ETAG: Final = re.compile(rb"(?i)\r\netag: (\S+)\r\n")
_PATIENCE: Final = 10.0
_SETTLE: Final = 0.3
"""Seconds after the last question until all are parked: the responder has long read them."""

_CONTROLLERS: Final = 32
"""Controllers that command one agent side by side."""

_IN_FLIGHT: Final = 8
"""Events that each of them has planned before it takes them back."""


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
    running = servers.Ours(node, store)
    nets = [one.net for one in node.guests]
    names = [one.guest.name for one in node.guests]
    stage.await_answer("the responder", nets[0], load.request(PATH, headers=_FLAVOUR))
    report = Report("events", {})
    one, many = "to a single poller, ms", f"to the last of {len(nets):,}, ms"
    delays: dict[str, list[float]] = {one: [], many: []}
    with SyncController(servers.command_socket(node)) as controller:
        for number in range(job.rounds + 1):  # the first is a warm-up
            for what, count in ((one, 1), (many, len(nets))):
                stage.say(f"{what}, round {number} of {job.rounds}")
                woken = [_wake(controller, nets[:count], names[:count]) for _ in range(job.wakes)]
                delays[what] += woken if number else []
        for what, limit in ((one, 2.0), (many, 50.0)):
            report.samples[f"acknowledged {what}"] = [_delay(delays[what])]
            worst = Spread.of([load.percentile(delays[what], 0.99)])
            report.goals.append(Goal(f"acknowledged {what}, p99", worst, "at most", limit))
        stage.say(f"{job.parked:,} parked connections")
        _memory(report, running, nets, job.parked)
    rates = []
    for number in range(job.rounds):
        stage.say(f"commands, round {number + 1} of {job.rounds}")
        rates.append(asyncio.run(_commands(servers.command_socket(node), names, job.seconds)))
    report.samples[f"commands of {_CONTROLLERS} controllers"] = [{"1/s": rate} for rate in rates]
    report.goals.append(Goal("durable commands, 1/s", Spread.of(rates), "at least", 2000))
    report.notes.append(f"the repository was at {store}, on the disk")
    kept = _kept(node, running, names, job)
    report.goals.append(Goal("commands lost by kill -9", Spread.of([kept]), "at most", 0))
    return report


def _delay(values: list[float]) -> Sample:
    return {
        "median, ms": load.percentile(values, 0.5),
        "p99, ms": load.percentile(values, 0.99),
        "worst, ms": max(values),
    }


def _poll(net: int) -> socket.socket:
    """A long poll that waits for the next change."""
    with inside(net):
        link = socket.socket()
    link.settimeout(_PATIENCE)
    link.connect((METADATA, HTTP))
    link.sendall(load.request(PATH, headers=_FLAVOUR))
    _wait_on(link, link.recv(65536))
    return link


def _wait_on(link: socket.socket, told: bytes) -> None:
    """Ask to be told of what is other than what has been told."""
    etag = _ETAG.search(told)
    if etag is None:
        raise NotSo("the responder gives no ETag")
    path = f"{PATH}?wait_for_change=true&last_etag={etag[1].decode()}"
    link.sendall(load.request(path, headers=_FLAVOUR))


def _wake(controller: SyncController, nets: list[int], names: list[str]) -> float:
    """Milliseconds from the acknowledgement of an event until the last guest has been told."""
    links = [_poll(net) for net in nets]
    with selectors.EpollSelector() as poll:
        for link in links:
            poll.register(link, selectors.EVENT_READ)
        time.sleep(_SETTLE if len(links) > 1 else _SETTLE / 10)
        if poll.select(0):
            raise NotSo("a long poll was answered although nothing had changed")
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
                    raise NotSo("a long poll was answered by no 200")
                poll.unregister(last)
                waiting -= 1
        took = time.perf_counter() - start
    assert isinstance(last, socket.socket)
    _wait_on(last, told)
    controller.cancel(event.id)
    last.recv(65536)  # so that the next question is not answered by this
    for link in links:
        link.close()
    return 1000 * took


def _ready(poll: selectors.EpollSelector) -> list[tuple[selectors.SelectorKey, int]]:
    """Those who have been told, looked for without sleeping; none if it takes too long.

    On a virtual machine a core that sleeps is woken through the hypervisor, at the expense of the
    server that wakes it: 8 µs for each guest, where it was tried.
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


async def _commands(path: Path, names: list[str], seconds: float) -> float:
    """Commands a second that are acknowledged, each by a commit, to controllers side by side."""
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

    start = time.perf_counter()
    turns = [_from(names, number) for number in range(_CONTROLLERS)]
    await asyncio.gather(*map(command, controllers, turns))
    took = time.perf_counter() - start
    for controller in controllers:
        await controller.close()
    return done / took


def _from(names: list[str], number: int) -> Iterator[str]:
    while True:
        yield names[number % len(names)]
        number += 1


def _kept(node: WiredNode, running: servers.Ours, names: list[str], job: Job) -> int:
    """Plan events, kill the agent once the last is acknowledged: how many are missing then."""
    with SyncController(servers.command_socket(node)) as controller:
        planned = {
            controller.schedule([names[number % len(names)]], EventType.REBOOT, notice=3600).id
            for number in range(min(100, 10 * job.wakes))
        }
    running.kill_agent()
    servers.place(node)  # it may take a moment to start
    with SyncController(servers.command_socket(node)) as controller:
        return len(planned - {event.id for event in controller.events()})


if __name__ == "__main__":
    sys.exit(stage.main(Job, run))
