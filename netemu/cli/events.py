"""`netemu events` and `netemu logs`: what has happened in a lab, and the output of its guests."""

import codecs
import json
import time
from collections.abc import Collection
from typing import Any, Final

import click

from hostagent.terminal.output import say, say_json, say_raw
from netemu.cli import completing
from netemu.cli.options import named, of_lab

# Seconds between checks of a log for more lines: as `tail -f` does.
_LOOK: Final = 0.2


@click.command()
@click.argument("lab", required=False, shell_complete=completing.labs)
@of_lab
@click.option("--follow", "-f", is_flag=True, help="Go on as it happens, until the lab ends.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
def events(lab: str | None, name: str | None, follow: bool, as_json: bool) -> None:
    """Show what has happened in LAB: events, guests' power and places, nodes' failures."""
    from hostagent.terminal.table import width
    from netemu.client import labs

    chosen = labs.the_one(named(lab, name))
    if as_json:
        for entry in labs.happening(chosen) if follow else labs.happened(chosen):
            say_json(entry)
        return
    known = {entry["id"] for entry in labs.happened(chosen) if entry["what"] == "event"}
    for entry in labs.happening(chosen) if follow else labs.happened(chosen):
        say(_in_words(entry, None if width() is None else known))


def _in_words(entry: dict[str, Any], known: Collection[str] | None) -> str:
    """One line; on a terminal with the beginning of the ID, which is unique among the known."""
    from hostagent.terminal.table import beginning

    time_of_day = entry["time"][11:23]
    match entry:
        case {"what": "event", "type": kind, "status": status, "guests": guests, "id": event_id}:
            shown = event_id if known is None else beginning(event_id, known)
            by = f", approved by {entry['approved_by']}" if "approved_by" in entry else ""
            return f"{time_of_day}  event {shown} {kind} {status}: {', '.join(guests)}{by}"
        case {"what": "fault", "id": fault, "guest": guest, "state": state, "does": does}:
            return f"{time_of_day}  fault {fault} of {guest} {state}: {does}"
        case {"what": "guest", "guest": guest, "moved_from": before, "node": node}:
            return f"{time_of_day}  {guest} has moved from {before} to {node}"
        case {"what": "guest", "guest": guest, "node": node}:
            how = next(entry[key] for key in ("power", "problem", "state", "told") if key in entry)
            return f"{time_of_day}  {guest} on {node}: {how}"
        case {"what": "node", "node": node, "problem": problem}:
            return f"{time_of_day}  {node}: {problem}"
        case {"what": "node", "node": node, "state": state}:
            reason = f" ({entry['reason']})" if "reason" in entry else ""
            return f"{time_of_day}  {node}: {state}{reason}"
        case {"what": "store", "state": state}:
            reason = f" ({entry['reason']})" if "reason" in entry else ""
            return f"{time_of_day}  store: {state}{reason}"
        case {"what": "machine", "machine": machine, "problem": problem}:
            return f"{time_of_day}  machine {machine}: {problem}"
        case {"what": "machine", "machine": machine, "state": state, "guests": guests}:
            return f"{time_of_day}  machine {machine}: {state}; elsewhere: {', '.join(guests)}"
        case {"what": "service", "service": service, "state": state}:
            reason = f" ({entry['reason']})" if "reason" in entry else ""
            return f"{time_of_day}  {service}: {state}{reason}"
    return json.dumps(entry)


@click.command()
@of_lab
@click.argument("guest", shell_complete=completing.guests)
@click.option("--follow", "-f", is_flag=True, help="Go on as it says more, until the lab ends.")
@click.option("--raw", is_flag=True, help="Every byte as it is: control characters too.")
def logs(name: str | None, guest: str, follow: bool, raw: bool) -> None:
    """Print what the program of GUEST (its `run:` in the lab file) has said."""
    from netemu.client import labs

    lab = labs.the_one(name)
    path = labs.guest_log(lab, guest)
    told = 0
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    while True:
        if path.exists():
            said = path.read_bytes()
            # A log that has grown too long starts again with its later half.
            new = said[told:] if len(said) >= told else said
            told = len(said)
            if raw:
                say_raw(new)
            else:  # a guest may print anything
                say(decoder.decode(new), lines=True, nl=False)
        if not follow or lab not in labs.running():
            return
        time.sleep(_LOOK)
