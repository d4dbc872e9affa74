"""`netemu events` and `netemu logs`: what has happened in a lab, and what its guests say."""

import json
import time
from typing import Any, Final

import click

from netemu.cli import completing
from netemu.cli.options import of_lab

# How often a log is looked at for more, seconds: as `tail -f` does.
_LOOK: Final = 0.2


@click.command()
@click.argument("lab", required=False, shell_complete=completing.labs)
@of_lab
@click.option("--follow", "-f", is_flag=True, help="Go on as it happens, until the lab ends.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line (NDJSON).")
def events(lab: str | None, name: str | None, follow: bool, as_json: bool) -> None:
    """Tell what has happened in LAB: events, guests' power and places, nodes' failures.

    With --follow each line is a JSON object, as with --json.
    """
    from netemu.client import labs

    chosen = labs.the_one(lab or name)
    for entry in labs.happening(chosen) if follow else labs.happened(chosen):
        click.echo(json.dumps(entry) if as_json or follow else _in_words(entry))


def _in_words(entry: dict[str, Any]) -> str:
    time_of_day = entry["time"][11:23]
    match entry:
        case {"what": "event", "type": kind, "status": status, "guests": guests, "id": event_id}:
            return f"{time_of_day}  event {event_id[:8]} {kind} {status}: {', '.join(guests)}"
        case {"what": "guest", "guest": guest, "moved_from": before, "node": node}:
            return f"{time_of_day}  {guest} has moved from {before} to {node}"
        case {"what": "guest", "guest": guest, "node": node}:
            how = entry.get("power") or entry.get("state") or entry.get("problem")
            return f"{time_of_day}  {guest} on {node}: {how}"
        case {"what": "node", "node": node, "state": state}:
            reason = f" ({entry['reason']})" if "reason" in entry else ""
            return f"{time_of_day}  {node}: {state}{reason}"
    return json.dumps(entry)


@click.command()
@of_lab
@click.argument("guest", shell_complete=completing.guests)
@click.option("--follow", "-f", is_flag=True, help="Go on as it says more, until the lab ends.")
def logs(name: str | None, guest: str, follow: bool) -> None:
    """Print what the program of GUEST (its `run:` in the lab file) has said."""
    from netemu.client import labs

    lab = labs.the_one(name)
    path = labs.guest_log(lab, guest)
    told = 0
    while True:
        if path.exists():
            said = path.read_bytes()
            # A log that has grown too long begins anew with its later half.
            new = said[told:] if len(said) >= told else said
            told = len(said)
            click.echo(new, nl=False)
        if not follow or lab not in labs.running():
            return
        time.sleep(_LOOK)
