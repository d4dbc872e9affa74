"""`netemu top`: guests with their traffic and events, refreshed continuously."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from hostagent.terminal.number import Number
from hostagent.terminal.output import Part, Styled, painted, say_json, say_painted
from netemu.cli.completing import labs
from netemu.cli.options import named, of_lab
from netemu.interfaces import Mark, port_name

if TYPE_CHECKING:
    from hostagent.model import Event
    from netemu.client.traffic import Traffic

# The agents' clock is asked for rarely: each answer costs an agent a write.
_ASK_CLOCK_EVERY = 5.0
# Lines of a frame other than guests': the lab's, the headings, and the line on what is left out.
_OTHER_LINES = 4
_QUIT = ("q", "Q", "\x03", "\x04")


@click.command()
@click.argument("lab", required=False, shell_complete=labs)
@of_lab
@click.option(
    "--interval", type=Number(0.1, 60), default=1.0, show_default=True,
    metavar="SECONDS", help="How often to look; rates are averages over this.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Print one frame, after one interval.")
@click.option("--json", "as_json", is_flag=True, help="Print one frame as JSON, for programs.")
def top(lab: str | None, name: str | None, interval: float, once: bool, as_json: bool) -> None:
    """Watch the guests of LAB, or of the only one that runs; q or Ctrl-C ends it.

    What a guest sends and receives is counted at its port. Those with an event, and then the
    busiest, come first where not all have room.
    """
    from hostagent.terminal.table import width
    from netemu.client import labs
    from netemu.client.traffic import Traffic

    one = labs.the_one(named(lab, name))
    with Traffic(one) as traffic:
        watch = _Watch(one, traffic)
        if not (as_json or once) and width() is not None:
            _live(watch, interval)
            return
        time.sleep(interval)
        frame = watch.look()
        if as_json:
            say_json(frame)
        else:
            for line in _drawn(frame, width(), None):
                say_painted(line)


def _live(watch: "_Watch", interval: float) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False)

    def frame() -> Text:
        # Names and texts are made printable, so the only escapes are our own colours.
        return Text.from_ansi("\n".join(_drawn(watch.look(), console.width, console.height)))

    with (
        _keys() as key,
        Live(frame(), console=console, screen=True, auto_refresh=False) as live,
    ):
        while key(interval) not in _QUIT:
            live.update(frame(), refresh=True)


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""


@contextmanager
def _keys() -> Iterator[Any]:
    """Yield a function that waits this many seconds for a key. It returns the key, or the empty
    text.
    """
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
    """Takes snapshots of a lab."""

    def __init__(self, lab: str, traffic: "Traffic") -> None:
        self._lab = lab
        self._traffic = traffic
        self._before = traffic.sample()
        self._ahead = 0.0  # of the metadata plane's clock, seconds
        self._asked = -_ASK_CLOCK_EVERY

    def look(self) -> dict[str, Any]:
        """A frame as `--json` prints it: rates since the last one."""
        from netemu.client import labs
        from netemu.client.traffic import Rates, nodes, rates
        from netemu.errors import NotSo

        told = labs.status(self._lab)
        before, after = self._before, self._traffic.sample()
        self._before = after
        carried = rates(before, after, told)
        try:
            events, trouble = self._events(after.moment), None
        except NotSo as error:  # a node's agent does not answer: show the guests all the same
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
                    **({"machine": node["machine"]} if "machine" in node else {}),
                    "state": node.get("state", "running"),
                    "guests": [
                        {
                            "name": guest["name"],
                            "address": guest["address"],
                            "port": _port(guest["port_mark"]),
                            "state": guest["state"],
                            "power": guest.get("power", "running"),
                            **carried.get(guest["name"], Rates())._asdict(),
                        }
                        for guest in node["guests"]
                    ],
                }
                for node in nodes(told, after)
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

        plan = Maintenance(self._lab)
        if moment - self._asked >= _ASK_CLOCK_EVERY:
            self._ahead = max(plan.now().values()) - time.time()
            self._asked = moment
        return plan.events()


def _drawn(frame: dict[str, Any], width: int | None, height: int | None) -> list[str]:
    """A frame as lines, limited to these columns and lines (None: any number)."""
    from datetime import UTC, datetime

    from hostagent.terminal.table import Column, lines
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
    cells: list[list[Part]] = []
    shown = ""
    for node, guest in rows:
        event = told.get(guest["name"])
        carried = Rates(*(guest[key] for key in Rates._fields))
        cells.append(
            [
                "" if node["name"] == shown else _node(node),
                guest["name"],
                guest["address"] or "-",
                _state(guest),
                _bits(carried.sent_bytes),
                f"{carried.sent_frames:,.0f}",
                _bits(carried.received_bytes),
                f"{carried.received_frames:,.0f}",
                Styled(words(event, frame["time"]), "yellow") if event else "",
            ]
        )
        shown = node["name"]
    columns = [
        Column("NODE", rank=5),
        Column("GUEST"),
        Column("ADDRESS", rank=1),
        Column("STATE", rank=2),
        Column("↑ BIT/S", rank=3, right=True),
        Column("↑ F/S", rank=6, right=True),
        Column("↓ BIT/S", rank=4, right=True),
        Column("↓ F/S", rank=7, right=True),
        Column("EVENT", rank=0 if told else 8, folds=True),
    ]
    clock = datetime.fromtimestamp(frame["time"], UTC).strftime("%H:%M:%S UTC")
    guests = sum(len(node["guests"]) for node in frame["nodes"])
    head = f": {frame['state']}, {frame['policy']}, {guests} guests, {len(frame['events'])} events"
    made = [painted(Styled(frame["lab"], "bold"), f"{head}; {clock}")]
    if frame["trouble"]:
        made.append(painted(Styled(f"events unknown: {frame['trouble']}", "red")))
    made += lines(columns, cells, width)
    if left_out:
        made.append(painted(Styled(f"… and {left_out} quieter", "dim")))
    return made


def _node(node: dict[str, Any]) -> Part:
    name = f"{node['name']} on {node['machine']}" if "machine" in node else str(node["name"])
    return name if node["state"] == "running" else Styled(f"{name} {node['state']}", "red")


def _port(mark: Mark | None) -> str | None:
    return None if mark is None else port_name(mark)


class _Told:
    """An event of a frame in words, as in a picture."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.type: str = told["type"]
        self.status: str = told["status"]
        self.guests: list[str] = told["guests"]
        self.not_before: float = told["not_before"]
        self.started: float | None = told["started"]
        self.duration: float | None = told["duration"]


def _state(guest: dict[str, Any]) -> Part:
    if guest["power"] != "running":
        return Styled(guest["power"], "red")
    return Styled(guest["state"], "green" if guest["state"] == "bound" else "yellow")


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
