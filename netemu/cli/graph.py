"""`netemu graph`: a picture of a running lab."""

import time
from pathlib import Path

import click

from hostagent.terminal.output import say, say_data
from netemu.cli.completing import labs
from netemu.cli.options import named, of_lab, output, write

_BY_ENDING = {
    ".svg": "svg", ".dot": "dot", ".gv": "dot", ".mmd": "mermaid", ".mermaid": "mermaid",
}  # fmt: skip


@click.command()
@click.argument("lab", required=False, shell_complete=labs)
@of_lab
@click.option(
    "--format", "kind", type=click.Choice(("svg", "dot", "mermaid")),
    help="What is written on standard output.  [default: svg]",
)  # fmt: skip
@output(*_BY_ENDING, what="a picture", multiple=False)
def graph(lab: str | None, name: str | None, kind: str | None, file: Path | None) -> None:
    """Draw LAB, or the only one that runs: nodes, guests, addresses, events.

    As SVG, for Graphviz (dot), or for Mermaid, which code hosts draw in Markdown.
    """
    from netemu import drawing
    from netemu.client import labs
    from netemu.client.maintenance import Maintenance
    from netemu.errors import NotSo

    if kind is not None and file is not None:
        raise click.UsageError("--format is for standard output; FILE's ending says its format")
    one = labs.the_one(named(lab, name))
    told = labs.status(one)
    try:
        plan = Maintenance(one)
        events, now = plan.events(), max(plan.now().values())
    except NotSo as error:  # a node's agent does not answer: draw the rest
        say(f"netemu: events are not drawn: {error}", err=True)
        events, now = [], time.time()
    drawn = drawing.scene(told, events, now)
    if file is None:
        say_data(drawing.FORMATS[kind or "svg"](drawn))
    else:
        write(file, drawing.FORMATS[_BY_ENDING[file.suffix.lower()]](drawn))
