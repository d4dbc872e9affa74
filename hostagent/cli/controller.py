"""`hostagent controller`: a person's way to command an agent."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hostagent.cli.options import BadInput, Refused, Unable
from hostagent.terminal.duration import EXPLAINED, Duration
from hostagent.terminal.output import say, say_json
from hostagent.times import to_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostagent.controller import SyncController
    from hostagent.model import Event

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
_event_id = click.argument("event_id", metavar="EVENT_ID")


class _Commands(click.Group):
    """Turns what an agent, or the way to it, says no with into exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        from hostagent.channel.frames import FrameError
        from hostagent.controller import AgentUnreachable, CommandRefused

        try:
            return super().invoke(ctx)
        except CommandRefused as error:
            kind = BadInput if error.bad_input else Refused
            raise kind(str(error)) from error
        except FrameError as error:
            raise BadInput(str(error)) from error
        except AgentUnreachable as error:
            raise Unable(str(error)) from error


@click.group(cls=_Commands, epilog=EXPLAINED)
@click.option(
    "--agent",
    "agent_path",
    type=click.Path(path_type=Path),
    help="The command socket of the node's agent. Required.",
)
@click.option(
    "--timeout",
    type=Duration(),
    metavar="DURATION",
    default="10s",
    show_default=True,
    help="For one command.",
)
@click.pass_context
def controller(ctx: click.Context, agent_path: Path | None, timeout: float) -> None:
    """Command a node's agent: place guests, and schedule what happens to them.

    An event may be named by the beginning of its ID, if no other begins so.

    Exit codes: 0 done; 1 refused, and nothing has changed; 2 bad input; 3 no answer.
    """
    ctx.obj = agent_path, timeout


def _connected(ctx: click.Context) -> "SyncController":
    from hostagent.controller import SyncController

    path, timeout = ctx.obj
    if path is None:  # asked for only now, so that every `--help` works without it
        raise click.UsageError("which agent? give `controller --agent PATH`")
    return ctx.with_resource(SyncController.connect(path, timeout))


@controller.command()
@click.argument("name")
@click.option("--port", type=int, help="The mark of the guest's port on this node.")
@click.option("--address", help="Its IPv4 address, its identity where there are no marks.")
@click.option("--update-domain", type=int, default=0, show_default=True)
@click.option("--fault-domain", type=int, default=0, show_default=True)
@click.option("--availability-set", help="Guests of one set see each other's events.")
@click.option(
    "--property",
    "properties",
    multiple=True,
    metavar="KEY=VALUE",
    help="What the guest is besides; repeatable. `controller properties` lists the keys. "
    "user_data=@FILE is what FILE holds.",
)
@click.pass_context
def place(
    ctx: click.Context,
    name: str,
    port: int | None,
    address: str | None,
    update_domain: int,
    fault_domain: int,
    availability_set: str | None,
    properties: tuple[str, ...],
) -> None:
    """Put the guest NAME on this node; one that is there becomes what is said here."""
    from hostagent.model import Guest
    from hostagent.terminal.contents import ContentsError, taken

    given: dict[str, str] = {}
    for text in properties:
        key, sign, value = text.partition("=")
        if not sign:
            raise click.UsageError(f"--property {text!r}: it would look like vm_size=Standard_B1s")
        try:
            given[key] = taken(key, value, Path())
        except ContentsError as error:
            raise click.UsageError(f"--property {key}: {error}") from error
    _connected(ctx).place(
        [
            Guest(
                name=name,
                port=port,
                address=address,
                update_domain=update_domain,
                fault_domain=fault_domain,
                availability_set=availability_set,
                properties=given,
            )
        ]
    )


@controller.command()
@_json
def properties(as_json: bool) -> None:
    """List the properties that guests may have, with their defaults."""
    from hostagent.model import Guest
    from hostagent.properties import KNOWN, PER_CLOUD, PREFIXES, value
    from hostagent.terminal.table import Column, print_table

    example = Guest(name="web1", address="169.254.3.7")
    if as_json:
        known = {key: value(example, key) for key in KNOWN}
        say_json({**known, **{f"{prefix}KEY": "" for prefix in PREFIXES}})
        return
    print_table(
        [
            Column("KEY"),
            Column("DEFAULT, FOR WEB1", rank=2, folds=True),
            Column("PER CLOUD", rank=3),
            Column("WHAT IT IS", folds=True),
        ],
        [
            [key, value(example, key), "yes" if key in PER_CLOUD else "", known.about]
            for key, known in KNOWN.items()
        ]
        + [[f"{prefix}KEY", "", "", known.about] for prefix, known in PREFIXES.items()],
    )


@controller.command()
@click.argument("names", nargs=-1, required=True)
@click.pass_context
def withdraw(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Take guests off this node. One that is not there is passed over."""
    _connected(ctx).withdraw(names)


@controller.command()
@click.argument("guests", nargs=-1, required=True)
@click.option(
    "--type",
    "event_type",
    required=True,
    type=click.Choice(["Freeze", "Reboot", "Redeploy", "Preempt", "Terminate"], False),
)
@click.option(
    "--in",
    "notice",
    type=Duration(),
    metavar="DURATION",
    help="Time until it may start. Default: the type's least notice (Freeze and Reboot 15m, "
    "Redeploy 10m, Terminate 5m, Preempt 30s).",
)
@click.option("--now", is_flag=True, help="Start it at once, as a hardware failure would.")
@click.option(
    "--duration", type=Duration(), metavar="DURATION", help="How long it lasts. Default: not known."
)
@click.option(
    "--source",
    type=click.Choice(["Platform", "User"], False),
    default="Platform",
    show_default=True,
)
@click.option("--description", default="", help="A line for people.")
@click.option(
    "--no-impact",
    "notice_only",
    is_flag=True,
    help="Give the notice alone: nothing is to be done to the guests.",
)
@_json
@click.pass_context
def schedule(
    ctx: click.Context,
    guests: tuple[str, ...],
    event_type: str,
    notice: float | None,
    now: bool,
    duration: float | None,
    source: str,
    description: str,
    notice_only: bool,
    as_json: bool,
) -> None:
    """Schedule an event for GUESTS of this node, and print it."""
    from hostagent.model import EventSource, EventType

    if now and notice is not None:
        raise click.UsageError("--in and --now exclude each other")
    event = _connected(ctx).schedule(
        guests,
        EventType(event_type),
        notice=0.0 if now else notice,
        duration=duration,
        source=EventSource(source),
        description=description,
        notice_only=notice_only,
    )
    _print_event(event, as_json)


def _verb(name: str, verb: "Callable[[SyncController, str], Event]", text: str) -> None:
    @controller.command(name, help=text)
    @_event_id
    @_json
    @click.pass_context
    def move(ctx: click.Context, event_id: str, as_json: bool) -> None:
        _print_event(_moved(ctx, verb, event_id), as_json)


_verb(
    "start",
    lambda agent, one: agent.start(one),
    "Start a scheduled event without waiting for its time.",
)
_verb(
    "approve",
    lambda agent, one: agent.approve(one),
    "Start a scheduled event on a guest's behalf; one that has started stays so.",
)
_verb("complete", lambda agent, one: agent.complete(one), "End a started event.")
_verb("cancel", lambda agent, one: agent.cancel(one), "Take back a scheduled event.")


def _moved(
    ctx: click.Context, verb: "Callable[[SyncController, str], Event]", beginning: str
) -> "Event":
    """Do it to the one event whose ID begins so."""
    if not beginning:
        raise BadInput("EVENT_ID: is empty; `controller list` shows them")
    agent = _connected(ctx)
    known = [event.id for event in agent.events(history=True)]
    found = [beginning] if beginning in known else [i for i in known if i.startswith(beginning)]
    if len(found) > 1:
        raise BadInput(f"{beginning}: begins the IDs of {len(found)} events; write more of it")
    return verb(agent, found[0] if found else beginning)


@controller.command()
@click.argument("duration", type=Duration())
@_json
@click.pass_context
def advance(ctx: click.Context, duration: float, as_json: bool) -> None:
    """Move the metadata plane's clock forward by DURATION. It cannot be moved back."""
    now = _connected(ctx).advance(duration)
    if as_json:
        say_json({"now": now})
    else:
        say(to_seconds(now))


@controller.command()
@_json
@click.pass_context
def clock(ctx: click.Context, as_json: bool) -> None:
    """Show the metadata plane's time, and how far it is ahead of the machine's."""
    told = _connected(ctx).now()
    if as_json:
        say_json({"now": told.now, "clock_offset": told.clock_offset})
    else:
        say(f"{to_seconds(told.now)}, {told.clock_offset:g} s ahead")


@controller.command(name="list")
@click.option("--history", is_flag=True, help="Also those that have ended.")
@_json
@click.pass_context
def list_events(ctx: click.Context, history: bool, as_json: bool) -> None:
    """List the events of this node."""
    from hostagent.model import FINAL
    from hostagent.terminal.events import print_events

    known = _connected(ctx).events(history=True)
    events = [event for event in known if history or event.status not in FINAL]
    if as_json:
        _print_json(events)
        return
    print_events(events, known)


@controller.command()
@_json
@click.pass_context
def guests(ctx: click.Context, as_json: bool) -> None:
    """List the guests on this node, with the incarnation of what each can see."""
    import msgspec

    from hostagent.terminal.table import Column, print_table

    placed = _connected(ctx).guests()
    if as_json:
        # A message leaves out what has its default; what is printed has it.
        say_json([{**msgspec.to_builtins(one), "edits": one.edits} for one in placed])
        return
    print_table(
        [
            Column("NAME"),
            Column("PORT", rank=1),
            Column("ADDRESS", rank=2),
            Column("UD", rank=5),
            Column("FD", rank=6),
            Column("SET", rank=4),
            Column("INCARNATION", rank=3),
        ],
        [
            [
                one.guest.name,
                "-" if one.guest.port is None else str(one.guest.port),
                one.guest.address or "-",
                str(one.guest.update_domain),
                str(one.guest.fault_domain),
                one.guest.availability_set or "-",
                str(one.incarnation),
            ]
            for one in placed
        ],
    )


def _print_json(told: object) -> None:
    import msgspec

    say_json(msgspec.to_builtins(told))


def _print_event(event: "Event", as_json: bool) -> None:
    if as_json:
        _print_json(event)
    else:
        say(
            f"{event.id} {event.type} {event.status}, not before {to_seconds(event.not_before)}: "
            f"{', '.join(event.guests)}"
        )
