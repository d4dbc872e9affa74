"""`netemu node`: have an emulated host fail, and come back."""

import click

from hostagent.terminal.output import say
from netemu.cli import completing
from netemu.cli.options import of_lab

_nodes = click.argument(
    "nodes", metavar="NODE...", nargs=-1, required=True, shell_complete=completing.nodes
)


@click.group()
def node() -> None:
    """Have nodes fail, and come back."""


@node.command()
@of_lab
@_nodes
def fail(name: str | None, nodes: tuple[str, ...]) -> None:
    """Have nodes fail: wires, agent and responder are dead at once, and the guests are off.

    The controller notices that their heartbeats are missing, eight seconds later, and brings the
    guests to other nodes. 'netemu events --follow' shows it.
    """
    from netemu.client import labs

    lab = labs.the_one(name)
    for one in nodes:
        labs.fail_node(lab, one)
        say(f"{one}: failed")


@node.command()
@of_lab
@_nodes
def restore(name: str | None, nodes: tuple[str, ...]) -> None:
    """Have failed nodes come back. Guests that have left stay where they are now."""
    from netemu.client import labs

    lab = labs.the_one(name)
    for one in nodes:
        labs.restore_node(lab, one)
        say(f"{one}: running")
