"""`netemu maintenance`: the controller's verbs."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from netemu.cli import completing
from netemu.cli.options import Duration, of_lab

if TYPE_CHECKING:
    from hostagent.model import Event

_TYPES = ("freeze", "reboot", "redeploy", "preempt", "terminate")
_SOURCES = ("platform", "user")


@click.group()
def maintenance() -> None:
    """Plan, list, start and end what befalls guests."""


@maintenance.command()
@of_lab
@click.argument(
    "guests", metavar="GUEST...", nargs=-1, required=True, shell_complete=completing.guests
)
@click.option(
    "--type", "kind", type=click.Choice(_TYPES, case_sensitive=False), default="reboot",
    show_default=True, help="What will happen to the guests.",
)  # fmt: skip
@click.option("--in", "notice", type=Duration(), help="When; default: the type's least notice.")
@click.option("--now", is_flag=True, help="At once, with no notice, as when hardware fails.")
@click.option("--duration", type=Duration(), help="How long it lasts; default: unknown.")
@click.option(
    "--source", type=click.Choice(_SOURCES, case_sensitive=False), default="platform",
    show_default=True, help="Who wants it: the cloud, or the guests' own user.",
)  # fmt: skip
@click.option("--description", default="", help="What the guests are told of it.")
@click.option("--no-impact", is_flag=True, help="Give the notice alone: do nothing to the guests.")
@click.option("--json", "as_json", is_flag=True, help="Print the event, for programs.")
def schedule(
    name: str | None,
    guests: tuple[str, ...],
    kind: str,
    notice: float | None,
    now: bool,
    duration: float | None,
    source: str,
    description: str,
    no_impact: bool,
    as_json: bool,
) -> None:
    """Plan an event for guests, as in: schedule web1 --type reboot --in 5m --duration 60s."""
    from hostagent.model import LONGEST, EventSource, EventType
    from netemu.client import labs
    from netemu.client.maintenance import Maintenance
    from netemu.errors import BadInput

    if duration is not None and not 0 < duration <= LONGEST:
        raise BadInput(
            "--duration: longer than nothing and at most a year; leave it out if unknown"
        )
    if now and notice is not None:
        raise BadInput("--in and --now: one or the other")
    if notice is not None and notice > LONGEST:
        raise BadInput("--in: at most a year ahead")
    with Maintenance(labs.the_one(name)) as plan:
        event = plan.schedule(
            guests,
            EventType(kind.capitalize()),
            notice=0.0 if now else notice,
            duration=duration,
            source=EventSource(source.capitalize()),
            description=description,
            notice_only=no_impact,
        )
    _print(event, as_json)


@maintenance.command("list")
@of_lab
@click.option("--history", is_flag=True, help="Also those that have ended.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_events(name: str | None, history: bool, as_json: bool) -> None:
    """List the events of a lab."""
    from netemu.client import labs
    from netemu.client.maintenance import Maintenance

    with Maintenance(labs.the_one(name)) as plan:
        events = plan.events(history=history)
    if as_json:
        click.echo(json.dumps([_as_json(event) for event in events]))
        return
    if not events:
        click.echo("no events")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("ID", "TYPE", "STATUS", "NOT BEFORE (UTC)", "DURATION", "GUESTS"):
        table.add_column(heading, no_wrap=heading != "GUESTS")
    for event in events:
        lasting = "unknown" if event.duration is None else f"{event.duration:g} s"
        when = datetime.fromtimestamp(event.not_before, UTC).strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(event.id, event.type, event.status, when, lasting, ", ".join(event.guests))
    Console(highlight=False).print(table)


def _verb(verb: str, text: str) -> click.Command:
    @click.command(verb, help=text)
    @of_lab
    @click.argument("event_id", metavar="ID")
    @click.option("--json", "as_json", is_flag=True, help="Print the event, for programs.")
    def act(name: str | None, event_id: str, as_json: bool) -> None:
        from netemu.client import labs
        from netemu.client.maintenance import Maintenance

        with Maintenance(labs.the_one(name)) as plan:
            event: Event = getattr(plan, verb)(event_id)
        _print(event, as_json)

    return act


maintenance.add_command(_verb("approve", "Start a scheduled event as its guests would."))
maintenance.add_command(_verb("start", "Start a scheduled event now."))
maintenance.add_command(_verb("complete", "End a started event."))
maintenance.add_command(_verb("cancel", "Take back a scheduled event."))


def _print(event: "Event", as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_as_json(event)))
        return
    click.echo(f"{event.id} {event.type} {event.status}: {', '.join(event.guests)}")


def _as_json(event: "Event") -> dict[str, Any]:
    """Times in ISO 8601, UTC; durations in seconds, null if unknown."""
    return {
        "id": event.id,
        "type": event.type.value,
        "status": event.status.value,
        "source": event.source.value,
        "description": event.description,
        "guests": list(event.guests),
        "created": _iso(event.created),
        "not_before": _iso(event.not_before),
        "duration": event.duration,
        "notice_only": event.notice_only,
        "started": _iso(event.started),
        "ended": _iso(event.ended),
    }


def _iso(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
