"""The other end of `netemu.conformance.inside`: a place of a lab as an object to ask."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

from netemu.conformance import inside
from netemu.errors import NotSo
from netemu.lab.client import source_path

# No call that a row makes takes longer; one that does means that the place is gone.
_PATIENCE: Final = 60.0


class Place:
    """A process in the namespaces of a guest or a node. Ask with `call`; or `post`, then `result`.

    `wire`: it enters the network namespace only, as whoever holds the wire, and outlives a reboot
    of the guest. Otherwise it is a process of the guest's like any other.
    """

    def __init__(self, name: str, namespaces: Mapping[str, int], *, wire: bool = True) -> None:
        self.name = name
        ours, theirs = socket.socketpair()
        ours.settimeout(_PATIENCE)
        self._channel = ours
        command = [sys.executable, "-P", "-m", inside.__name__, str(theirs.fileno())]
        command.append("wire" if wire else "whole")
        command += [f"{kind}={descriptor}" for kind, descriptor in namespaces.items()]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno(), *namespaces.values()],
            env={**os.environ, "PYTHONPATH": source_path()},
        )
        theirs.close()
        for descriptor in namespaces.values():
            os.close(descriptor)

    def ready(self) -> None:
        """Wait until it is where it should be."""
        if inside.receive(self._channel) != "ready":
            raise NotSo(f"{self.name}: no process could be put there")

    def call(self, verb: str, *arguments: Any) -> Any:
        """Have one of `inside.Inside`'s methods called, and give its answer."""
        self.post(verb, *arguments)
        return self.result()

    def post(self, verb: str, *arguments: Any) -> None:
        """Have it called, and do not wait: to be followed by one `result`."""
        inside.send(self._channel, [verb, arguments])

    def result(self) -> Any:
        """The answer to the last `post`."""
        answer = inside.receive(self._channel)
        if answer is None:
            raise NotSo(f"{self.name}: the process there has ended")
        wrong, value = answer
        if wrong:
            raise NotSo(f"{self.name}: {wrong}")
        return value

    def close(self) -> None:
        """End the process."""
        self._channel.close()
        self._process.kill()
        self._process.wait()
