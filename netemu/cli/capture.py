"""`netemu capture`: what passes at a guest's port or at a node's bridge."""

import os
import subprocess
import sys
from pathlib import Path

import click

from hostagent.terminal.output import say
from netemu.cli.completing import guests_and_nodes
from netemu.cli.options import of_lab


@click.command(context_settings={"ignore_unknown_options": True})
@of_lab
@click.argument("target", metavar="GUEST_OR_NODE", shell_complete=guests_and_nodes)
@click.option(
    "-w", "file", metavar="FILE", type=click.Path(dir_okay=False, allow_dash=True),
    help="Write a capture file; - is standard output, as for Wireshark.",
)  # fmt: skip
@click.argument("options", metavar="[-- TCPDUMP_OPTIONS]...", nargs=-1, type=click.UNPROCESSED)
def capture(name: str | None, target: str, file: str | None, options: tuple[str, ...]) -> int:
    """Capture at a guest's port (the node's end of its wire) or at a node's bridge, with tcpdump.

    Shows what passes, or writes it to FILE. Ctrl-C ends it, and the file is whole then. Options
    and a filter for tcpdump come after --, as in: capture web1 -- -c 10 -v tcp port 80
    """
    from netemu.client import labs, recording

    lab = labs.the_one(name)
    node, interface = recording.where(lab, target)
    if file is None:
        # A line at a time, also into a pipe.
        process = recording.start(lab, node, interface, ("-l", *options))
        return _until_it_ends(process)
    # With -v tcpdump counts aloud, on a terminal.
    counting = ("-v",) if sys.stderr.isatty() else ()
    options = ("-U", "-w", "-", *counting, *options)
    if file == "-":
        return _until_it_ends(recording.start(lab, node, interface, options))
    # Opened here: on the node other users are known, and other places.
    try:
        opened = Path(file).open("wb")  # noqa: SIM115 (closed by the `with` below)
    except OSError as error:
        raise click.BadParameter(f"{file}: {error.strerror}", param_hint="-w") from None
    with opened:
        code = _until_it_ends(recording.start(lab, node, interface, options, stdout=opened))
        size = os.fstat(opened.fileno()).st_size
    say(f"{file}: {size:,} bytes, captured at {node}'s {interface}", err=True)
    return code


def _until_it_ends(process: "subprocess.Popen[bytes]") -> int:
    """Wait for tcpdump; what would end this ends tcpdump in order."""
    import signal

    def end(*_: object) -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    return process.wait()
