"""Requests per second, CPU for each, delays and fairness: the responder beside other servers.

All are asked from a guest's namespace over its wire, through the guard, into the node's. Run as
`python -m netemu.bench.responder` by `stage.measure`.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

from netemu.bench import load, processes, servers, stage
from netemu.bench.report import Goal, Report
from netemu.bench.rounds import Sample, Spread, in_turn, ratio
from netemu.bench.servers import AIOHTTP, EPOLL, NGINX, OURS, OURS_TWICE, UVICORN
from netemu.errors import MachineCannot
from netemu.lab.wiring import WiredNode

MODES: Final = ("keep-alive", "close", "pipelined")
LATENCY: Final = "p99 at a given rate, ms"

FASTEST: Final = 15_000
"""Questions a second that the generator asks in time beside a server on another core; half of
nginx's peak, if that is less."""

_REQUESTS_KEPT: Final = 900
"""Requests on one connection: nginx and the responder both end it after 1,000."""


class Job(Struct):
    """How long each mode is asked, how many rounds, how many guests poll at once and how often."""

    rounds: int
    seconds: float
    guests: int
    polls: int
    warm_up: bool = True


def rate(mode: str) -> str:
    """The metric of requests per second."""
    return f"{mode}, 1000/s"


def cpu(mode: str) -> str:
    """The metric of CPU for each request."""
    return f"{mode}, CPU µs"


class _Contestant:
    """A server on its node, and the first guest there."""

    def __init__(self, name: str, node: WiredNode) -> None:
        self.name = name
        self.node = node
        self.net = node.guests[0].net
        self.running = servers.start(name, node)
        stage.await_answer(name, self.net, load.request(servers.PATH))

    def measure(self, seconds: float) -> Sample:
        found: dict[str, float] = {}
        for mode in MODES:
            pids = self.running.pids
            before = processes.cpu_of(pids)
            got = load.wrk(self.net, servers.PATH, mode, seconds)
            used = processes.cpu_of(pids) - before
            found[rate(mode)] = got.requests / got.seconds / 1000
            found[cpu(mode)] = used / got.requests * 1e6
        return found

    def delay(self, per_second: float, seconds: float) -> Sample:
        each = per_second * seconds / load.CONNECTIONS
        seconds *= min(1.0, _REQUESTS_KEPT / each)
        asked = load.request(servers.PATH)
        delays = load.paced(self.net, asked, rate=per_second, seconds=seconds)
        return {LATENCY: 1000 * load.percentile(delays, 0.99)}


def run(job: Job) -> Report:
    """Measure all that are installed."""
    if (why := load.why_no_wrk()) is not None:
        raise MachineCannot(why)
    absent = servers.missing()
    names = [
        name for name in (OURS, NGINX, EPOLL, UVICORN, AIOHTTP, OURS_TWICE) if name not in absent
    ]
    stage.say("building the lab")
    nodes = stage.set_up({name: job.guests if name == OURS else 1 for name in names})
    contestants = {name: _Contestant(name, node) for name, node in zip(names, nodes, strict=True)}
    samples = in_turn(
        {name: _measure(one, job.seconds) for name, one in contestants.items()},
        rounds=job.rounds,
        warm_up=job.warm_up,
        on_turn=stage.say,
    )
    report = Report("responder", samples)
    report.not_measured = [f"{name}: {why}" for name, why in absent.items()]
    _throughput_goals(report)
    report.notes += [_busy(samples, mode) for mode in MODES]
    if NGINX in contestants:
        peak = Spread.of([sample[rate("keep-alive")] for sample in samples[NGINX]]).median * 1000
        pace = min(peak / 2, FASTEST)
        delays = in_turn(
            {name: _delay(contestants[name], pace, job.seconds) for name in (OURS, NGINX)},
            rounds=job.rounds,
            warm_up=False,
            on_turn=lambda turn: stage.say(f"{turn}, delays at {pace:,.0f}/s"),
        )
        for name, many in delays.items():
            samples[name] = [{**a, **b} for a, b in zip(samples[name], many, strict=True)]
        slower = ratio(delays[OURS], delays[NGINX], LATENCY)
        what = f"p99 at {pace:,.0f} requests/s, over nginx's"
        report.goals.append(Goal(what, slower, "at most", 1))
        report.notes.append(f"half of nginx's peak would be {peak / 2:,.0f} requests/s")
    report.goals.append(_fairness(contestants[OURS], job))
    stage.say("")
    return report


def _measure(contestant: _Contestant, seconds: float) -> Callable[[], Sample]:
    return lambda: contestant.measure(seconds)


def _delay(contestant: _Contestant, per_second: float, seconds: float) -> Callable[[], Sample]:
    return lambda: contestant.delay(per_second, seconds)


def _busy(samples: Mapping[str, list[Sample]], mode: str) -> str:
    """Whether the server or the generator was at its end: rates of servers with time to spare say
    nothing of them.
    """
    shares = {
        name: Spread.of([one[rate(mode)] * one[cpu(mode)] / 10 for one in many]).median
        for name, many in samples.items()
    }
    told = ", ".join(f"{name} {share:.0f} %" for name, share in shares.items())
    return f"{mode}, how busy the server was (the rest of its time it waited for wrk): {told}"


def _throughput_goals(report: Report) -> None:
    samples = report.samples
    for peer, mode, metric, bound, limit in (
        (NGINX, "keep-alive", rate, "at least", 1.0),
        (NGINX, "keep-alive", cpu, "at most", 1.0),
        (NGINX, "close", rate, "at least", 1.2),
        (NGINX, "close", cpu, "at most", round(1 / 1.2, 3)),  # the rate, were wrk quick enough
        (NGINX, "pipelined", rate, "at least", 4.0),
        (UVICORN, "keep-alive", rate, "at least", 6.0),
        (UVICORN, "pipelined", rate, "at least", 6.0),
        (AIOHTTP, "keep-alive", rate, "at least", 5.0),
        (AIOHTTP, "pipelined", rate, "at least", 5.0),
        (EPOLL, "keep-alive", cpu, "at most", 1.25),
        (EPOLL, "close", cpu, "at most", 1.25),
    ):
        if peer in samples:
            value = ratio(samples[OURS], samples[peer], metric(mode))
            what = "requests/s" if metric is rate else "CPU/request"
            report.goals.append(Goal(f"{mode}: {what}, over {peer}'s", value, bound, limit))


def _fairness(ours: _Contestant, job: Job) -> Goal:
    nets = [one.net for one in ours.node.guests]
    asked = load.request(servers.PATH, close=True)
    load.all_at_once(nets, asked, 1)  # everybody knows the way
    shares = []
    for number in range(job.rounds):
        stage.say(f"{len(nets)} guests at once, round {number + 1} of {job.rounds}")
        ends = load.all_at_once(nets, asked, job.polls)
        shares.append(max(ends) / load.percentile(ends, 0.5))
    what = f"{len(nets):,} guests at once: the slowest over the median"
    return Goal(what, Spread.of(shares), "at most", 2)


if __name__ == "__main__":
    sys.exit(stage.main(Job, run))
