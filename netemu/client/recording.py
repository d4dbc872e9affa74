"""Captures at nodes' ports: with tcpdump at one of them, and for tests at all of them at once. Runs
in the user's process.

A capture at a port sees each frame as the guest sent it, before the guard, and what the guard let
through to the guest.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final

from netemu.client import exec_background, labs
from netemu.errors import MachineCannot, NotSo
from netemu.interfaces import BRIDGE, port_name
from netemu.kernel import recorder
from netemu.wire.source import SOURCE

_START: Final = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from netemu.kernel.recorder import main; main()"
)
# Each frame told at once needs a slot of the longest frame's size (64 KiB and headers) in the
# kernel's ring, and the usual 2 MiB have eight of the usual size: these are 256.
_AT_ONCE: Final = ("--immediate-mode", "-s", "65550", "-B", "16384")
# Seconds that a capture may take to write what it has when it is to end.
_PATIENCE: Final = 10.0


def where(name: str, target: str) -> tuple[str, str]:
    """The node and the interface at which `target` of the lab `name` is seen.

    For a guest the node's end of its wire, for a node its bridge. Raises BadInput.
    """
    told = labs.status(name)
    for node in told["nodes"]:
        if node["name"] == target:
            return target, BRIDGE
        for guest in node["guests"]:
            if guest["name"] == target:
                return node["name"], port_name(guest["port_mark"])
    raise labs.none_such(told, target)


def start(
    name: str, node: str, interface: str, options: Sequence[str] = (), **streams: Any
) -> "subprocess.Popen[bytes]":
    """Start tcpdump on a node: without look-ups, each frame told at once, nobody else's rights.

    `streams` are subprocess.Popen's. It ends well, with its file whole, by SIGINT. Raises
    MachineCannot if it is not installed.
    """
    # An ordinary user's lab knows one user only, root; in root's, files are to be root's.
    words = [_tcpdump(), "-i", interface, "-n", "-Z", "root", *_AT_ONCE, *options]
    namespaces = labs.enter(name, node)
    try:
        return exec_background.start(
            namespaces, words, groups=False, stdin=subprocess.DEVNULL, **streams
        )
    finally:
        for descriptor in namespaces.values():
            os.close(descriptor)


def _tcpdump() -> str:
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    found = shutil.which("tcpdump", path=path)
    if found is None:
        raise MachineCannot("tcpdump is not installed: run 'sudo apt-get install tcpdump'")
    return found


class Recording:
    """Captures at all ports and the bridge of each of these nodes, from now on."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []

    @classmethod
    def start(cls, name: str, nodes: Iterable[str], folder: Path) -> "Recording":
        """Write one NODE.pcapng in `folder` for each node; every frame has its link's name.

        It needs no tcpdump, which knows one link a process, or all of them without their MACs.
        """
        recording = cls()
        with ExitStack() as undo:
            undo.callback(recording.stop)
            for node in nodes:
                # Opened here: inside, paths and users are different.
                with (folder / f"{node}.pcapng").open("wb") as file:
                    recording._running.append(_recorder(name, node, file))
            for node, process in zip(nodes, recording._running, strict=True):
                assert process.stderr is not None
                if process.stderr.readline() != recorder.LISTENS:
                    raise NotSo(f"{node}: the capture did not start; see {folder}")
            undo.pop_all()
        return recording

    def stop(self) -> None:
        """End the captures in order: their files are whole then."""
        for process in self._running:
            process.send_signal(signal.SIGINT)
        for process in self._running:
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stderr is not None:
                process.stderr.close()
        self._running.clear()


def _recorder(name: str, node: str, file: IO[bytes]) -> "subprocess.Popen[bytes]":
    words = [sys.executable, "-I", "-S", "-c", _START, SOURCE]
    namespaces = labs.enter(name, node)
    try:
        return exec_background.start(
            namespaces, words, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.PIPE
        )
    finally:
        for descriptor in namespaces.values():
            os.close(descriptor)
