"""`netemu capture`: records frames at a guest's port or at a node's bridge."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

import click

from hostagent.terminal.output import say
from netemu.cli.completing import guests_and_nodes
from netemu.cli.options import of_lab

_FILE_HEADER: Final = 24  # octets of struct pcap_file_header
# Seconds between checks whether the guest has booted; when tcpdump ends by itself, a boot is
# awaited for as long.
_LOOK: Final = 0.3
_BOOT: Final = 3.0


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
        return _Capture(lab, target).run(("-l", *options))
    # With -v tcpdump counts aloud, on a terminal.
    counting = ("-v",) if sys.stderr.isatty() else ()
    options = ("-U", "-w", "-", *counting, *options)
    if file == "-":
        return _Capture(lab, target).run(options, sys.stdout.buffer)
    # Opened here: on the node, users and paths are different.
    try:
        opened = Path(file).open("wb")  # noqa: SIM115 (closed by the `with` below)
    except OSError as error:
        raise click.BadParameter(f"{file}: {error.strerror}", param_hint="-w") from None
    with opened:
        code = _Capture(lab, target).run(options, opened)
        size = os.fstat(opened.fileno()).st_size
    say(f"{file}: {size:,} bytes, captured at {node}'s {interface}", err=True)
    return code


class _Capture:
    """A capture that outlives a guest's boots, each of which gives it a new wire and port.

    tcpdump may not notice: by then the new port may have the old one's name.
    """

    def __init__(self, lab: str, target: str) -> None:
        self._lab = lab
        self._target = target
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False

    def run(self, options: Sequence[str], file: IO[bytes] | None = None) -> int:
        """Capture until the end is asked for. Returns tcpdump's exit code. `file` gets a capture
        file.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._end)
        headed = True
        while True:
            boots = self._boots()
            code, booted = self._once(options, file, boots, headed=headed)
            headed = False
            if self._ended or not (booted or (code and self._boots_soon(boots))):
                return code

    def _once(
        self, options: Sequence[str], file: IO[bytes] | None, boots: int, *, headed: bool
    ) -> tuple[int, bool]:
        """Run tcpdump once. Returns its exit code, and whether it was ended because the guest
        booted.
        """
        from netemu.client import recording

        node, interface = recording.where(self._lab, self._target)
        # Only the first tcpdump writes the file's header.
        target = subprocess.PIPE if file is not None and not headed else file
        streams = {} if target is None else {"stdout": target}
        process = self._process = recording.start(self._lab, node, interface, options, **streams)
        copying = None
        if process.stdout is not None:
            copying = threading.Thread(target=_copy, args=(process.stdout, file), daemon=True)
            copying.start()
        booted = False
        while True:
            try:
                code = process.wait(_LOOK)
                break
            except subprocess.TimeoutExpired:
                if not booted and self._boots() > boots:
                    booted = True
                    process.send_signal(signal.SIGINT)
        if copying is not None:
            copying.join()
        return code, booted

    def _end(self, *_: object) -> None:
        """Signals that would end this command end tcpdump in order."""
        self._ended = True
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def _boots(self) -> int:
        """How often the guest has booted; 0 for a node. After the lab's end it stays the same."""
        from netemu.client import labs
        from netemu.errors import NetemuError

        try:
            return sum(
                one["what"] == "guest"
                and one["guest"] == self._target
                and one.get("power") == "running"
                for one in labs.happened(self._lab)
            )
        except NetemuError:
            return 0

    def _boots_soon(self, boots: int) -> bool:
        """Whether the guest boots soon: tcpdump may have seen its port go."""
        deadline = time.monotonic() + _BOOT
        while not self._ended and time.monotonic() < deadline:
            if self._boots() > boots:
                return True
            time.sleep(0.05)
        return False


def _copy(source: IO[bytes], file: IO[bytes]) -> None:
    """Append the frames of one capture file to another."""
    source.read(_FILE_HEADER)
    while frames := os.read(source.fileno(), 65536):
        file.write(frames)
        file.flush()
