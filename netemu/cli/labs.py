"""Verbs that bring labs up and down, and show them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hostagent.terminal.output import Part, Styled, say, say_json
from netemu.cli.completing import labs
from netemu.cli.options import TIME_SCALE, as_json, lab_name, named, of_lab
from netemu.cli.progress import phases
from netemu.cli.store import at_store, count, say_up
from netemu.interfaces import port_name

if TYPE_CHECKING:
    from netemu.wire.store_address import StoreAddress

_LISTED = ("name", "state", "policy", "nodes", "guests")


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@lab_name
@click.option(
    "--time-scale",
    type=TIME_SCALE,
    default=1.0,
    show_default=True,
    metavar="X",
    help="Multiply every duration of RFC 3927 by X: 0.1 claims ten times as fast.",
)
@click.option(
    "--share",
    "shared",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIRECTORY",
    help="Let guests write there; elsewhere what they write in root's lab stays with them.",
)
@at_store(required=False)
@click.option(
    "--machines",
    metavar="NAME,...",
    help="Spread nodes without a 'machine:' over these, by their guests; they 'join' then.",
)
@click.option("--foreground", is_flag=True, help="Stay until the lab ends; Ctrl-C takes it down.")
def up(
    file: Path | None,
    name: str | None,
    time_scale: float,
    shared: tuple[Path, ...],
    store: "StoreAddress | None",
    machines: str | None,
    foreground: bool,
) -> None:
    """Bring a lab up, from FILE or the built-in one of 2 nodes with 3 guests each.

    FILE may be - for standard input. ${NAME} and ${NAME:-default} in it stand for variables of the
    environment.

    Returns when every guest holds an address and is answered by its node's responder. A lab of
    the same name and file that runs already is left as it is.
    """
    from netemu.client import labs
    from netemu.topology import DEMO, spread
    from netemu.wire.lab_file import load
    from netemu.wire.limits import Size, limits

    lab = load(file or DEMO, name=name)
    if machines is not None:
        if store is None:
            raise click.UsageError(
                "--machines: give --store too; without it a lab is on one machine"
            )
        lab = spread(lab, machines.split(","))
    for one in limits(Size.of(lab)):
        if not one.ok and not one.vital:
            say(f"{one.what}: {one.seen}: {one.remedy}", err=True)
    with phases() as on_step:
        new = labs.bring_up(
            lab,
            time_scale=time_scale,
            on_step=on_step,
            owned=foreground,
            shared=shared,
            store=store,
        )
    say_up(lab, new, store)
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
    """Take LAB down, or the only one that runs. It is not an error if none runs."""
    from netemu.client import labs

    names = labs.running()
    wanted = named(lab, name)
    if wanted is not None:
        chosen = [wanted]
    elif everything:
        chosen = names
    else:
        chosen = [labs.the_one(None)] if names else []
    if not chosen:
        say("no lab runs")
    for one, was_up in labs.take_all_down(chosen):
        say(f"{one}: down" if was_up else f"{one}: was not up")


@click.command("list")
@as_json
def list_labs(as_json: bool) -> None:
    """List the labs of this user that run."""
    from netemu.client import labs

    found = labs.overview()
    if as_json:
        say_json(found)
        return
    if not found:
        say("no lab runs")
        return
    from hostagent.terminal.table import Column, print_table

    print_table(
        [
            Column("LAB"),
            Column("STATE", rank=2),
            Column("POLICY", rank=3),
            Column("NODES", rank=4, right=True),
            Column("GUESTS", rank=1, right=True),
        ],
        [["-" if one[key] is None else str(one[key]) for key in _LISTED] for one in found],
    )
    for one in found:
        if one["state"] == "hung":
            say(f"{one['name']} does not answer; 'netemu down {one['name']}' ends it", err=True)


@click.command()
@click.argument("lab", required=False, shell_complete=labs)
@of_lab
@as_json
def status(lab: str | None, name: str | None, as_json: bool) -> None:
    """Show the nodes and guests of LAB, or of the only one that runs."""
    from netemu.client import labs

    told = labs.status(labs.the_one(named(lab, name)))
    if as_json:
        say_json(told)
    else:
        _print_status(told)


def _print_status(told: dict[str, Any]) -> None:
    from hostagent.terminal.table import Column, print_table

    scale = told["time_scale"]
    pace = "" if scale == 1 else f", time scale {scale:g}"
    say(Styled(told["name"], "bold"), f": {told['state']}, {told['policy']}{pace}")
    print_table(
        [
            Column("NODE", rank=1),
            Column("GUEST"),
            Column("ADDRESS"),
            Column("MAC", rank=3),
            Column("PORT", rank=4),
            Column("STATE", rank=2),
        ],
        [
            [
                node["name"] if place == 0 else "",
                guest["name"],
                guest["address"] or "-",
                guest["mac"],
                port_name(guest["port_mark"]),
                _state(guest),
            ]
            for node in told["nodes"]
            for place, guest in enumerate(node["guests"])
        ],
    )
    if "problem" in told.get("store", {}):
        say(Styled("store", "red"), f": away, so no command is taken: {told['store']['problem']}")
    for node in told.get("elsewhere", ()):
        guests = ", ".join(node["guests"]) or "none known"
        where = f"on machine {node['machine']}" if node["machine"] else "on the first machine"
        state = "" if node["state"] == "there" else ", which is away"
        say(Styled(node["name"], "bold" if not state else "red"), f": {where}{state}: {guests}")
    for node in told["nodes"]:
        if node.get("state") == "failed":
            problem = node.get("problem")
            say(Styled(node["name"], "red"), f": failed{f', and {problem}' if problem else ''}")
        for guest in node["guests"]:
            if "problem" in guest:
                say(Styled(guest["name"], "yellow"), f": {guest['problem']}")
    for service in told["services"]:
        if service["state"] != "running" or service["restarts"]:
            how = ": ".join(filter(None, (service["last_end"], service["last_line"])))
            say(
                Styled(service["name"], "yellow"),
                f": {service['state']}, started again {count(service['restarts'], 'time')}"
                + (f", last ended with {how}" if how else ""),
            )


def _state(guest: dict[str, Any]) -> Part:
    if guest["power"] != "running":
        return Styled(guest["power"], "yellow")
    if "impaired" in guest:
        return Styled(f"{guest['state']}, impaired", "yellow")
    return Styled(guest["state"], "green" if guest["state"] == "bound" else "yellow")
