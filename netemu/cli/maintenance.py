"""`netemu maintenance`: the controller's verbs."""

from typing import TYPE_CHECKING, Any

import click

from hostagent.terminal.duration import EXPLAINED, Duration
from hostagent.terminal.output import say, say_json
from hostagent.times import to_milliseconds
from netemu.cli import completing
from netemu.cli.options import as_json as json_option
from netemu.cli.options import of_lab, plan_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostagent.model import Event
    from netemu.client.maintenance import Maintenance

_TYPES = ("freeze", "reboot", "redeploy", "preempt", "terminate")
_SOURCES = ("platform", "user")


@click.group(epilog=EXPLAINED)
def maintenance() -> None:
    """Schedule, list, start and end events: what happens to guests, with a notice.

    An event may be named by the beginning of its ID, if no other begins so.
    """


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
@json_option
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
    from hostagent.model import LONGEST, LONGEST_DESCRIPTION, EventSource, EventType
    from netemu.errors import BadInput

    if duration is not None and not 0 < duration <= LONGEST:
        raise BadInput(
            "--duration: longer than nothing and at most a year; leave it out if unknown"
        )
    if len(description) > LONGEST_DESCRIPTION:
        raise BadInput(f"--description: at most {LONGEST_DESCRIPTION} characters")
    if now and notice is not None:
        raise BadInput("--in and --now: one or the other")
    if notice is not None and notice > LONGEST:
        raise BadInput("--in: at most a year ahead")
    event = plan_of(name).schedule(
        guests,
        EventType(kind.capitalize()),
        notice=0.0 if now else notice,
        duration=duration,
        impact=not no_impact,
        source=EventSource(source.capitalize()),
        description=description,
    )
    _print(event, as_json)


@maintenance.command("list")
@of_lab
@click.option("--history", is_flag=True, help="Also those that have ended.")
@json_option
def list_events(name: str | None, history: bool, as_json: bool) -> None:
    """List the events of a lab."""
    from hostagent.model import FINAL

    known = plan_of(name).events(history=True)
    events = [event for event in known if history or event.status not in FINAL]
    if as_json:
        say_json([_as_json(event) for event in events])
        return
    if not events:
        say("no events")
        return
    from hostagent.terminal.events import print_events

    print_events(events, known)


def _verb(name: str, verb: "Callable[[Maintenance, str], Event]", text: str) -> None:
    @maintenance.command(name, help=text)
    @of_lab
    @click.argument("event_id", metavar="ID", shell_complete=completing.events)
    @json_option
    def act(name: str | None, event_id: str, as_json: bool) -> None:
        _print(verb(plan_of(name), event_id), as_json)


_verb(
    "approve", lambda plan, one: plan.approve(one), "Start a scheduled event as its guests would."
)
_verb("start", lambda plan, one: plan.start(one), "Start a scheduled event now.")
_verb("complete", lambda plan, one: plan.complete(one), "End a started event.")
_verb("cancel", lambda plan, one: plan.cancel(one), "Take back a scheduled event.")


def _print(event: "Event", as_json: bool) -> None:
    if as_json:
        say_json(_as_json(event))
        return
    say(f"{event.id} {event.type} {event.status}: {', '.join(event.guests)}")


def _as_json(event: "Event") -> dict[str, Any]:
    """An event for JSON: times in ISO 8601, UTC; durations in seconds, null if unknown."""
    return {
        "id": event.id,
        "type": event.type.value,
        "status": event.status.value,
        "source": event.source.value,
        "description": event.description,
        "guests": list(event.guests),
        "created": to_milliseconds(event.created),
        "not_before": to_milliseconds(event.not_before),
        "duration": event.duration,
        "notice_only": event.notice_only,
        "approved": to_milliseconds(event.approved),
        "approved_by": event.approved_by,
        "started": to_milliseconds(event.started),
        "ended": to_milliseconds(event.ended),
    }
