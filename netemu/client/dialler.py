"""Makes sockets in a lab's network namespaces, for a process that cannot enter them.

Runs in a process of its own, one for each lab. A socket belongs to the namespace in which it was
made, and may be used from anywhere. An ordinary user's process has to enter the lab's user
namespace to make one. It cannot come back from there, and must have a single thread: so one small
process enters, and hands the sockets over.
"""

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from enum import Enum
from threading import Lock
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlsplit

from netemu.client.exec_foreground import enter
from netemu.errors import BadInput, NotSo
from netemu.kernel import namespaces as ns
from netemu.kernel.errors import KernelError
from netemu.linklocal.addresses import METADATA_TEXT
from netemu.wire.source import SOURCE

_START: Final = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from netemu.client.dialler import main; main(int(sys.argv[1]), int(sys.argv[2]))"
)


# The process imports only the standard library: a message is one byte with a descriptor beside it.


class Kind(Enum):
    """What is asked for: a socket of this kind."""

    TCP = b"t"
    NETLINK = b"n"


class _Reply(Enum):
    MADE = b"!"
    IMPOSSIBLE = b"-"


def _make(kind: Kind) -> socket.socket:
    match kind:
        case Kind.TCP:
            return socket.socket()
        case Kind.NETLINK:
            return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)


class Answer(NamedTuple):
    """What an HTTP server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text, in UTF-8."""
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        """The body as JSON. Raises NotSo if it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise NotSo(f"the answer ({self.status}) is no JSON: {self.text[:200]!r}") from None


class Dialler:
    """Makes sockets wherever a descriptor of a network namespace of the lab leads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._link: socket.socket
        self._process: subprocess.Popen[bytes]

    def start(self, user: int) -> Self:
        """Start the process; `user` is a descriptor of the sandbox's user namespace."""
        self._link, theirs = socket.socketpair()
        with theirs:
            there = str(theirs.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _START, SOURCE, there, str(user)],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), user),
                cwd="/",
                start_new_session=True,
            )
        return self

    def socket(self, net: int, kind: Kind = Kind.TCP) -> "socket.socket":
        """Make a socket in the network namespace of `net`. Raises NotSo if that has gone."""
        with self._lock:
            try:
                socket.send_fds(self._link, [kind.value], [net])
                answer, descriptors, _, _ = socket.recv_fds(self._link, 1, 1)
            except OSError:
                answer, descriptors = b"", []
        if answer != _Reply.MADE.value or not descriptors:
            raise NotSo("no socket could be made there: the lab has ended, or the guest has")
        os.set_inheritable(descriptors[0], False)
        return socket.socket(fileno=descriptors[0])

    def close(self) -> None:
        self._link.close()
        self._process.wait()


def main(link_descriptor: int, user: int) -> None:
    """Make a socket for each namespace that is asked for, until nobody asks any more."""
    link = socket.socket(fileno=link_descriptor)
    enter({"user": user})
    while True:
        question, descriptors, _, _ = socket.recv_fds(link, 1, 1)
        if not question:
            return
        (net,) = descriptors
        try:
            ns.setns(net, ns.NEWNET)
            with _make(Kind(question)) as made:
                socket.send_fds(link, [_Reply.MADE.value], [made.fileno()])
        except KernelError:
            link.send(_Reply.IMPOSSIBLE.value)
        finally:
            os.close(net)


class _Connection(http.client.HTTPConnection):
    """HTTP over a socket that was made elsewhere."""

    def __init__(self, made: socket.socket, host: str, port: int, timeout: float) -> None:
        super().__init__(host, port)
        made.settimeout(timeout)
        self.sock = made

    def connect(self) -> None:
        self.sock.connect((self.host, self.port))


def request(
    made: socket.socket,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes | str | None,
    timeout: float,
) -> Answer:
    """Ask by HTTP over the socket `made`, which is closed then.

    `url` is one of the metadata service's paths, or http://ADDRESS[:PORT]/…; `timeout` in seconds
    bounds each step. Raises BadInput for another URL, NotSo if nobody answers.
    """
    with made:
        parts = urlsplit(url if "://" in url else f"http://{METADATA_TEXT}{url}")
        if parts.scheme != "http" or not parts.hostname:
            raise BadInput(f"{url}: neither a path, as in /metadata/v1/InstanceInfo, nor http://…")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection = _Connection(made, parts.hostname, parts.port or 80, timeout)
        try:
            connection.connect()
            connection.request(method, path, body, {"Connection": "close", **headers})
            response = connection.getresponse()
            with response:
                return Answer(response.status, dict(response.getheaders()), response.read())
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise NotSo(f"{method} {url}: no answer: {reason}") from None
