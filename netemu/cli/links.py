"""`netemu link`: impair wires while the lab runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hostagent.terminal.output import say, say_json
from hostagent.terminal.table import Column, print_table
from netemu.cli import completing
from netemu.cli.options import as_json, of_lab, plan_of

if TYPE_CHECKING:
    from netemu.impairment.plan import Direction
    from netemu.wire.link_questions import Which as Wire


@click.command()
@of_lab
@click.argument("targets", metavar="[list | GUEST|NODE...]", nargs=-1,
                shell_complete=completing.guests_and_nodes)  # fmt: skip
@click.option("--delay", metavar="TIME", help="Delay every frame by this, in each direction.")
@click.option("--jitter", metavar="TIME", help="Vary the delay by up to this.")
@click.option(
    "--distribution",
    type=click.Choice(["uniform", "normal"]),
    help="How the jitter is distributed.",
)
@click.option("--ordered", is_flag=True, help="Keep frames in order despite jitter.")
@click.option("--loss", metavar="%", help="Share of frames that are lost.")
@click.option("--gemodel", metavar="'P R [1-H [1-K]]'",
              help="Lose frames in bursts: the Gilbert-Elliott model.")  # fmt: skip
@click.option("--duplicate", metavar="%", help="Share of frames that come twice.")
@click.option("--reorder", metavar="%", help="Share of frames that overtake delayed ones.")
@click.option("--corrupt", metavar="%", help="Share of frames with one wrong bit.")
@click.option("--rate", metavar="RATE", help="Bits a second, as in 64kbit or 1mbit.")
@click.option("--trace", type=click.Path(path_type=Path), metavar="FILE",
              help="Take the rate from a mahimahi trace.")  # fmt: skip
@click.option("--limit", metavar="N", help="Frames that may wait.  [default: 1000]")
@click.option("--down", is_flag=True, help="The wire has no carrier.")
@click.option("--blackhole", is_flag=True, help="The wire has a carrier, and passes nothing.")
@click.option("--wire", type=click.Choice(["link-local", "tenant", "all"]), default="link-local",
              show_default=True, help="Which of a guest's wires.")  # fmt: skip
@click.option("--direction", type=click.Choice(["to", "from"]),
              help="Only to the guest, or from it; the other stays as it is.")  # fmt: skip
@click.option("--seed", metavar="N", help="Where the random numbers begin.  [default: 0]")
@click.option("--at", metavar="TIME", help="Add a change that begins after this time.")
@click.option("--for", "lasts", metavar="TIME", help="With --at: how long it lasts.")
@click.option("--every", metavar="TIME", help="With --at and --for: repeat it this often.")
@click.option("--times", metavar="N", help="With --every: how many times.")
@click.option("--clear", is_flag=True, help="End the impairment; without names, of all guests.")
@as_json
def link(
    name: str | None,
    targets: tuple[str, ...],
    wire: "Wire",
    direction: "Direction | None",
    clear: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Impair wires of guests, or of all guests of nodes; 'link list' shows those that are.

    The terms replace those that the wire has; with --at they are added to its schedule. A lab file
    has the same terms in 'link:' and 'tenant_link:'.

    Percentages are of frames. A time is 50ms, 2s or 1.5m.
    """
    from netemu.client import links

    given["for"] = given.pop("lasts")
    terms = {key: value for key, value in given.items() if value not in (None, False)}
    lab = plan_of(name)
    if targets in ((), ("list",)) and not terms and not clear:
        _print(lab.make(links.links()), as_json)
        return
    if as_json:
        raise click.UsageError("--json goes with 'link list'")
    if clear:
        if terms:
            raise click.UsageError("--clear goes with no terms")
        lab.make(links.clear_links(targets or None, wire=wire))
        say(f"{', '.join(targets) or 'all guests'}: as they were")
        return
    if not targets:
        raise click.UsageError("which wires? Name guests or nodes")
    if not terms:
        raise click.UsageError("what is to be wrong with it? As in --loss 5%, or --clear")
    lab.make(links.link(targets, terms, wire=wire, direction=direction))
    said = ", ".join(f"{key} {value}" if value is not True else key for key, value in terms.items())
    say(f"{', '.join(targets)}: {said}")


def _print(wires: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        say_json(wires)
        return
    if not wires:
        say("no wire is impaired")
        return
    print_table(
        [Column("GUEST"), Column("WIRE"), Column("STATE"), Column("TO IT", folds=True),
         Column("FROM IT", folds=True), Column("FRAMES", right=True), Column("LOST", right=True)],
        [
            (
                one["guest"],
                one["wire"],
                f"{one['state']}{', by a schedule' if one['schedule'] else ''}",
                _said(one["to"]),
                _said(one["from"]),
                _sum(one, "heard"),
                _sum(one, "lost", "blackholed", "overflowed", "missed", "unsent"),
            )
            for one in wires
        ],
    )  # fmt: skip


def _said(terms: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_value(key, value)}" for key, value in terms.items()) or "-"


def _value(key: str, value: Any) -> str:
    if value is True:
        return ""
    if key in ("delay", "jitter"):
        return f"{value * 1000:g}ms"
    if key == "gemodel":
        return " ".join(f"{100 * one:g}%" for one in value)
    if key == "rate":
        return f"{value / 1e6:g}mbit"
    return f"{100 * value:g}%" if isinstance(value, float) else str(value)


def _sum(wire: dict[str, Any], *kinds: str) -> str:
    counts = [way.get(kind) for way in wire["counts"].values() for kind in kinds]
    return "-" if None in counts else f"{sum(counts):,}"
