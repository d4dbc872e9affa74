"""Listening sockets: handed over by whoever started us, or made here.

Handed over means systemd's protocol (sd_listen_fds(3)): LISTEN_FDS descriptors from number 3 on,
named by LISTEN_FDNAMES. A socket belongs to the network namespace in which it was made, so a
responder that is handed one serves a namespace that it cannot enter.
"""

import errno
import os
import socket
import stat
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

_FIRST_FD: Final = 3

BACKLOG: Final = 1024
"""Connections that wait to be accepted; the kernel's net.core.somaxconn may bound it further."""


class SocketError(Exception):
    """A listening socket cannot be had; says which and why."""


def handed_over(environ: MutableMapping[str, str]) -> dict[str, list[socket.socket]]:
    """Take the sockets that were handed over, by name, and remove the variables from `environ`.

    LISTEN_PID is checked only when it is set: a parent that cannot know the child's number in its
    own PID namespace leaves it out. Raises SocketError for variables or descriptors that are wrong.
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
            raise SocketError(f"descriptor {fd} ({label}) is no listening stream socket")
        taken.setdefault(label, []).append(sock)
    return taken


def listen_tcp(text: str) -> socket.socket:
    """Listen on `ADDRESS:PORT` (IPv4); raises SocketError."""
    address, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise SocketError(f"{text!r} is no listening address; it would look like 127.0.0.1:8080")
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, int(port)))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise SocketError(f"cannot listen on {text}: {error.strerror or error}") from error
    return sock


def listen_unix(path: Path) -> socket.socket:
    """Listen on a unix socket that its owner alone may connect to; raises SocketError.

    A socket file that a dead process has left is replaced; one that answers, or a file of another
    kind, is not.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        # The mode of the file is the socket's own, less the umask, which other threads share;
        # fchmod before bind sets it without either.
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
        raise FileExistsError(errno.EEXIST, "there is a file that is no socket")
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    else:
        raise OSError(errno.EADDRINUSE, "another process listens there")
    finally:
        probe.close()
