"""Listening sockets: inherited from the parent process, or made here.

Inherited means systemd's protocol (sd_listen_fds(3)): LISTEN_FDS descriptors from number 3 on,
named by LISTEN_FDNAMES. A socket belongs to the network namespace in which it was made, so a
responder can serve a namespace that it cannot enter.
"""

import errno
import os
import socket
import stat
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

from hostagent.classic_bpf import LOAD_WORD, MODULO, RETURN_LOADED, Program, pack

_FIRST_FD: Final = 3

BACKLOG: Final = 1024
"""Connections that wait to be accepted; net.core.somaxconn may lower it."""


class SocketError(Exception):
    """A listening socket cannot be opened or used; the message says which and why."""


def handed_over(environ: MutableMapping[str, str]) -> dict[str, list[socket.socket]]:
    """Take the sockets that were handed over, by name, and remove the variables from `environ`.

    LISTEN_PID is checked only if it is set: a parent in another PID namespace cannot know it.
    Raises SocketError for wrong variables or descriptors.
    """
    number = environ.pop("LISTEN_FDS", "")
    pid = environ.pop("LISTEN_PID", "")
    names = environ.pop("LISTEN_FDNAMES", "")
    if not number or (pid and pid != str(os.getpid())):
        return {}
    if not number.isdecimal() or int(number) > 64:
        raise SocketError(f"LISTEN_FDS is {number!r}; it must be a small number")
    count = int(number)
    labels = names.split(":") if names else ["unknown"] * count
    if len(labels) != count:
        raise SocketError(f"LISTEN_FDS is {count}, but LISTEN_FDNAMES names {len(labels)}")
    taken: dict[str, list[socket.socket]] = {}
    for fd, label in enumerate(labels, start=_FIRST_FD):
        try:
            os.set_inheritable(fd, False)
            sock = socket.socket(fileno=fd)
            listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise SocketError(f"descriptor {fd} ({label}): {error.strerror}") from error
        if not listening or sock.type != socket.SOCK_STREAM:
            raise SocketError(f"descriptor {fd} ({label}) is not a listening stream socket")
        taken.setdefault(label, []).append(sock)
    return taken


def listen_tcp(text: str, *, shared: bool = False) -> socket.socket:
    """Listen on `ADDRESS:PORT` (IPv4), `shared` with other sockets here; raises SocketError."""
    address, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise SocketError(f"{text!r} is not a listening address; write it like 127.0.0.1:8080")
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((address, int(port)))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise SocketError(f"cannot listen on {text}: {error.strerror or error}") from error
    return sock


def listen_many(text: str, count: int) -> list[socket.socket]:
    """Listen on `ADDRESS:PORT` with `count` sockets, one a process; raises SocketError."""
    if count == 1:
        return [listen_tcp(text)]
    first = listen_tcp(text, shared=True)
    where = "{}:{}".format(*first.getsockname())  # port 0 was replaced by the kernel
    return [first, *(listen_tcp(where, shared=True) for _ in range(1, count))]


def divide(
    listeners: list[socket.socket], count: int, *, by_mark: bool
) -> list[list[socket.socket]]:
    """Give each of `count` processes its listening sockets. Raises SocketError.

    If there are `count` sockets at one address (SO_REUSEPORT), each process gets one, and a guest
    is always served by the same process: the kernel chooses by the mark of the guest's port, or by
    the guest's address. If there is one socket, the processes share it.
    """
    at: dict[str, list[socket.socket]] = {}
    for one in listeners:
        at.setdefault(str(one.getsockname()), []).append(one)
    shares: list[list[socket.socket]] = [[] for _ in range(count)]
    for address, group in at.items():
        if len(group) not in (1, count):
            raise SocketError(
                f"{len(group)} sockets at {address}: for {count} processes use {count}, or 1"
            )
        if len(group) > 1:
            _choose_by(_MARK if by_mark else _SOURCE, group)
        for number, share in enumerate(shares):
            share.append(group[number % len(group)])
    return shares


_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_MARK: Final = 0xFFFFF000 + 20  # SKF_AD_OFF + SKF_AD_MARK
_SOURCE: Final = 0xFFF00000 + 12  # SKF_NET_OFF + the source in an IPv4 header


def _choose_by(word: int, group: list[socket.socket]) -> None:
    """Have the kernel choose among the sockets by this word of a connection's first packet."""
    choice = pack(((LOAD_WORD, 0, 0, word), (MODULO, 0, 0, len(group)), (RETURN_LOADED, 0, 0, 0)))
    try:
        group[0].setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, Program(choice))
    except OSError as error:
        address = group[0].getsockname()
        raise SocketError(f"the sockets at {address} cannot share it: {error.strerror}") from error


def listen_unix(path: Path) -> socket.socket:
    """Listen on a unix socket that its owner alone may connect to; raises SocketError.

    The socket file of a dead process is replaced; one that answers, or another kind of file, is
    not.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        # The file gets the socket's mode less the umask, which other threads share. fchmod before
        # bind needs no change of the umask.
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(str(path))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise SocketError(f"cannot listen on {path}: {error.strerror or error}") from error
    return sock


def _remove_stale(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "there is a file that is not a socket")
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    else:
        raise OSError(errno.EADDRINUSE, "another process listens there")
    finally:
        probe.close()
