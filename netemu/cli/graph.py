"""`netemu graph`: a picture of a running lab."""

import time
from pathlib import Path

import click

from netemu.cli.completing import labs
from netemu.cli.options import of_lab


@click.command()
@click.argument("lab", required=False, shell_complete=labs)
@of_lab
@click.option(
    "--format", "kind", type=click.Choice(("svg", "dot", "mermaid")),
    help="Default: what FILE's name ends with, else svg.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Where to; default: standard output.",
)  # fmt: skip
def graph(lab: str | None, name: str | None, kind: str | None, output: Path | None) -> None:
    """Draw LAB, or the only one that runs: nodes, guests, addresses, events.

    As SVG, for Graphviz (dot), or for Mermaid, which code hosts draw in Markdown.
    """
    from netemu import drawing
    from netemu.client import labs
    from netemu.client.maintenance import Maintenance
    from netemu.errors import NotSo

    if lab and name and lab != name:
        raise click.UsageError(f"two labs are named: {lab} and {name}")
    one = labs.the_one(lab or name)
    told = labs.status(one)
    try:
        with Maintenance(one) as plan:
            events, now = plan.events(), max(plan.now().values())
    except NotSo as error:  # a node's agent is away: the rest is there to be drawn
        click.echo(f"netemu: events are not drawn: {error}", err=True)
        events, now = [], time.time()
    text = drawing.FORMATS[kind or _by_name(output)](drawing.scene(told, events, now))
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text)
    except OSError as error:
        raise click.BadParameter(f"{output}: {error.strerror}", param_hint="-o") from None


def _by_name(output: Path | None) -> str:
    suffix = output.suffix if output is not None else ""
    return {".dot": "dot", ".gv": "dot", ".mmd": "mermaid", ".mermaid": "mermaid"}.get(
        suffix, "svg"
    )
