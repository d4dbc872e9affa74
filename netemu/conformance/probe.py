"""The other end of `netemu.conformance.inside`: a place of a lab as an object to ask."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from netemu.conformance import inside
from netemu.errors import NotSo
from netemu.wire.source import python_path

# No call that a row makes takes longer; one that does means that the place is gone.
_PATIENCE: Final = 60.0


class Place:
    """A process in the namespaces of a guest or a node. Ask with `call`; or `post`, then `result`.

    `interface` is the one that matters there: the guest's wire, the node's bridge.

    `wire`: it enters the network namespace only, as whoever holds the wire. Otherwise it is a
    process of the guest's like any other.
    """

    def __init__(
        self, name: str, namespaces: Mapping[str, int], interface: str, *, wire: bool = True
    ) -> None:
        self.name = name
        self.interface = interface
        self._depth = "wire" if wire else "whole"
        self._start(namespaces)

    def _start(self, namespaces: Mapping[str, int]) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(_PATIENCE)
        self._channel = ours
        self._ready = False
        command = [sys.executable, "-P", "-m", inside.__name__, str(theirs.fileno()), self._depth]
        command += [f"{kind}={descriptor}" for kind, descriptor in namespaces.items()]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # A process of the guest's gets nothing of the terminal.
            stderr=subprocess.DEVNULL if self._depth == "whole" else None,
            pass_fds=[theirs.fileno(), *namespaces.values()],
            env={**os.environ, "PYTHONPATH": python_path()},
        )
        theirs.close()
        for descriptor in namespaces.values():
            os.close(descriptor)

    def again(self, namespaces: Mapping[str, int]) -> None:
        """Begin anew in other namespaces, those of a guest after its reboot; with no tap open."""
        self.close()
        self._start(namespaces)

    def ready(self) -> None:
        """Wait until it is where it should be; nothing can be asked before."""
        if not self._ready and inside.receive(self._channel) != "ready":
            raise NotSo(f"{self.name}: no process could be put there")
        self._ready = True

    def call(self, verb: str, *arguments: Any) -> Any:
        """Have one of `inside.Inside`'s methods called, and give its answer."""
        self.post(verb, *arguments)
        return self.result()

    def post(self, verb: str, *arguments: Any) -> None:
        """Have it called, and do not wait: to be followed by one `result`."""
        self.ready()
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

    def send(self, frames: Sequence[bytes]) -> int:
        """Send frames on the interface, as they are; how many it took."""
        return int(self.call("send", self.interface, list(frames)))

    def flood(self, frames: Sequence[bytes], seconds: float) -> int:
        """Send them in a loop; how many the interface took."""
        return int(self.call("flood", self.interface, list(frames), seconds))

    def run(self, *command: str) -> tuple[int, str, str]:
        """Run a command there: its exit code, standard output and standard error."""
        code, out, err = self.call("run", list(command), "")
        return code, out, err

    def close(self) -> None:
        """End the process."""
        self._channel.close()
        self._process.kill()
        self._process.wait()
