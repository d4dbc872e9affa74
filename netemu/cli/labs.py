"""Verbs that bring labs up and down, and show them."""

import json
from pathlib import Path
from typing import Any

import click

from netemu.cli.completing import labs
from netemu.cli.options import lab_name, of_lab
from netemu.cli.progress import phases


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@lab_name
@click.option(
    "--time-scale",
    type=float,
    default=1.0,
    show_default=True,
    metavar="X",
    help="Multiply every duration of RFC 3927 by X: 0.1 claims ten times as fast.",
)
@click.option("--foreground", is_flag=True, help="Stay until the lab ends; Ctrl-C takes it down.")
def up(file: Path | None, name: str | None, time_scale: float, foreground: bool) -> None:
    """Bring a lab up, from FILE or the built-in one of 2 nodes with 3 guests each.

    Returns when every guest holds an address and is answered by its node's responder. A lab of
    the same name and file that runs already is left as it is.
    """
    from netemu.client import labs
    from netemu.topology import DEMO
    from netemu.wire.lab_file import load
    from netemu.wire.limits import Size, limits

    lab = load(file or DEMO, name=name)
    for one in limits(Size.of(lab)):
        if not one.ok and not one.vital:
            click.echo(f"{one.what}: {one.seen}: {one.remedy}", err=True)
    with phases() as on_step:
        new = labs.bring_up(lab, time_scale=time_scale, on_step=on_step)
    nodes, guests = len(lab.nodes), len(lab.guests)
    shape = f"{_count(nodes, 'node')}, {_count(guests, 'guest')}"
    click.echo(f"{lab.name}: {'up' if new else 'was up already'} ({shape})")
    if foreground:
        try:
            labs.follow(lab.name)
        finally:
            labs.take_down(lab.name)


@click.command()
@click.argument("lab", required=False, shell_complete=labs)
@lab_name
@click.option("--all", "everything", is_flag=True, help="Every lab of this user.")
def down(lab: str | None, name: str | None, everything: bool) -> None:
    """Take LAB down, or the only one that runs. That none runs is no error."""
    from netemu.client import labs

    if lab and name and lab != name:
        raise click.UsageError(f"two labs are named: {lab} and {name}")
    names = labs.running()
    wanted = lab or name
    if wanted is not None:
        chosen = [wanted]
    elif everything:
        chosen = names
    else:
        chosen = [labs.the_one(None)] if names else []
    if not chosen:
        click.echo("no lab runs")
    for one in chosen:
        click.echo(f"{one}: down" if labs.take_down(one) else f"{one}: was not up")


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_labs(as_json: bool) -> None:
    """List the labs of this user that run."""
    from netemu.client import labs
    from netemu.errors import NotSo

    found = []
    for name in labs.running():
        try:
            found.append(labs.status(name))
        except NotSo:  # it has ended meanwhile
            continue
    if as_json:
        keys = ("name", "policy", "state", "supervisor")
        listed = [
            {
                **{key: one[key] for key in keys},
                "nodes": len(one["nodes"]),
                "guests": sum(len(node["guests"]) for node in one["nodes"]),
            }
            for one in found
        ]
        click.echo(json.dumps(listed))
        return
    if not found:
        click.echo("no lab runs")
        return
    for one in found:
        guests = sum(len(node["guests"]) for node in one["nodes"])
        nodes = _count(len(one["nodes"]), "node")
        shape = f"{nodes}, {_count(guests, 'guest')}"
        click.echo(f"{one['name']}: {one['state']}, {one['policy']}, {shape}")


@click.command()
@click.argument("lab", required=False, shell_complete=labs)
@of_lab
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(lab: str | None, name: str | None, as_json: bool) -> None:
    """Show the nodes and guests of LAB, or of the only one that runs."""
    from netemu.client import labs

    if lab and name and lab != name:
        raise click.UsageError(f"two labs are named: {lab} and {name}")
    told = labs.status(labs.the_one(lab or name))
    if as_json:
        click.echo(json.dumps(told))
    else:
        _print_status(told)


def _print_status(told: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    scale = told["time_scale"]
    pace = "" if scale == 1 else f", time scale {scale:g}"
    console.print(f"[bold]{told['name']}[/]: {told['state']}, {told['policy']}{pace}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("NODE", "GUEST", "ADDRESS", "MAC", "PORT", "STATE"):
        table.add_column(heading, no_wrap=True)
    for node in told["nodes"]:
        for place, guest in enumerate(node["guests"]):
            running = guest["power"] == "running"
            state = guest["state"] if running else guest["power"]
            colour = "green" if state == "bound" else "yellow"
            table.add_row(
                node["name"] if place == 0 else "",
                guest["name"],
                guest["address"] or "-",
                guest["mac"],
                f"p{guest['port_mark']}",
                f"[{colour}]{state}[/]",
            )
    console.print(table)
    for node in told["nodes"]:
        if node.get("state") == "failed":
            console.print(f"[red]{node['name']}[/]: failed")
    for service in told["services"]:
        if service["state"] != "running" or service["restarts"]:
            how = ": ".join(filter(None, (service["last_end"], service["last_line"])))
            ended = f", last ended with {escape(how)}" if how else ""
            console.print(
                f"[yellow]{service['name']}[/]: {service['state']}, "
                f"started again {_count(service['restarts'], 'time')}{ended}"
            )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
