"""Connects to the store's servers for a lab, which has no way out of its sandbox.

Runs outside, in the machine's own network namespace, as the user who ordered the lab: a socket
belongs to the namespace in which it was made. Run by `netemu.supervisor.boot.sandbox` as `python -m
netemu.supervisor.boot.store_dialler LINK HOST PORT…`. It sends no byte to a server and reads none;
it ends with the lab. It has no privilege: root's becomes a user of its own.

No other process of the lab is outside and could start it again when it is killed. So there are two
of it: either one answers a question, and starts another when its partner has ended.
"""

import encodings.idna  # noqa: F401 - of getaddrinfo: later it may be out of reach
import os
import select
import signal
import socket
import sys
import time
from typing import Final

import msgspec
from msgspec import Struct

from hostagent import privileges
from netemu.kernel.descriptor_link import receive, send


class Dial(Struct, array_like=True, tag=True):
    """Begin a connection to a server; the answer has the same number."""

    number: int
    server: int


class Connecting(Struct, array_like=True, tag=True):
    """Beside it is a socket; the other end sees how its connecting ends."""

    number: int


class Unreachable(Struct, array_like=True, tag=True):
    """Why a socket could not be made."""

    number: int
    reason: str


Answer = Connecting | Unreachable

# What it becomes when the lab is root's: see `AGENT_USER`.
DIALLER_USER: Final = 61904

# Seconds before a partner that has ended is replaced.
_PAUSE = 0.1


def main() -> None:
    """Begin a connection to each server that is asked for, until the other end is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a partner has ended
    link = socket.socket(fileno=int(sys.argv[1]))
    link.setblocking(False)
    privileges.give_up(DIALLER_USER if os.geteuid() == 0 else None)
    servers = list(zip(sys.argv[2::2], map(int, sys.argv[3::2]), strict=True))
    partner = _start_partner()
    while True:
        ready, _, _ = select.select([link.fileno(), partner], [], [])
        if partner in ready:
            time.sleep(_PAUSE)
            os.close(partner)
            partner = _start_partner()
        try:
            told, _, _ = receive(link)
        except BlockingIOError:  # the partner has it, or there was none
            continue
        if not told:
            return
        question = msgspec.convert(told, Dial)
        _answer(link, *servers[question.server], question.number)


def _start_partner() -> int:
    """Fork. Returns, in both processes, a descriptor that is readable once the other has ended."""
    parent = os.pidfd_open(os.getpid())
    child = os.fork()
    if child == 0:
        return parent
    os.close(parent)
    return os.pidfd_open(child)


def _answer(link: socket.socket, host: str, port: int, number: int) -> None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind | socket.SOCK_NONBLOCK) as made:
            made.connect_ex(address)
            send(link, msgspec.to_builtins(Connecting(number)), [made.fileno()])
    except OSError as error:
        answer = Unreachable(number, error.strerror or "no such host")
        send(link, msgspec.to_builtins(answer), [])


if __name__ == "__main__":
    main()
