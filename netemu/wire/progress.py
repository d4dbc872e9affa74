"""What the supervisor tells the client that waits for the lab to come up, over a pipe."""

import array
import fcntl
import os
import termios
from collections.abc import Iterator
from typing import Final, Self

import msgspec

from netemu.errors import NetemuError, NotSo, of_exit_code
from netemu.wire.framing import Reader, framed

# Characters of an error's text: a write of at most one page is atomic.
_LONGEST: Final = 1000


class Step(msgspec.Struct, frozen=True, tag=True):
    """In this phase, `done` of `of` are done."""

    phase: str
    done: int
    of: int


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The lab is up."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """What was asked for cannot be had, and why; `exit_code` is that of the error's class."""

    reason: str
    exit_code: int

    @classmethod
    def of(cls, error: NetemuError) -> Self:
        """Return what tells of the error."""
        reason = str(error).encode(errors="replace").decode()  # a path need not be text
        return cls(reason, error.exit_code)


Message = Step | Ready | Failed


class Progress:
    """The supervisor's end. It never waits: a step that does not fit into the pipe is left out.

    Steps leave half of the pipe free for the last message.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        os.set_inheritable(descriptor, False)
        os.set_blocking(descriptor, False)

    def step(self, phase: str, done: int, of: int) -> None:
        """Report how much of a phase is done."""
        if self._descriptor is not None and self._has_room():
            self._say(Step(phase, done, of))

    def ready(self) -> None:
        """Report that the lab is up; this is the last message."""
        self._say(Ready())
        self._close()

    def failed(self, error: NetemuError) -> None:
        """Report why the lab will not come up; this is the last message."""
        told = Failed.of(error)
        try:
            self._say(Failed(told.reason[:_LONGEST], told.exit_code))
        finally:
            self._close()

    def _has_room(self) -> bool:
        assert self._descriptor is not None
        waiting = array.array("i", [0])
        try:
            fcntl.ioctl(self._descriptor, termios.FIONREAD, waiting)
            return waiting[0] < fcntl.fcntl(self._descriptor, fcntl.F_GETPIPE_SZ) // 2
        except OSError:
            return False

    def _say(self, message: Message) -> None:
        if self._descriptor is not None:
            try:
                os.write(self._descriptor, framed(message))
            except (BrokenPipeError, BlockingIOError):
                pass

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def steps(descriptor: int) -> Iterator[Step]:
    """The client's end: yield every step until the lab is ready. Raises the error that made it
    fail.
    """
    reader: Reader[Message] = Reader(Message)
    while data := os.read(descriptor, 65536):
        for message in reader.feed(data):
            match message:
                case Ready():
                    return
                case Failed(reason, exit_code):
                    raise of_exit_code(exit_code, reason)
                case Step():
                    yield message
    raise NotSo("the lab ended before it was up")
