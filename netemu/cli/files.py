"""Verbs about lab files."""

import json
from pathlib import Path

import click

from hostagent.terminal.output import say, say_data


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def validate(file: Path) -> None:
    """Check a lab file (- is standard input): one line says what is wrong, and where."""
    from netemu.wire.lab_file import load

    lab = load(file)
    nodes, guests = len(lab.nodes), len(lab.guests)
    say(f"{file}: valid: lab {lab.name}, {lab.policy}, {nodes} nodes, {guests} guests")


@click.command()
def schema() -> None:
    """Print the JSON schema of the lab file."""
    from netemu.topology import schema as labfile_schema

    say_data(json.dumps(labfile_schema(), indent=2) + "\n")
