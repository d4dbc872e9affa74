"""`netemu simulate`: more hosts than any machine holds, in virtual time."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from netemu.bench.simulation import Simulation


@click.group()
def simulate() -> None:
    """Run what a lab runs, in virtual time."""


@simulate.command()
@click.option("--hosts", type=click.IntRange(1, 65_000), default=1300, show_default=True)
@click.option(
    "--loss",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Probability that a frame does not reach a host that listens for it.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same gives the same.")
@click.option(
    "--newcomers",
    type=click.IntRange(1),
    default=20_000,
    show_default=True,
    help="Hosts that join, one after another, once all others are settled.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--plot", "plot_file", type=click.Path(path_type=Path, dir_okay=False), help="SVG.")
def claims(
    hosts: int,
    loss: float,
    seed: int,
    newcomers: int,
    json_file: Path | None,
    plot_file: Path | None,
) -> int:
    """Claim addresses (RFC 3927) on a simulated link, and hold it against the formulas.

    It is the state machine of the labs' guests, in virtual time. Exit code 1 if what is measured
    is not what the formulas say.
    """
    import sys

    from netemu.bench.simulation import simulate as run
    from netemu.errors import NotSo

    if plot_file is not None:
        from netemu.plotting import pyplot

        pyplot()

    def on_phase(phase: str) -> None:
        if sys.stderr.isatty():
            click.echo(f"{phase} …", err=True)

    found = run(hosts, loss=loss, seed=seed, newcomers=newcomers, on_phase=on_phase)
    _print(found)
    if json_file is not None:
        import msgspec

        told = {**msgspec.to_builtins(found), "holds": found.holds}
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(told)) + b"\n")
    if plot_file is not None:
        from netemu.bench import plot

        plot.simulation(found, plot_file)
    return 0 if found.holds else NotSo.exit_code


def _print(found: "Simulation") -> None:
    from statistics import fmean

    from rich.console import Console
    from rich.table import Table

    fleet = found.fleet
    times = fleet.claim_times
    click.echo(
        f"{fleet.hosts:,} hosts switched on at once, loss {found.loss:g}, seed {found.seed}: "
        f"{fleet.bound:,} bound after {min(times):.2f} … {max(times):.2f} s, "
        f"{fmean(times):.2f} s on average (a claim without conflict: 4 … 7 s, 5.5 s); "
        f"{fleet.conflicts:,} conflicts, {fleet.frames:,} frames, at most {fleet.most_tries:,} "
        f"candidates for one host; {fleet.held_twice:,} addresses held twice in the end"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("RFC 3927 1.3, DSN 2003", "MEASURED", "FORMULA", "STD. ERROR", "TRIALS", ""):
        table.add_column(heading, justify="left" if heading[:3] == "RFC" else "right")
    for one in found.comparisons:
        verdict = "[green]agrees[/]" if one.holds else "[red]DIFFERS[/]"
        shares = (_percent(share) for share in (one.measured, one.expected, one.error))
        table.add_row(one.what, *shares, f"{one.trials:,}", verdict)
    Console(highlight=False).print(table)


def _percent(share: float) -> str:
    if share in (0, 1) or 1e-6 < share < 1:
        return f"{100 * share:.5g} %"
    return f"{share:.1e}"
