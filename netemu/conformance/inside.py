"""A process in one place of a lab: sends the frames that it is given, and tells what it hears.

Run as `python -m netemu.conformance.inside CHANNEL DEPTH KIND=DESCRIPTOR...`, it enters the
namespaces of a guest or a node and serves `Inside`'s methods, one call at a time: a `Call` in, an
`Answer` out. DEPTH `wire` enters the network namespace alone; `whole` is a real
process of the guest's, which sees what the guest sees.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from netemu.client import exec_foreground
from netemu.conformance.connections import Connections
from netemu.conformance.taps import Taps, environment
from netemu.errors import NetemuError
from netemu.kernel import confinement, guest_limits, seccomp
from netemu.kernel import namespaces as ns
from netemu.wire.framing import Link

_PR_SET_PDEATHSIG: Final = 1


class Call(msgspec.Struct):
    """A method of `Inside` to be called."""

    method: str
    arguments: tuple[Any, ...]
    named: dict[str, Any]


class Answer(msgspec.Struct):
    """What the method has returned, or what it has raised."""

    wrong: str = ""
    value: msgspec.Raw = msgspec.Raw(msgspec.msgpack.encode(None))


class Ready(msgspec.Struct):
    """The process is where it should be."""


class Inside(Taps, Connections):
    """The methods that may be called. Arguments and results are what msgpack can carry."""

    def __init__(self) -> None:
        Taps.__init__(self)
        Connections.__init__(self)
        self._program: subprocess.Popen[bytes] | None = None
        self._borrowed: list[tuple[str, str]] = []

    def start(self, command: list[str], files: dict[str, str]) -> str:
        """Write these files and start a program. Returns the error, or ""."""
        try:
            for path, text in files.items():
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).write_text(text)
                Path(path).chmod(0o755)
            self._program = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment(),
                preexec_fn=confinement.end_with_parent,
            )
        except OSError as error:
            return str(error)
        return ""

    def stop(self) -> str:
        """End the program that was started: SIGTERM, and SIGKILL after three seconds."""
        if self._program is None:
            return "not started"
        self._program.terminate()
        try:
            self._program.wait(3)
        except subprocess.TimeoutExpired:
            self._program.kill()
            self._program.wait()
        self._program = None
        return ""

    def borrow(self, address: str, device: str) -> None:
        """Add an address here until `give_back`, or the end of this process."""
        # An end between the two would leave it there, or take one that was there before.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        code, _, _ = self.run(["ip", "address", "add", address, "dev", device])
        if code == 0:
            self._borrowed.append((address, device))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def give_back(self) -> None:
        """Remove the addresses that were added."""
        while self._borrowed:
            address, device = self._borrowed.pop()
            self.run(["ip", "address", "del", address, "dev", device])

    def run(self, command: list[str], text: str = "") -> tuple[int, str, str]:
        """Run a command here: its exit code, standard output and standard error."""
        try:
            done = subprocess.run(
                command,
                input=text,
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
                env=environment(),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return 127, "", str(error)
        return done.returncode, done.stdout, done.stderr

    def read(self, path: str) -> str:
        """A file as this place sees it."""
        try:
            return Path(path).read_text()
        except OSError as error:
            return f"{type(error).__name__}"

    # What makes sense only for a process inside a guest.

    def reach(self, paths: list[str], abstract: list[str]) -> list[str]:
        """The Unix sockets that accept a connection, among these and all that are visible, abstract
        ones too.
        """
        listed = [line.split()[-1] for line in self.read("/proc/net/unix").splitlines()]
        names = {b"\0" + one.encode() for one in abstract}
        names |= {b"\0" + one[1:].encode() for one in listed if one.startswith("@")}
        names |= {one.encode() for one in paths}
        names |= {one.encode() for one in listed if one.startswith("/")}
        reached = []
        for name in sorted(names):
            for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_UNIX, kind) as link:
                    try:
                        link.connect(name)
                        reached.append(name.replace(b"\0", b"@").decode(errors="replace"))
                    except OSError:
                        continue
        return reached

    def escape(self) -> list[str]:
        """Namespaces other than its own that it could enter, by every path in /proc."""
        own = {kind: os.stat(f"/proc/self/ns/{kind}").st_ino for kind in ("net", "mnt", "pid")}
        found = []
        for process in [entry for entry in os.listdir("/proc") if entry.isdigit()]:
            for kind, mine in own.items():
                path = f"/proc/{process}/ns/{kind}"
                try:
                    if os.stat(path).st_ino != mine and _may_enter(path):
                        found.append(path)
                except OSError:
                    continue
            try:
                descriptors = os.listdir(f"/proc/{process}/fd")
            except OSError:
                continue
            for one in descriptors:
                path = f"/proc/{process}/fd/{one}"
                try:
                    if not os.readlink(path).startswith("net:"):
                        continue
                    if os.stat(path).st_ino != own["net"] and _may_enter(path):
                        found.append(path)
                except OSError:
                    continue
        return found


def _may_enter(path: str) -> bool:
    """Whether a child of this process may enter the namespace."""
    child = os.fork()
    if child == 0:
        try:
            ns.setns(os.open(path, os.O_RDONLY))
            os._exit(0)
        except (NetemuError, OSError):
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def _end_with_parent() -> None:
    """Have this process end in order when its parent ends, for whatever reason."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _serve(link: Link) -> None:
    # All places run on one CPU. So there is one queue of frames, in the order of sending: when a
    # frame is heard, all frames sent before it have been handled.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    inside = Inside()
    try:
        _answer_calls(link, inside)
    except ConnectionError:
        pass
    finally:
        inside.give_back()


def _answer_calls(link: Link, inside: Inside) -> None:
    try:
        while (call := link.receive(Call)) is not None:
            method: Callable[..., Any] = getattr(inside, call.method)
            try:
                value = msgspec.msgpack.encode(method(*call.arguments, **call.named))
                answer = Answer(value=msgspec.Raw(value))
            except Exception as error:
                answer = Answer(repr(error))
            link.send(answer)
    finally:
        # The parent's end closes the channel and sends SIGTERM: whichever comes second must not
        # interrupt what is given back.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def main() -> None:
    """Enter the namespaces, and serve until the other end is gone."""
    link = Link(socket.socket(fileno=int(sys.argv[1])))
    depth = sys.argv[2]
    pairs = (one.split("=") for one in sys.argv[3:])
    namespaces = {kind: int(descriptor) for kind, descriptor in pairs}
    guest = exec_foreground.is_guest(namespaces)
    if depth == "wire":
        wanted = {"sandbox", "user", "net"} if "sandbox" not in namespaces else {"sandbox", "net"}
        for kind in namespaces.keys() - wanted:
            os.close(namespaces.pop(kind))
    _end_with_parent()
    exec_foreground.enter(namespaces)
    if depth == "whole" and (child := os.fork()) != 0:
        link.close()
        os.waitpid(child, 0)
        return
    _end_with_parent()
    if depth == "whole":
        confinement.leave_keys_behind()
        if guest:
            guest_limits.bound_process()
            seccomp.confine_guest()
        os.chdir("/")
    link.send(Ready())
    _serve(link)


if __name__ == "__main__":
    main()
