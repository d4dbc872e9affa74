"""`netemu scenario`: plays a scenario in a lab, and judges it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hostagent.terminal.number import Number
from hostagent.terminal.output import say, say_json
from netemu.cli import completing
from netemu.cli.options import TIME_SCALE, as_json, of_lab, output, pictures, write, writing
from netemu.cli.progress import phases

if TYPE_CHECKING:
    from hostagent.model import Event
    from netemu.scenario.requests import Run


@click.group()
def scenario() -> None:
    """Play a story: what clouds do to machines, in a running lab; or one in a lab of its own."""


@scenario.command("masked-reboot")
@click.option("--only", type=click.Choice(["with", "without"]), help="With drain agents, or not.")
@click.option("--time-scale", type=TIME_SCALE, default=1.0, metavar="X",
              show_default=True, help="Multiply every duration of RFC 3927 by X.")  # fmt: skip
@click.option("--duration", type=Number(2, 30), default=6.0, show_default=True,
              metavar="SECONDS", help="How long a guest is off before it boots.")  # fmt: skip
@click.option("--calm", type=Number(1, 600), default=4.0, show_default=True,
              metavar="SECONDS", help="How long from one reboot to the next.")  # fmt: skip
@click.option("--rate", type=Number(32, 256), default=64.0, show_default=True,
              metavar="N", help="Requests a second, of 64 clients in turn.")  # fmt: skip
@click.option(
    "--delay", metavar="TIME", help="Delay both wires of each web guest, in each direction."
)
@click.option("--loss", metavar="%", help="Loss on both wires of each web guest.")
@as_json
@output(".svg", ".json", what="a plot or the results")
def masked_reboot(
    only: str | None,
    time_scale: float,
    duration: float,
    calm: float,
    rate: float,
    delay: str | None,
    loss: str | None,
    as_json: bool,
    files: tuple[Path, ...],
) -> int:
    """Reboot three web guests in turn, under load, and have nobody notice.

    They stand behind HAProxy, which keeps clients with the guest that has answered them. In each a
    drain agent sees its reboot announced, takes the guest out of HAProxy's pool, approves, and puts
    it back: no request fails, and a client moves only when its guest goes. The same without the
    agents shows the failures. Exit code 1 if it is not so. Takes two minutes.
    """
    from netemu.scenario import play, plot

    play.require()
    plots = pictures(files)
    links = {key: value for key, value in (("delay", delay), ("loss", loss)) if value is not None}
    pace = play.Pace(time_scale=time_scale, duration=duration, calm=calm, rate=rate, links=links)
    kinds = {"with": (True,), "without": (False,), None: (True, False)}[only]
    with phases() as on_step:
        runs = [play.play(drained=drained, pace=pace, on_step=on_step) for drained in kinds]
    results = [run.summary() for run in runs]
    if as_json:
        say_json(results)
    else:
        _print(runs)
    for file in files:
        if file in plots:
            with writing(file):
                plot.draw(runs, file)
        else:
            write(file, json.dumps(results, indent=2) + "\n")
    problems = [problem for run in runs for problem in run.problems()]
    for problem in problems:
        say(problem, err=as_json)
    return 1 if problems else 0


# Their names; what they are is in `netemu.scenario.events`, imported when one is played.
_STORIES = {
    "live-migration": "A pause of some seconds, announced 15 minutes before.",
    "host-agent-maintenance": "A pause of some seconds, announced 15 minutes before.",
    "redeploy": "Another host, at the user's wish, announced 10 minutes before.",
    "hardware-failure": "A reboot that nobody has announced.",
    "preemption": "The end of a spot guest: 30 seconds' notice, two minutes' with --cloud ec2.",
    "retirement": "Another host within days: seven, or 14 with --cloud ec2.",
    "scale-in": "The end of a guest, announced five minutes before.",
    "cancelled": "A reboot that is announced, and taken back half way.",
}


def _story(name_of_story: str, text: str) -> click.Command:
    @click.command(name_of_story, help=f"{text} In a running lab.", short_help=text)
    @of_lab
    @click.argument(
        "guests", metavar="GUEST...", nargs=-1, required=True, shell_complete=completing.guests
    )
    @click.option("--cloud", type=click.Choice(["azure", "ec2", "gce"]), default="azure",
                  show_default=True, help="Whose notice it is, where clouds differ.")  # fmt: skip
    @click.option("--speed", type=Number(1, 1e6), default=1.0, show_default=True, metavar="N",
                  help="Divide notice and duration by N.")  # fmt: skip
    @as_json
    def act(
        name: str | None, guests: tuple[str, ...], cloud: str, speed: float, as_json: bool
    ) -> None:
        import time

        from netemu.client import labs
        from netemu.client.maintenance import Maintenance
        from netemu.scenario.events import STORIES, play

        story = STORIES[name_of_story]
        if not as_json:
            say(story.about)
            say(f"Times are from {story.source}.")

        def tell(event: "Event") -> None:
            if as_json:
                say_json({"id": event.id, "type": event.type, "status": event.status})
            else:
                say(f"{time.strftime('%T')}  {event.type} {event.status}: {', '.join(guests)}")

        play(
            story,
            guests,
            Maintenance(labs.the_one(name)),
            cloud=cloud,  # type: ignore[arg-type]
            speed=speed,
            tell=tell,
            sleep=time.sleep,
            clock=time.monotonic,
        )

    return act


for _name, _text in _STORIES.items():
    scenario.add_command(_story(_name, _text))


def _print(runs: "Sequence[Run]") -> None:
    """The table."""
    from hostagent.terminal.table import Column, print_table

    rows = []
    for run in runs:
        told = run.summary()
        rows.append(
            [
                "on" if run.drained else "off",
                f"{len(run.reboots):,}",
                f"{told['requests']:,}",
                f"{told['failed']:,}",
                "" if told["slowest"] is None else f"{1000 * told['slowest']:,.0f} ms",
                f"{told['moved']} of {told['clients']}",
                str(told["unprovoked"]),
            ]
        )
    print_table(
        [
            Column("AGENTS"),
            Column("REBOOTS", rank=4, right=True),
            Column("REQUESTS", rank=1, right=True),
            Column("FAILED", right=True),
            Column("SLOWEST", rank=2, right=True),
            Column("MOVED", rank=3, right=True),
            Column("WITHOUT CAUSE", rank=5, right=True),
        ],
        rows,
    )
