"""`netemu polls`: what a guest has asked of the metadata service, and been told."""

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from hostagent.terminal.output import say, say_json
from hostagent.times import to_milliseconds
from netemu.cli import completing
from netemu.cli.options import of_lab

if TYPE_CHECKING:
    from hostagent.channel.messages import Poll

# A row may grow for a second; with --follow it is printed when it is whole.
_LOOK: Final = 1.0


@click.command()
@of_lab
@click.argument("guest", shell_complete=completing.guests)
@click.option("--follow", "-f", is_flag=True, help="Go on as it asks, until the lab ends.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
def polls(name: str | None, guest: str, follow: bool, as_json: bool) -> None:
    """Show what GUEST has asked the metadata service recently, and what it was told.

    Equal answers of one second are one line. Status 0 is a request that got no answer.
    """
    from netemu.client import labs
    from netemu.client.maintenance import Maintenance

    lab = labs.the_one(name)
    plan = Maintenance(lab)
    if not follow:
        _print(guest, plan.polls(guest), as_json)
        return
    told = float("-inf")
    while lab in labs.running():
        whole = sum(plan.now().values()) / max(len(plan.now()), 1) - _LOOK
        for row in plan.polls(guest):
            if told < row.at <= whole:
                told = row.at
                say_json(_as_json(guest, row)) if as_json else say(_in_words(row))
        time.sleep(_LOOK)


def _print(guest: str, rows: "list[Poll]", as_json: bool) -> None:
    if as_json:
        for row in rows:
            say_json(_as_json(guest, row))
        return
    if not rows:
        say(f"{guest} has asked nothing")
        return
    from hostagent.terminal.table import Column, print_table

    print_table(
        [
            Column("TIME (UTC)"),
            Column("COUNT", rank=3),
            Column("STATUS"),
            Column("METHOD", rank=2),
            Column("TARGET", folds=True),
            Column("TOLD OF", rank=1, folds=True),
            Column("FAULT", rank=4),
        ],
        [
            [
                f"{datetime.fromtimestamp(row.at, UTC):%T}",
                str(row.count),
                str(row.status),
                row.method,
                row.target,
                " ".join(row.told),
                row.fault or "",
            ]
            for row in rows
        ],
    )


def _in_words(row: "Poll") -> str:
    moment = f"{datetime.fromtimestamp(row.at, UTC):%T}"
    told = f"  told of {' '.join(row.told)}" if row.told else ""
    met = f"  fault {row.fault}" if row.fault else ""
    return f"{moment}  {row.count} x {row.status} {row.method} {row.target}{told}{met}"


def _as_json(guest: str, row: "Poll") -> dict[str, Any]:
    return {
        "time": to_milliseconds(row.at),
        "guest": guest,
        "method": row.method,
        "target": row.target,
        "status": row.status,
        "told": list(row.told),
        "fault": row.fault,
        "count": row.count,
    }
