"""Measures the responder beside other servers: requests a second, CPU time, delays, fairness.

Requests go from a guest's namespace over its wire, through the guard, to the node. They come from
wrk, or from a generator of our own where wrk is the bottleneck. Servers and clients have separate
cores. `stage.measure` runs it as `python -m netemu.bench.responder`.
"""

import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from netemu.bench import load, processes, servers, stage
from netemu.bench.report import Goal, Report
from netemu.bench.rounds import Sample, Spread, gathered, in_turn, ratio
from netemu.bench.servers import (
    AIOHTTP,
    AIOHTTP_PLAIN,
    EPOLL,
    NGINX,
    OURS,
    OURS_TWICE,
    UVICORN,
    UVICORN_PLAIN,
)
from netemu.errors import MachineCannot
from netemu.kernel import sysctl
from netemu.kernel.namespaces import inside
from netemu.supervisor.nodes.wiring import WiredNode

MODES: Final = ("keep-alive", "close", "pipelined")
LATENCY: Final = "p99 at a given rate, ms"
SLICE: Final = 0.05
"""Seconds of one of a round's many turns that measure delays. Every few tenths of a second a
machine pauses for a millisecond, with any server. That spoils some turns but not the round, whose
p99 is the median of its turns.
"""

PRESSED: Final = "kept alive, pressed, 1000/s"
"""Connections that are kept alive, asked by our own generator."""

WAITING: Final = f"one connection each, {load.WAITING} waiting, 1000/s"
"""Connections that are all made before the server continues."""

_PROCESSES: Final = {OURS_TWICE: 2}
_ALIKE: Final = (OURS, NGINX, EPOLL)
"""For close comparisons nodes have one size: a bridge and a guard of a thousand ports take part of
a request's time. The other servers have the advantage of a small node."""

_ALL: Final = (OURS, NGINX, EPOLL, UVICORN, UVICORN_PLAIN, AIOHTTP, AIOHTTP_PLAIN, OURS_TWICE)


class Job(Struct):
    """The seconds of each mode, the rounds, and how many guests poll at once and how often."""

    rounds: int
    seconds: float
    guests: int
    polls: int
    warm_up: int = 1


def rate(mode: str) -> str:
    """Return the metric's name for requests per second."""
    return f"{mode}, 1000/s"


def cpu(mode: str) -> str:
    """Return the metric's name for CPU time for each request."""
    return f"{mode}, CPU µs"


class _Contestant:
    """A server on its node, and the first guest there."""

    def __init__(self, name: str, node: WiredNode, cores: set[int]) -> None:
        self.name = name
        self.node = node
        self.net = stage.net_of(node.guests[0])
        with inside(self.net):
            # The side that closes first keeps the port for a minute. With a slow server that may be
            # the client, which runs out of ports after 28,000 connections.
            sysctl.write((("ipv4/tcp_tw_reuse", "1"),))
        self.running = servers.start(name, node)
        stage.await_answer(name, self.net, load.request(servers.PATH))
        processes.keep_to(cores, self.running.pids)

    def by_wrk(self, mode: str, seconds: float) -> Sample:
        pids = self.running.pids
        before = processes.cpu_of(pids)
        got = load.wrk(self.net, servers.PATH, mode, seconds)
        used = processes.cpu_of(pids) - before
        return {rate(mode): got.requests / got.seconds / 1000, cpu(mode): used / got.requests * 1e6}

    def pressed(self, seconds: float) -> Sample:
        got = load.as_answered(self._guests, servers.PATH, seconds)
        return {PRESSED: got.requests / got.seconds / 1000}

    def waiting(self, seconds: float) -> Sample:
        got = load.bursts(self._guests, servers.PATH, seconds, self.running.pids)
        return {WAITING: got.requests / got.seconds / 1000}

    @property
    def _guests(self) -> list[int]:
        """Return one guest for each server process: a process serves a guest."""
        return [stage.net_of(one) for one in self.node.guests[: _PROCESSES.get(self.name, 1)]]

    def delay(self, per_second: float, seconds: float) -> Sample:
        delays = load.paced(self.net, servers.PATH, rate=per_second, seconds=seconds)
        return {LATENCY: 1000 * delays.p99}


def run(job: Job) -> Report:
    """Measure all servers that are installed."""
    if (why := load.missing()) is not None:
        raise MachineCannot(why)
    absent = servers.missing()
    names = [name for name in _ALL if name not in absent]
    stage.say("building the lab")
    cores = {name: processes.apart(_PROCESSES.get(name, 1)) for name in names}
    processes.keep_to(cores[OURS][0], [os.getpid()])
    sizes = {name: job.guests if name in _ALIKE else _PROCESSES.get(name, 1) for name in names}
    nodes = stage.set_up(sizes, _PROCESSES)
    contestants = {
        name: _Contestant(name, node, cores[name][1])
        for name, node in zip(names, nodes, strict=True)
    }
    samples: dict[str, list[Sample]] = {name: [{}] * job.rounds for name in names}
    for what, measure in _measures(job.seconds).items():
        turns = {name: partial(measure, one) for name, one in contestants.items()}
        _add(samples, _taken(turns, what, job))
    report = Report("responder", samples)
    report.not_measured = [f"{name}: {why}" for name, why in absent.items()]
    _throughput_goals(report)
    report.notes += [_busy(samples, mode) for mode in MODES]
    if OURS_TWICE in samples:
        shares = ratio(samples[OURS_TWICE], samples[OURS], WAITING)
        report.notes.append(
            f"two processes answer waiting connections {shares.median:.2f} "
            f"({shares.min:.2f}…{shares.max:.2f}) times as fast as one"
        )
    if NGINX in contestants:
        report.goals.append(_delays(contestants, samples, job))
    report.goals.append(_fairness(contestants[OURS], job))
    stage.say("")
    return report


def _measures(seconds: float) -> dict[str, Callable[[_Contestant], Sample]]:
    """Return the measurements, each of which runs for all contestants in turn, so that compared
    values are measured seconds and not minutes apart.
    """
    return {
        **{mode: partial(_Contestant.by_wrk, mode=mode, seconds=seconds) for mode in MODES},
        PRESSED: partial(_Contestant.pressed, seconds=seconds),
        WAITING: partial(_Contestant.waiting, seconds=seconds),
    }


def _taken(
    turns: Mapping[str, Callable[[], Sample]], what: str, job: Job
) -> dict[str, list[Sample]]:
    return in_turn(
        turns,
        rounds=job.rounds,
        warm_up=job.warm_up,
        on_turn=lambda turn: stage.say(f"{what}: {turn}"),
    )


def _add(samples: dict[str, list[Sample]], more: Mapping[str, list[Sample]]) -> None:
    """Merge further metrics into the existing rounds."""
    for name, many in more.items():
        samples[name] = [{**a, **b} for a, b in zip(samples[name], many, strict=True)]


def _delays(
    contestants: Mapping[str, _Contestant], samples: dict[str, list[Sample]], job: Job
) -> Goal:
    """Ask the responder and nginx at half of nginx's peak, and add to the samples."""
    pace = Spread.of([sample[PRESSED] for sample in samples[NGINX]]).median * 1000 / 2
    turns = {name: partial(contestants[name].delay, pace, SLICE) for name in (OURS, NGINX)}
    what = f"delays at {pace:,.0f}/s"
    slices = max(1, round(2 * job.seconds / SLICE))
    taken = _taken(turns, what, replace(job, rounds=job.rounds * slices, warm_up=0))
    delays = {name: gathered(many, slices) for name, many in taken.items()}
    _add(samples, delays)
    what = f"p99 at half of nginx's peak, {pace:,.0f} requests/s, over nginx's"
    return Goal(what, ratio(delays[OURS], delays[NGINX], LATENCY), "at most", 1)


def _busy(samples: Mapping[str, list[Sample]], mode: str) -> str:
    """Return whether the server or the generator was the bottleneck: the rate of a server with idle
    time says nothing about it.
    """
    shares = {
        name: Spread.of([one[rate(mode)] * one[cpu(mode)] / 10 for one in many]).median
        for name, many in samples.items()
    }
    told = ", ".join(f"{name} {share:.0f} %" for name, share in shares.items())
    return f"{mode}, how busy the server was (the rest of its time it waited for wrk): {told}"


def _throughput_goals(report: Report) -> None:
    samples = report.samples
    for peer, metric, bound, limit in (
        (NGINX, PRESSED, "at least", 1.0),
        (NGINX, cpu("keep-alive"), "at most", 1.0),
        (NGINX, WAITING, "at least", 1.2),
        (NGINX, cpu("close"), "at most", round(1 / 1.2, 3)),  # the rate, if wrk were fast enough
        (NGINX, rate("pipelined"), "at least", 4.0),
        *((peer, PRESSED, "at least", 6.0) for peer in (UVICORN_PLAIN, UVICORN)),
        (UVICORN, rate("pipelined"), "at least", 6.0),
        *((peer, PRESSED, "at least", 5.0) for peer in (AIOHTTP_PLAIN, AIOHTTP)),
        (AIOHTTP, rate("pipelined"), "at least", 5.0),
        (EPOLL, cpu("keep-alive"), "at most", 1.25),
        (EPOLL, cpu("close"), "at most", 1.25),
    ):
        if peer in samples:
            value = ratio(samples[OURS], samples[peer], metric)
            report.goals.append(Goal(f"{metric}, over {peer}'s", value, bound, limit))


def _fairness(ours: _Contestant, job: Job) -> Goal:
    nets = [stage.net_of(one) for one in ours.node.guests]
    asked = load.request(servers.PATH, close=True)
    load.all_at_once(nets, asked, 1)  # warm up the neighbour tables
    shares = []
    for number in range(job.rounds):
        stage.say(f"{len(nets)} guests at once, round {number + 1} of {job.rounds}")
        ends = load.all_at_once(nets, asked, job.polls)
        shares.append(max(ends) / load.percentile(ends, 0.5))
    what = f"{len(nets):,} guests at once: the slowest over the median"
    return Goal(what, Spread.of(shares), "at most", 2)


if __name__ == "__main__":
    sys.exit(stage.main(Job, run))
