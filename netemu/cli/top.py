"""`netemu top`: guests, what they send and receive, and what befalls them, as it changes."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from netemu.cli.completing import labs
from netemu.cli.options import of_lab

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from hostagent.model import Event
    from netemu.client.traffic import Traffic

# The agents' clock is asked for now and then only: telling it costs an agent a write.
_ASK_CLOCK_EVERY = 5.0
# Into a file or a pipe nothing is cut short.
_WIDE = 200
# Lines of a frame that are not guests: the lab's, the headings, and what is left out.
_OTHER_LINES = 4
_QUIT = ("q", "Q", "\x03", "\x04")


@click.command()
@click.argument("lab", required=False, shell_complete=labs)
@of_lab
@click.option(
    "--interval", type=click.FloatRange(0.1, 60), default=1.0, show_default=True,
    metavar="SECONDS", help="How often to look; rates are averages over this.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Print one frame, after one interval.")
@click.option("--json", "as_json", is_flag=True, help="Print one frame, for programs.")
def top(lab: str | None, name: str | None, interval: float, once: bool, as_json: bool) -> None:
    """Watch the guests of LAB, or of the only one that runs; q or Ctrl-C ends it.

    What a guest sends and receives is counted at its port. Those with an event, and then the
    busiest, come first where not all have room.
    """
    from rich.console import Console

    from netemu.client import labs
    from netemu.client.traffic import Traffic

    if lab and name and lab != name:
        raise click.UsageError(f"two labs are named: {lab} and {name}")
    one = labs.the_one(lab or name)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDE
    with Traffic(one) as traffic:
        watch = _Watch(one, traffic)
        if as_json or once or not console.is_terminal:
            time.sleep(interval)
            frame = watch.look()
            if as_json:
                click.echo(json.dumps(frame))
            else:
                console.print(_drawn(frame, None))
            return
        _live(watch, interval, console)


def _live(watch: "_Watch", interval: float, console: "Console") -> None:
    from rich.live import Live

    first = _drawn(watch.look(), console.height)
    with (
        _keys() as key,
        Live(first, console=console, screen=True, auto_refresh=False) as live,
    ):
        while key(interval) not in _QUIT:
            live.update(_drawn(watch.look(), console.height), refresh=True)


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""


@contextmanager
def _keys() -> Iterator[Any]:
    """Gives a function that waits so many seconds for a key: the key, or the empty text."""
    import select
    import termios
    import tty

    if not sys.stdin.isatty():
        yield _no_key
        return

    def key(seconds: float) -> str:
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        return sys.stdin.read(1) or "\x04" if ready else ""

    as_it_was = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield key
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, as_it_was)


class _Watch:
    """Looks at a lab again and again."""

    def __init__(self, lab: str, traffic: "Traffic") -> None:
        self._lab = lab
        self._traffic = traffic
        self._before = traffic.sample()
        self._ahead = 0.0  # of the metadata plane's clock, seconds
        self._asked = -_ASK_CLOCK_EVERY

    def look(self) -> dict[str, Any]:
        """A frame, as `--json` prints it: rates since the last look."""
        from netemu.client import labs
        from netemu.client.traffic import Rates, rates
        from netemu.errors import NotSo

        told = labs.status(self._lab)
        before, after = self._before, self._traffic.sample()
        self._before = after
        carried = rates(before, after, told)
        try:
            events, trouble = self._events(after.moment), None
        except NotSo as error:  # a node's agent is away, and the guests are there to see
            events, trouble = [], str(error)
        now = time.time() + self._ahead
        return {
            "lab": told["name"],
            "state": told["state"],
            "policy": told["policy"],
            "time": now,
            "seconds": after.moment - before.moment,
            "trouble": trouble,
            "nodes": [
                {
                    "name": node["name"],
                    "state": node.get("state", "running"),
                    "guests": [
                        {
                            "name": guest["name"],
                            "address": guest["address"],
                            "port": f"p{guest['port_mark']}",
                            "state": guest["state"],
                            "power": guest.get("power", "running"),
                            **carried.get(guest["name"], Rates())._asdict(),
                        }
                        for guest in node["guests"]
                    ],
                }
                for node in told["nodes"]
            ],
            "events": [
                {
                    "id": event.id,
                    "type": str(event.type),
                    "status": str(event.status),
                    "guests": list(event.guests),
                    "not_before": event.not_before,
                    "started": event.started,
                    "duration": event.duration,
                }
                for event in events
            ],
        }

    def _events(self, moment: float) -> "list[Event]":
        from netemu.client.maintenance import Maintenance

        with Maintenance(self._lab) as plan:
            if moment - self._asked >= _ASK_CLOCK_EVERY:
                self._ahead = max(plan.now().values()) - time.time()
                self._asked = moment
            return plan.events()


def _drawn(frame: dict[str, Any], height: int | None) -> "RenderableType":
    """A frame as a table, of so many lines at most (None: of any number)."""
    from datetime import UTC, datetime

    from rich.console import Group
    from rich.table import Table

    from netemu.client.traffic import Rates
    from netemu.drawing.scene import words

    told = {guest: _Told(one) for one in frame["events"] for guest in one["guests"]}
    rows = [(node, guest) for node in frame["nodes"] for guest in node["guests"]]
    left_out = 0
    if height is not None and len(rows) > max(1, height - _OTHER_LINES):
        room = max(1, height - _OTHER_LINES)
        rows.sort(key=lambda row: (row[1]["name"] not in told, -_busy(row[1])))
        left_out = len(rows) - room
        rows = rows[:room]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for heading in ("NODE", "GUEST", "ADDRESS", "STATE"):
        table.add_column(heading, no_wrap=True)
    for heading in ("↑ BIT/S", "↑ F/S", "↓ BIT/S", "↓ F/S"):
        table.add_column(heading, no_wrap=True, justify="right")
    table.add_column("EVENT", no_wrap=True)
    shown = ""
    for node, guest in rows:
        event = told.get(guest["name"])
        carried = Rates(*(guest[key] for key in Rates._fields))
        label = node["name"] if node["state"] == "running" else f"[red]{node['name']} failed[/]"
        table.add_row(
            "" if label == shown else label,
            guest["name"],
            guest["address"] or "-",
            _state(guest),
            _bits(carried.sent_bytes),
            f"{carried.sent_frames:,.0f}",
            _bits(carried.received_bytes),
            f"{carried.received_frames:,.0f}",
            f"[yellow]{words(event, frame['time'])}[/]" if event else "",
        )
        shown = label
    clock = datetime.fromtimestamp(frame["time"], UTC).strftime("%H:%M:%S UTC")
    guests = sum(len(node["guests"]) for node in frame["nodes"])
    head = (
        f"[bold]{frame['lab']}[/]: {frame['state']}, {frame['policy']}, {guests} guests, "
        f"{len(frame['events'])} events; {clock}"
    )
    lines: list[Any] = [head, table]
    if frame["trouble"]:
        lines.insert(1, f"[red]events unknown: {frame['trouble']}[/]")
    if left_out:
        lines.append(f"[dim]… and {left_out} quieter[/]")
    return Group(*lines)


class _Told:
    """An event of a frame, as a picture tells it."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.type: str = told["type"]
        self.status: str = told["status"]
        self.guests: list[str] = told["guests"]
        self.not_before: float = told["not_before"]
        self.started: float | None = told["started"]
        self.duration: float | None = told["duration"]


def _state(guest: dict[str, Any]) -> str:
    if guest["power"] != "running":
        return f"[red]{guest['power']}[/]"
    colour = "green" if guest["state"] == "bound" else "yellow"
    return f"[{colour}]{guest['state']}[/]"


def _busy(guest: dict[str, Any]) -> float:
    return float(guest["sent_frames"] + guest["received_frames"])


def _bits(rate: float) -> str:
    """Bytes a second as bits a second, as networks are measured: 512, 23.1k, 1.2M."""
    bits = 8 * rate
    for unit in ("", "k", "M"):
        if bits < 1000:
            return f"{bits:.0f}" if not unit else f"{bits:.1f}{unit}"
        bits /= 1000
    return f"{bits:.1f}G"
