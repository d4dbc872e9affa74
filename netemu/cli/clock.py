"""`netemu clock`: the metadata plane's time."""

import time

import click

from hostagent.terminal.duration import Duration
from hostagent.terminal.output import say, say_json
from hostagent.times import to_milliseconds
from netemu.cli.options import as_json, of_lab, plan_of

# Nodes whose clocks differ by less show the same time: they are asked one after the other.
_SAME = 1.0


@click.group()
def clock() -> None:
    """Move or show the clock by which maintenance goes.

    Notices begin, events start and end, and tokens expire by it. It can only be moved forward; TCP
    and address claims take as long as before.
    """


@clock.command()
@of_lab
@click.argument("duration", type=Duration())
@as_json
def advance(name: str | None, duration: float, as_json: bool) -> None:
    """Move the clock of all the lab's nodes forward, as in: clock advance 10m."""
    from netemu.errors import BadInput

    if not duration:
        raise BadInput("DURATION: longer than nothing")
    _print({"": plan_of(name).advance(duration)}, as_json)


@clock.command()
@of_lab
@as_json
def show(name: str | None, as_json: bool) -> None:
    """Show the time that the lab's metadata plane has."""
    times = plan_of(name).now()
    if max(times.values()) - min(times.values()) < _SAME:
        times = {"": max(times.values())}
    _print(times, as_json)


def _print(times: dict[str, float], as_json: bool) -> None:
    """The time, or each node's if they differ; `""` stands for all nodes."""
    if as_json:
        latest = max(times.values())
        told = {"now": to_milliseconds(latest), "ahead": max(0.0, round(latest - time.time(), 3))}
        nodes = {node: to_milliseconds(now) for node, now in times.items() if node}
        say_json({**told, "nodes": nodes} if nodes else told)
        return
    for node, now in times.items():
        ahead = round(now - time.time())
        whose = f"{node}: " if node else ""
        say(f"{whose}{to_milliseconds(now)}{f', {ahead} s ahead' if ahead else ''}")
