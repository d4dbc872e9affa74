"""`netemu fault`: the metadata service misbehaves on command."""

from datetime import UTC, datetime
from typing import Any

import click

from hostagent.terminal.duration import EXPLAINED, Duration
from hostagent.terminal.output import say, say_json
from hostagent.times import to_milliseconds
from netemu.cli import completing
from netemu.cli.options import as_json as json_option
from netemu.cli.options import of_lab, plan_of


@click.group(epilog=EXPLAINED)
def fault() -> None:
    """Add, list and clear faults of the metadata service.

    A request meets the first of its guest's faults that matches it. A fault may be named by the
    beginning of its ID, if no other begins so.
    """


@fault.command()
@of_lab
@click.argument(
    "guests", metavar="GUEST...", nargs=-1, required=True, shell_complete=completing.guests
)
@click.option("--path", default="*", metavar="GLOB", help="Paths of requests that meet it.")
@click.option(
    "--method",
    multiple=True,
    metavar="METHOD",
    help="Methods of requests that meet it; repeatable.",
)
@click.option("--at", type=Duration(), default=0.0, help="When it begins; default: now.")
@click.option("--for", "lasting", type=Duration(), help="How long; default: until cleared.")
@click.option("--times", type=click.IntRange(1, 10000), help="How many requests of each guest.")
@click.option(
    "--status", type=click.IntRange(400, 599), help="Answer this status, in the cloud's words."
)
@click.option("--throttle", metavar="RATE", help="Answer 429 above this rate: 1/s, 30/m.")
@click.option("--stale", is_flag=True, help="Answer as of when the fault began.")
@click.option("--expired", is_flag=True, help="Give credentials that have expired.")
@click.option("--clock", metavar="[-]DURATION", help="Set the service's clock ahead by this.")
@click.option("--garble", is_flag=True, help="Answer garbage.")
@click.option(
    "--truncate",
    type=click.IntRange(0, 1 << 20),
    metavar="BYTES",
    help="Cut bodies after so many bytes.",
)
@click.option("--delay", type=Duration(), help="Answer this much later.")
@click.option("--reset", is_flag=True, help="Reset the connection; with --truncate, in the body.")
@click.option("--hang", is_flag=True, help="Do not answer; with --delay, close after it.")
@click.option("--playbook", is_flag=True, help="Add the eight that a client has to ride out.")
@json_option
def add(name: str | None, guests: tuple[str, ...], as_json: bool, **wanted: Any) -> None:
    """Have requests of guests meet a fault: fault add web1 --path '/metadata/*' --status 500."""
    ids = plan_of(name).add_fault(guests, **wanted)
    if as_json:
        say_json(ids)
    else:
        for one in ids:
            say(one)


@fault.command("list")
@of_lab
@json_option
def list_faults(name: str | None, as_json: bool) -> None:
    """List the faults that are not over."""
    import msgspec

    from hostagent.faults import in_words
    from hostagent.terminal.table import Column, print_table

    known = plan_of(name).faults()
    if as_json:
        told = [{"guest": guest, **msgspec.to_builtins(one)} for guest, one in known]
        say_json(
            [
                {
                    **one,
                    "at": to_milliseconds(one["at"]),
                    "until": to_milliseconds(one.get("until")),
                }
                for one in told
            ]
        )
        return
    if not known:
        say("no faults")
        return
    print_table(
        [
            Column("ID", ids=[one.id for _, one in known]),
            Column("GUEST"),
            Column("DOES", folds=True),
            Column("PATH", rank=1, folds=True),
            Column("USED", rank=2),
            Column("UNTIL (UTC)", rank=3),
        ],
        [
            [
                one.id,
                guest,
                in_words(one),
                " ".join([*one.methods, one.path]),
                str(one.used) if one.times is None else f"{one.used} of {one.times}",
                "" if one.until is None else f"{datetime.fromtimestamp(one.until, UTC):%F %T}",
            ]
            for guest, one in known
        ],
    )


@fault.command()
@of_lab
@click.argument("guests", metavar="[GUEST]...", nargs=-1, shell_complete=completing.guests)
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only this one; repeatable.")
def clear(name: str | None, guests: tuple[str, ...], ids: tuple[str, ...]) -> None:
    """End faults: of the guests, or of all."""
    plan_of(name).clear_faults(guests, ids)
