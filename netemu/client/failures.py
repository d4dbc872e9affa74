"""The errors of a command that a program has run in a guest. Pure."""

import subprocess
from collections.abc import Sequence

from netemu.errors import NotSo


class CommandFailed(NotSo, subprocess.CalledProcessError):
    """A command in a guest ended with another exit code than 0; shows what it said."""

    def __init__(self, place: str, done: "subprocess.CompletedProcess[str]") -> None:
        subprocess.CalledProcessError.__init__(
            self, done.returncode, done.args, done.stdout, done.stderr
        )
        self.place = place

    def __str__(self) -> str:
        said = (self.stderr or self.stdout or "").strip()
        shown = f": {said}" if said else ""
        return f"{self.place}: {' '.join(self.cmd)} ended with {self.returncode}{shown}"


class CommandTimedOut(NotSo, subprocess.TimeoutExpired):
    """A command in a guest did not end in time, and was killed."""

    def __init__(self, place: str, command: Sequence[str], timeout: float) -> None:
        subprocess.TimeoutExpired.__init__(self, list(command), timeout)
        self.place = place

    def __str__(self) -> str:
        return f"{self.place}: {' '.join(self.cmd)} did not end within {self.timeout:g} s"
