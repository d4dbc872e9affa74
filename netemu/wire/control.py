"""The lab's control socket, from outside: a question in, maps and descriptors out.

A connection carries one question. Frames are the channel's (length and msgpack). An answer is one
map, or several where it grows with the lab: each but the last has `more`. Descriptors travel beside
the first.

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
from typing import Any, Final, NamedTuple

import msgspec

from hostagent.channel.frames import Decoder, FrameError, pack
from netemu.errors import BadInput, NotSo, of_exit_code
from netemu.wire import runtime_dir
from netemu.wire.questions import Question

HEARTBEAT: Final = 1.0
PENDING: Final = pack({"pending": True, "more": True})
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


def ask(
    lab: Path, question: Question, *, within: float | None = LONGEST
) -> tuple[list[dict[str, Any]], list[int]]:
    """Ask the lab whose directory is `lab`. Raises the lab's error.

    Raises NoAnswer if the lab has ended, Hangs after SILENCE or after `within` seconds.
    """
    with _asking(lab, question, within) as replies:
        told: list[dict[str, Any]] = []
        descriptors: list[int] = []
        for answer, received in replies:
            descriptors += received
            told.append(answer)
            if not answer.get("more"):
                return told, descriptors
    raise NoAnswer(f"{lab.name}: the lab ended before it had answered")


def listen(lab: Path, question: Question) -> Iterator[dict[str, Any]]:
    """Ask the lab for a stream, and yield its messages until it ends. Raises NoAnswer and Hangs."""
    with _asking(lab, question, None) as replies:
        for one, _ in replies:
            yield {key: value for key, value in one.items() if key != "more"}


def supervisor(lab: Path, *, within: float = SILENCE) -> int:
    """The process ID of the lab's supervisor, as the caller sees it. Raises NoAnswer and Hangs."""
    with _connected(lab, time.monotonic() + within) as link:
        return peer(link).process


def framed(question: Question) -> bytes:
    """The question's frame. Raises BadInput for text that is not UTF-8, and for too long a
    question.
    """
    try:
        return pack(msgspec.to_builtins(question, builtin_types=(bytes,)))
    except UnicodeEncodeError as error:
        raise BadInput(f"{error.object!r} is not UTF-8 text") from None
    except FrameError as error:
        raise BadInput(f"{question.__struct_config__.tag}: {error}") from None


@contextmanager
def _asking(
    lab: Path, question: Question, within: float | None
) -> Iterator[Iterator[tuple[dict[str, Any], list[int]]]]:
    """Yield the maps of the answer, each with the descriptors that came beside it. Raises BadInput
    too.
    """
    frame = framed(question)
    silence = SILENCE if within is None else min(SILENCE, within)
    end = None if within is None else time.monotonic() + within
    try:
        with _connected(lab, time.monotonic() + silence) as link:
            link.settimeout(silence)
            link.sendall(frame)
            yield _replies(lab, link, silence, end)
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
    lab: Path, link: socket.socket, silence: float, end: float | None
) -> Iterator[tuple[dict[str, Any], list[int]]]:
    decoder = Decoder()
    while True:
        left = silence if end is None else min(silence, end - time.monotonic())
        if left <= 0:
            raise hangs(lab, silence)
        link.settimeout(left)
        data, descriptors, _, _ = socket.recv_fds(link, _CHUNK, 16)
        for descriptor in descriptors:  # recv_fds passes no MSG_CMSG_CLOEXEC on
            os.set_inheritable(descriptor, False)
        if not data:
            return
        for answer in answers(decoder, data):
            yield answer, descriptors
            descriptors = []


def answers(decoder: Decoder, data: bytes) -> Iterator[dict[str, Any]]:
    """The answers in `data`, without heartbeats. Raises the error that one of them is."""
    for answer in decoder.feed(data):
        if "failed" in answer:
            raise of_exit_code(answer["exit"], answer["failed"])
        if not answer.get("pending"):
            yield answer


def hangs(lab: Path, silence: float) -> Hangs:
    return Hangs(
        f"{lab.name}: the lab has not answered for {silence:g} s: it hangs, or this machine is too "
        f"busy; 'netemu down {lab.name}' ends it in any case"
    )
