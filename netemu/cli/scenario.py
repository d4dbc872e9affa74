"""`netemu scenario`: labs with a story, played and judged."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from netemu.cli.progress import phases
from netemu.errors import BadInput

if TYPE_CHECKING:
    from netemu.scenario.requests import Run

_file = click.Path(path_type=Path, dir_okay=False)


@click.group()
def scenario() -> None:
    """Play a story in a lab of its own, and say whether it went as it has to."""


@scenario.command("masked-reboot")
@click.option("--only", type=click.Choice(["with", "without"]), help="With drain agents, or not.")
@click.option("--time-scale", type=click.FloatRange(0, min_open=True), default=1.0, metavar="X",
              show_default=True, help="Multiply every duration of RFC 3927 by X.")  # fmt: skip
@click.option("--duration", type=click.FloatRange(2, 30), default=6.0, show_default=True,
              metavar="SECONDS", help="That a guest is away before it boots.")  # fmt: skip
@click.option("--calm", type=click.FloatRange(1, 600), default=4.0, show_default=True,
              metavar="SECONDS", help="Between reboots.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(32, 256), default=64.0, show_default=True,
              metavar="N", help="Requests a second, of 64 clients in turn.")  # fmt: skip
@click.option("--json", "json_file", type=_file, metavar="FILE", help="For programs.")
@click.option("--plot", "plot_file", type=_file, metavar="FILE.svg")
def masked_reboot(
    only: str | None,
    time_scale: float,
    duration: float,
    calm: float,
    rate: float,
    json_file: Path | None,
    plot_file: Path | None,
) -> int:
    """Reboot three web guests in turn, under load, and have nobody notice.

    They stand behind HAProxy, which keeps clients with the guest that has answered them. In each a
    drain agent sees its reboot announced, takes the guest out of HAProxy's pool, approves, and puts
    it back: no request fails, and a client moves only when its guest goes. The same without the
    agents shows the failures. Exit code 1 if it is not so. Takes two minutes.
    """
    from netemu.plotting import pyplot
    from netemu.scenario import play, plot

    play.require()
    if plot_file is not None:
        pyplot()
    for file in (json_file, plot_file):
        _require_writable(file)
    pace = play.Pace(time_scale=time_scale, duration=duration, calm=calm, rate=rate)
    kinds = {"with": (True,), "without": (False,), None: (True, False)}[only]
    with phases() as on_step:
        runs = [play.play(drained=drained, pace=pace, on_step=on_step) for drained in kinds]
    _print(runs)
    if json_file is not None:
        json_file.write_text(json.dumps([run.summary() for run in runs], indent=2) + "\n")
    if plot_file is not None:
        plot.draw(runs, plot_file)
    problems = [problem for run in runs for problem in run.problems()]
    for problem in problems:
        click.echo(problem)
    return 1 if problems else 0


def _require_writable(file: Path | None) -> None:
    """Raises BadInput for a file that cannot be written, before two minutes have passed."""
    if file is not None:
        try:
            file.open("a").close()
        except OSError as error:
            raise BadInput(f"{file}: {error.strerror}") from None


def _print(runs: "Sequence[Run]") -> None:
    """The table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("agents")
    for title in ("reboots", "requests", "failed", "slowest", "moved", "without cause"):
        table.add_column(title, justify="right")
    for run in runs:
        told = run.summary()
        slowest = "" if told["slowest"] is None else f"{1000 * told['slowest']:,.0f} ms"
        table.add_row(
            "on" if run.drained else "off",
            *(f"{count:,}" for count in (len(run.reboots), told["requests"], told["failed"])),
            slowest,
            f"{told['moved']} of {told['clients']}",
            str(told["unprovoked"]),
        )
    Console().print(table)
