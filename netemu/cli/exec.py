"""Verbs that act inside a lab: run a command, open a shell, reboot a guest."""

import click

from hostagent.terminal.output import say
from netemu.cli import completing
from netemu.cli.options import named, of_lab


@click.command("exec", context_settings={"ignore_unknown_options": True})
@of_lab
@click.argument("target", metavar="NODE_OR_GUEST", shell_complete=completing.guests_and_nodes)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_command(name: str | None, target: str, command: tuple[str, ...]) -> int:
    """Run COMMAND in a guest or on a node, as root there.

    Put -- before the command. Streams, terminal, working directory and exit code are the command's
    own. In a guest it has no more of your environment than PATH, HOME, TERM, LANG and the like. In
    one with a kernel of its own, QEMU's guest agent runs it, without a terminal: its
    input is read to the end first, and what it prints is shown when it has ended.
    """
    from netemu.client import exec_foreground, labs, machines

    if not command[0]:
        raise click.UsageError("COMMAND: the name of the command is empty")
    lab = labs.the_one(name)
    try:
        return exec_foreground.run(labs.enter(lab, target), command)
    except labs.HasOwnKernel:
        return machines.run_for_a_person(lab, target, command)


@click.command()
@of_lab
@click.argument("target", metavar="GUEST", shell_complete=completing.guests_and_nodes)
def shell(name: str | None, target: str) -> int:
    """Open a shell in a guest (or on a node).

    Of a guest with a kernel of its own it is the console: Ctrl-] leaves it.
    """
    from netemu.client import exec_foreground, labs, machines

    lab = labs.the_one(name)
    try:
        return exec_foreground.run(labs.enter(lab, target), exec_foreground.shell())
    except labs.HasOwnKernel:
        return machines.be_at_console(lab, target)


@click.command()
@click.argument("lab", required=False, shell_complete=completing.labs)
@of_lab
def enter(lab: str | None, name: str | None) -> int:
    """Open a shell in the sandbox, where 'ip netns' shows the lab's nodes and guests by name."""
    from netemu.client import exec_foreground, labs

    return exec_foreground.run(
        labs.enter(labs.the_one(named(lab, name)), None), exec_foreground.shell()
    )


@click.command()
@of_lab
@click.argument(
    "guests", metavar="GUEST...", nargs=-1, required=True, shell_complete=completing.guests
)
@click.option("--hard", is_flag=True, help="Cut the power: do not ask the programs to end first.")
def reboot(name: str | None, guests: tuple[str, ...], hard: bool) -> None:
    """Reboot guests: their processes end, and they claim their addresses again, the last one first.

    Their programs get SIGTERM and a grace period, then SIGKILL; 'netemu events' says who ended how.
    Returns as soon as the link is up again; 'netemu status' shows when they are bound.
    """
    from netemu.client import labs

    lab = labs.the_one(name)
    for guest in guests:
        labs.reboot(lab, guest, hard=hard)
        say(f"{guest}: rebooted")
