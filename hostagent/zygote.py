"""A process that has imported the daemons, and forks for each one that is to run.

A fork of the process that becomes a lab, or run as `python -P -m hostagent.zygote ROOM`; with a
SOCK_SEQPACKET socket at the descriptor LINK. The other end sends one `Start` at a time, once it has
heard `Ready`, and gets an `Answer`. So a daemon costs a fork, not a start of Python with its
imports, and shares the memory of its code with all others. It is not this process's child: PID 1 is
its parent, and reaps it.
"""

import errno
import gc
import os
import socket
import sys
from typing import Final

import msgspec

from hostagent import process_title

LINK: Final = 3
TAKEN_OVER: Final = b"!"
LONGEST: Final = 65536
MOST_DESCRIPTORS: Final = 64
_FIRST_HANDED_OVER: Final = 3


class Start(msgspec.Struct):
    """Start `hostagent` with these words.

    Beside it come descriptors: a pipe, where TAKEN_OVER is awaited; the log; and the sockets that
    are handed over (sd_listen_fds(3)). A daemon that nobody takes over ends and has done nothing.
    """

    words: list[str]
    environment: dict[str, str]
    """What is set beside the environment of this process."""


class Ready(msgspec.Struct, tag=True):
    """It can be asked."""


class Started(msgspec.Struct, tag=True):
    """The process that waits to be taken over."""

    process: int


class NotStarted(msgspec.Struct, tag=True):
    """The errno of the fork that failed."""

    error: int


Answer = Started | NotStarted


def main() -> None:
    """Fork until the link is closed. It returns in each daemon, too, once it has run."""
    import_daemons()
    link = socket.socket(fileno=LINK)
    os.set_inheritable(LINK, False)
    gc.freeze()
    try:
        ordered = _fork_until_closed(link)
    except ConnectionError:  # the other end is gone
        return
    if ordered is not None:
        link.close()
        _be(*ordered)


def _fork_until_closed(link: socket.socket) -> tuple[Start, list[int]] | None:
    """What a daemon is to do, in each daemon; None once the link is closed."""
    _say(link, Ready())
    while True:
        message, descriptors, _, _ = socket.recv_fds(link, LONGEST, MOST_DESCRIPTORS)
        if not message:
            return None
        start = msgspec.msgpack.decode(message, type=Start)
        if not (middle := _fork(link)):
            break
        for descriptor in descriptors:
            os.close(descriptor)
        if middle > 0:
            os.waitpid(middle, 0)
    # The kernel divides a core between sessions (sched(7), autogroup): in one of its own, a daemon
    # that does little does not wait for the lab's processes that do much.
    os.setsid()
    if process := _fork(link):
        if process > 0:
            os.setpgid(process, process)
            _say(link, Started(process))
        os._exit(0)
    return start, descriptors


def import_daemons() -> None:
    """Import what agents and responders import as they start."""
    from hostagent import (  # noqa: F401
        agent,
        cli,
        daemon,
        repository,
        scheduling,
        signing,
        sockets,
        workers,
    )
    from hostagent.responder import feed, server  # noqa: F401


def _say(link: socket.socket, message: Ready | Answer) -> None:
    link.send(msgspec.msgpack.encode(message))


def _fork(link: socket.socket) -> int:
    try:
        return os.fork()
    except OSError as error:
        _say(link, NotStarted(error.errno or errno.EAGAIN))
        return -1


def _be(start: Start, descriptors: list[int]) -> None:
    """Become the daemon."""
    leash, log, *handed_over = descriptors
    if os.read(leash, 1) != TAKEN_OVER:
        os._exit(0)
    # Copies are out of the way of the numbers that are to be taken.
    for number, copy in enumerate([os.dup(one) for one in (log, log, *handed_over)], 1):
        os.dup2(copy, number)
    os.closerange(_FIRST_HANDED_OVER + len(handed_over), max(descriptors) + len(descriptors) + 1)
    os.environ.update(start.environment)
    sys.argv = ["hostagent", *start.words]
    process_title.show(sys.argv)
    from hostagent.cli import main as run

    run()


if __name__ == "__main__":
    main()
