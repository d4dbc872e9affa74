"""The other end of `netemu.conformance.inside`: calls methods in a place of a lab. Runs in the
suite's process.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar, get_type_hints

from netemu.conformance import inside
from netemu.conformance.inside import Inside
from netemu.errors import NotSo
from netemu.wire.framing import Link, decoded
from netemu.wire.source import python_path

P = ParamSpec("P")
R = TypeVar("R")

# No row's call takes longer. If one does, the place is gone.
_PATIENCE: Final = 60.0


class Place:
    """A process in the namespaces of a guest or a node. Use `call`; or `post`, then `result`.

    `interface` is the one that matters there: the guest's wire, the node's bridge.

    With `wire` the process enters the network namespace only: it controls the wire as the guest's
    root does. Otherwise it is a process inside the guest.
    """

    def __init__(self, name: str, interface: str, *, wire: bool = True) -> None:
        self.name = name
        self.interface = interface
        self._depth = "wire" if wire else "whole"
        self._ready = False
        self._link: Link
        self._process: subprocess.Popen[bytes]

    def start(self, namespaces: Mapping[str, int]) -> Self:
        """Start the process, which enters these namespaces; `ready` waits for it."""
        ours, theirs = socket.socketpair()
        ours.settimeout(_PATIENCE)
        self._link = Link(ours)
        self._ready = False
        command = [sys.executable, "-P", "-m", inside.__name__, str(theirs.fileno()), self._depth]
        command += [f"{kind}={descriptor}" for kind, descriptor in namespaces.items()]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # A process inside the guest gets no access to the terminal.
            stderr=subprocess.DEVNULL if self._depth == "whole" else None,
            pass_fds=[theirs.fileno(), *namespaces.values()],
            env={**os.environ, "PYTHONPATH": python_path()},
        )
        theirs.close()
        for descriptor in namespaces.values():
            os.close(descriptor)
        return self

    def again(self, namespaces: Mapping[str, int]) -> None:
        """Start again in other namespaces, those of a guest after its reboot; no tap is open."""
        self.close()
        self.start(namespaces)

    def ready(self) -> None:
        """Wait until the process has entered; nothing can be called before."""
        if not self._ready and self._link.receive(inside.Ready) is None:
            raise NotSo(f"{self.name}: no process could be put there")
        self._ready = True

    def call(
        self, method: Callable[Concatenate[Inside, P], R], *given: P.args, **named: P.kwargs
    ) -> R:
        """Call a method of `inside.Inside` there. Returns its result. Raises NotSo if it fails."""
        return self.post(method, *given, **named).result()

    def post(
        self, method: Callable[Concatenate[Inside, P], R], *given: P.args, **named: P.kwargs
    ) -> "Posted[R]":
        """Call it without waiting. Ask for the result before the next call."""
        self.ready()
        self._link.send(inside.Call(method.__name__, given, named))
        return Posted(self, method)

    def answer(self) -> inside.Answer:
        """The process's answer to the last call."""
        answer: inside.Answer | None = self._link.receive(inside.Answer)
        if answer is None:
            raise NotSo(f"{self.name}: the process there has ended")
        if answer.wrong:
            raise NotSo(f"{self.name}: {answer.wrong}")
        return answer

    def send(self, frames: Sequence[bytes]) -> int:
        """Send frames on the interface, unchanged. Returns how many it took."""
        return self.call(Inside.send, self.interface, list(frames))

    def flood(self, frames: Sequence[bytes], seconds: float) -> int:
        """Send frames in a loop. Returns how many the interface took."""
        return self.call(Inside.flood, self.interface, list(frames), seconds)

    def run(self, *command: str) -> tuple[int, str, str]:
        """Run a command there. Returns its exit code, standard output and standard error."""
        return self.call(Inside.run, list(command))

    def close(self, patience: float = 0.0) -> None:
        """End the process, which has `patience` seconds to give back what it has borrowed."""
        self._link.close()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Posted(Generic[R]):
    """A call that was not waited for."""

    def __init__(self, place: Place, method: Callable[..., R]) -> None:
        self._place = place
        self._method = method

    def result(self) -> R:
        """What the method has returned."""
        returned: R = decoded(self._place.answer().value, _returns(self._method))
        return returned


@cache
def _returns(method: Callable[..., Any]) -> Any:
    return get_type_hints(method)["return"]
