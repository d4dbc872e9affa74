"""The lab's control socket, from outside: a question in, an answer and descriptors out.

A connection carries one question. The answer is one message, with descriptors beside it, or, for a
stream, one message after another.

While the lab works on an answer, it sends a heartbeat every second. After a longer silence the
asker takes the lab for hung. It never waits without a limit.
"""

import errno
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from hostagent.channel.frames import FrameError
from netemu.errors import BadInput, NotSo, of_exit_code
from netemu.wire import framing, runtime_dir
from netemu.wire.progress import Failed
from netemu.wire.questions import Question


class Pending(msgspec.Struct, tag=True):
    """A heartbeat: the answer is still to come."""


class Told(msgspec.Struct, tag=True):
    """An answer, of the type that its question names."""

    answer: msgspec.Raw


Reply = Pending | Told | Failed
A = TypeVar("A")

HEARTBEAT: Final = 1.0
PENDING: Final = framing.framed(Pending())
# Five heartbeats: on a busy machine the supervisor's loop may stop for a while, but not so long.
SILENCE: Final = 5.0
# No question takes longer but `wait`, which the supervisor limits.
LONGEST: Final = 300.0

_CHUNK: Final = 65536
# Seconds between attempts to connect to a lab that is starting.
_LOOK: Final = 0.02


class NoAnswer(NotSo):
    """The lab has ended, is about to, or is just starting."""


class Hangs(NotSo):
    """The lab runs, and does not answer."""


class Credentials(NamedTuple):
    """The process at the other end of a Unix socket, with its IDs as this process sees them."""

    process: int
    user: int
    group: int


def peer(link: socket.socket) -> Credentials:
    """The other end's credentials, from the kernel. A server's are those of the process that called
    listen(2).
    """
    told = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    return Credentials(*struct.unpack("iII", told))


def ask(lab: Path, question: Question[A], *, within: float | None = LONGEST) -> tuple[A, list[int]]:
    """Ask the lab whose directory is `lab`. Returns the answer and descriptors; raises the lab's
    error.

    Raises NoAnswer if the lab has ended, Hangs after SILENCE or after `within` seconds.
    """
    with _asking(lab, question, within) as replies:
        for answer in replies:
            return answer
    raise NoAnswer(f"{lab.name}: the lab ended before it had answered")


def listen(lab: Path, question: Question[A]) -> Iterator[A]:
    """Ask the lab for a stream, and yield its messages until it ends. Raises NoAnswer and Hangs."""
    with _asking(lab, question, None) as replies:
        for one, _ in replies:
            yield one


def supervisor(lab: Path, *, within: float = SILENCE) -> int:
    """The process ID of the lab's supervisor, as the caller sees it. Raises NoAnswer and Hangs."""
    with _connected(lab, time.monotonic() + within) as link:
        return peer(link).process


def framed(question: Question[Any]) -> bytes:
    """The question's frame. Raises BadInput for text that is not UTF-8, and for too long a
    question.
    """
    try:
        return framing.framed(question)
    except UnicodeEncodeError as error:
        raise BadInput(f"{error.object!r} is not UTF-8 text") from None
    except FrameError as error:
        raise BadInput(f"{question.__struct_config__.tag}: {error}") from None


def answers(question: Question[A], reader: "framing.Reader[Reply]", data: bytes) -> Iterator[A]:
    """The answers in `data`, without heartbeats. Raises the error that one of them is."""
    for reply in reader.feed(data):
        match reply:
            case Failed(reason, exit_code):
                raise of_exit_code(exit_code, reason)
            case Told(answer):
                yield question.answer(bytes(answer))


def reader() -> "framing.Reader[Reply]":
    """Reads what the lab sends."""
    return framing.Reader(Reply)


@contextmanager
def _asking(
    lab: Path, question: Question[A], within: float | None
) -> Iterator[Iterator[tuple[A, list[int]]]]:
    """Yield the answers, each with the descriptors that came beside it. Raises BadInput too."""
    frame = framed(question)
    silence = SILENCE if within is None else min(SILENCE, within)
    end = None if within is None else time.monotonic() + within
    try:
        with _connected(lab, time.monotonic() + silence) as link:
            link.settimeout(silence)
            link.sendall(frame)
            yield _replies(lab, question, link, silence, end)
    except TimeoutError:
        raise hangs(lab, silence) from None
    except (OSError, FrameError) as error:
        raise NoAnswer(f"{lab.name}: the lab does not answer: {error}") from None


def _connected(lab: Path, end: float) -> socket.socket:
    with ExitStack() as undo:
        link = undo.enter_context(socket.socket(socket.AF_UNIX))
        link.settimeout(SILENCE)
        try:
            address = runtime_dir.address(lab, runtime_dir.CONTROL)
            while not _is_taken(link, address):
                if time.monotonic() > end:
                    raise hangs(lab, SILENCE)
                time.sleep(_LOOK)
        except OSError as error:
            raise NoAnswer(f"{lab.name}: the lab does not answer: {error.strerror}") from None
        undo.pop_all()
        return link


def _is_taken(link: socket.socket, address: str) -> bool:
    """Connect. False if the queue of connections is full, as when the lab does not accept any."""
    try:
        link.connect(address)
    except BlockingIOError:
        return False
    if peer(link).user != os.geteuid():
        raise PermissionError(errno.EPERM, "another user has taken its name")
    return True


def _replies(
    lab: Path, question: Question[A], link: socket.socket, silence: float, end: float | None
) -> Iterator[tuple[A, list[int]]]:
    replies = reader()
    descriptors: list[int] = []
    while True:
        left = silence if end is None else min(silence, end - time.monotonic())
        if left <= 0:
            raise hangs(lab, silence)
        link.settimeout(left)
        data, received, _, _ = socket.recv_fds(link, _CHUNK, 16)
        for descriptor in received:  # recv_fds passes no MSG_CMSG_CLOEXEC on
            os.set_inheritable(descriptor, False)
        if not data:
            return
        descriptors += received
        for answer in answers(question, replies, data):
            yield answer, descriptors
            descriptors = []


def hangs(lab: Path, silence: float) -> Hangs:
    return Hangs(
        f"{lab.name}: the lab has not answered for {silence:g} s: it hangs, or this machine is too "
        f"busy; 'netemu down {lab.name}' ends it in any case"
    )
