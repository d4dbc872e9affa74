"""`netemu scenario`: plays a scenario in a lab, and judges it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hostagent.terminal.number import Number
from hostagent.terminal.output import say, say_json
from netemu.cli.options import TIME_SCALE, as_json, output, pictures, write, writing
from netemu.cli.progress import phases

if TYPE_CHECKING:
    from netemu.scenario.requests import Run


@click.group()
def scenario() -> None:
    """Play a story in a lab of its own, and say whether it went as it has to."""


@scenario.command("masked-reboot")
@click.option("--only", type=click.Choice(["with", "without"]), help="With drain agents, or not.")
@click.option("--time-scale", type=TIME_SCALE, default=1.0, metavar="X",
              show_default=True, help="Multiply every duration of RFC 3927 by X.")  # fmt: skip
@click.option("--duration", type=Number(2, 30), default=6.0, show_default=True,
              metavar="SECONDS", help="That a guest is away before it boots.")  # fmt: skip
@click.option("--calm", type=Number(1, 600), default=4.0, show_default=True,
              metavar="SECONDS", help="Between reboots.")  # fmt: skip
@click.option("--rate", type=Number(32, 256), default=64.0, show_default=True,
              metavar="N", help="Requests a second, of 64 clients in turn.")  # fmt: skip
@as_json
@output(".svg", ".json", what="a plot or the results")
def masked_reboot(
    only: str | None,
    time_scale: float,
    duration: float,
    calm: float,
    rate: float,
    as_json: bool,
    files: tuple[Path, ...],
) -> int:
    """Reboot three web guests in turn, under load, and have nobody notice.

    They stand behind HAProxy, which keeps clients with the guest that has answered them. In each a
    drain agent sees its reboot announced, takes the guest out of HAProxy's pool, approves, and puts
    it back: no request fails, and a client moves only when its guest goes. The same without the
    agents shows the failures. Exit code 1 if it is not so. Takes two minutes.
    """
    from netemu.scenario import play, plot

    play.require()
    plots = pictures(files)
    pace = play.Pace(time_scale=time_scale, duration=duration, calm=calm, rate=rate)
    kinds = {"with": (True,), "without": (False,), None: (True, False)}[only]
    with phases() as on_step:
        runs = [play.play(drained=drained, pace=pace, on_step=on_step) for drained in kinds]
    results = [run.summary() for run in runs]
    if as_json:
        say_json(results)
    else:
        _print(runs)
    for file in files:
        if file in plots:
            with writing(file):
                plot.draw(runs, file)
        else:
            write(file, json.dumps(results, indent=2) + "\n")
    problems = [problem for run in runs for problem in run.problems()]
    for problem in problems:
        say(problem, err=as_json)
    return 1 if problems else 0


def _print(runs: "Sequence[Run]") -> None:
    """The table."""
    from hostagent.terminal.table import Column, print_table

    rows = []
    for run in runs:
        told = run.summary()
        rows.append(
            [
                "on" if run.drained else "off",
                f"{len(run.reboots):,}",
                f"{told['requests']:,}",
                f"{told['failed']:,}",
                "" if told["slowest"] is None else f"{1000 * told['slowest']:,.0f} ms",
                f"{told['moved']} of {told['clients']}",
                str(told["unprovoked"]),
            ]
        )
    print_table(
        [
            Column("AGENTS"),
            Column("REBOOTS", rank=4, right=True),
            Column("REQUESTS", rank=1, right=True),
            Column("FAILED", right=True),
            Column("SLOWEST", rank=2, right=True),
            Column("MOVED", rank=3, right=True),
            Column("WITHOUT CAUSE", rank=5, right=True),
        ],
        rows,
    )
