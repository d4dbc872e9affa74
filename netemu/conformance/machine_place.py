"""An attacker that is a machine: its frames are made here, and sent by its own kernel.

Runs in the suite's process. The machine needs a guest agent and perl, for nothing of ours runs in
it. What it sends and hears is heard at its port, on the node.
"""

from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

from netemu.client import machines
from netemu.conformance.inside import Inside
from netemu.conformance.probe import Place, Posted
from netemu.conformance.taps import Heard
from netemu.errors import NotSo

P = ParamSpec("P")
R = TypeVar("R")

# Seconds: an emulated machine on a busy one takes long.
_PATIENCE: Final = 60.0
# AF_PACKET, SOCK_RAW; struct sockaddr_ll. Each line of the input is a frame.
_SEND: Final = """
open(I, "/sys/class/net/eth0/ifindex") && chomp($index = <I>) or die "eth0: $!";
socket(S, 17, 3, 0) or die "socket: $!";
$to = pack("SSiSCCx8", 17, 0, $index, 0, 0, 6);
while (<STDIN>) { chomp; send(S, pack("H*", $_), 0, $to) }
"""
_AT_PORT: Final = frozenset(
    method.__name__ for method in (Inside.listen, Inside.drop, Inside.take, Inside.heard)
)


class MachinePlace(Place):
    """The machine `name` of the lab `lab`. The process behind it is on the node, at its `port`."""

    def __init__(self, lab: str, name: str, port: str) -> None:
        super().__init__(name, port)
        self._lab = lab

    def send(self, frames: Sequence[bytes]) -> int:
        """Have the machine send frames."""
        lines = "".join(f"{frame.hex()}\n" for frame in frames)
        self._in_machine("perl", "-e", _SEND, given=lines)
        return len(frames)

    def run(self, *command: str) -> tuple[int, str, str]:
        """Run a command in the machine."""
        done = machines.run(self._lab, self.name, command, "", _PATIENCE)
        return done.returncode, done.stdout, done.stderr

    def post(
        self, method: Callable[Concatenate[Inside, P], R], *given: P.args, **named: P.kwargs
    ) -> Posted[R]:
        """Listen at the machine's port. Raises NotSo for what has to be done within."""
        if method.__name__ not in _AT_PORT:
            raise NotSo(f"{self.name}: nothing of ours runs in a machine")
        super().post(method, *given, **named)
        return _PostedFromPort(self, method)

    def _in_machine(self, *command: str, given: str) -> None:
        done = machines.run(self._lab, self.name, command, given, _PATIENCE)
        if done.returncode != 0:
            raise NotSo(f"{self.name}: {command[0]}: {done.stderr.strip() or done.returncode}")


class _PostedFromPort(Posted[R]):
    def result(self) -> R:
        """What the port heard, as the machine's end did: what goes out there comes in here."""
        told: Any = super().result()
        if isinstance(told, list):
            return cast(R, _turned(told))
        if isinstance(told, tuple):
            return cast(R, (told[0], _turned(told[1])))
        return cast(R, told)


def _turned(heard: Heard) -> Heard:
    return [(interface, not outgoing, frame) for interface, outgoing, frame in heard]
