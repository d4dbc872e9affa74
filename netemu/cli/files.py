"""Verbs about lab files."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def validate(file: Path) -> None:
    """Check a lab file: one line that says what is wrong and where, or that nothing is."""
    from netemu.wire.lab_file import load

    lab = load(file)
    nodes, guests = len(lab.nodes), len(lab.guests)
    click.echo(f"{file}: valid: lab {lab.name}, {lab.policy}, {nodes} nodes, {guests} guests")


@click.command()
def schema() -> None:
    """Print the JSON schema of the lab file."""
    from netemu.topology import schema as labfile_schema

    click.echo(json.dumps(labfile_schema(), indent=2))
