"""The way into the sandbox: what is made outside, then out of the machine's namespaces.

Runs in the process that becomes the supervisor, PID 1. An ordinary user first becomes root of a
user namespace of his own; nothing else differs.
"""

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from netemu.errors import MachineCannot
from netemu.kernel import namespaces as ns
from netemu.kernel.errors import KernelError
from netemu.supervisor.boot.remedies import explained, has_what_it_takes
from netemu.wire import runtime_dir


def enter() -> None:
    """Leave the machine's namespaces; the next child is PID 1 of the sandbox.

    A process that lacks a capability which a lab needs, root's in a container as well, first gets
    all of them in a user namespace of its own. Raises MachineCannot, with what to do.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        if not has_what_it_takes():
            ns.unshare(ns.NEWUSER)
            _map("setgroups", "deny")
            _map("uid_map", f"0 {user} 1")
            _map("gid_map", f"0 {group} 1")
        ns.unshare(ns.NEWNS | ns.NEWPID | ns.NEWNET | ns.NEWIPC | ns.NEWUTS)
    except KernelError as error:
        raise explained(error) from None


def sockets(directory: Path, nodes: int) -> list[int]:
    """The lab's sockets that the machine's processes may connect to, and that no guest can.

    They have abstract names in the machine's network namespace, so they are made before it is left:
    for control, then for the commands to each node's agent.
    """
    names = [runtime_dir.CONTROL, *(runtime_dir.agent_socket(number) for number in range(nodes))]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        return [_bound(runtime_dir.address(directory, name)) for name in names]
    except OSError as error:
        raise MachineCannot(f"{directory}: no socket for commands: {error.strerror}") from None


def _bound(address: str) -> int:
    made = socket.socket(socket.AF_UNIX)
    made.bind(address)
    return made.detach()


def dialler(servers: Sequence[str]) -> int:
    """Start the process that connects to the store's servers from outside; the way to it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        module = "netemu.supervisor.boot.store_dialler"
        subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(theirs.fileno()), *servers],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
            cwd="/",
        )
    return ours.detach()


# VXLAN's port, unless the machine uses it: others are told the port that it is.
_VXLAN: Final = 4789
_ROOM: Final = 1 << 20  # of what other machines send at once
# linux/in.h, linux/in6.h: a frame that is too long for the network between machines is fragmented.
_MTU_DISCOVER: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, 10),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 23),
}
_NEVER: Final = 0


def to_machines(servers: Sequence[str]) -> int:
    """The socket to other machines, at the address by which this one reaches the store.

    Raises MachineCannot if it reaches none of its servers.
    """
    problem = "no server"
    for host, port in zip(servers[::2], servers[1::2], strict=True):
        try:
            family, kind, _, _, there = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind) as route:
                route.connect(there)
                own = route.getsockname()[0]
            made = socket.socket(family, kind)
            made.setsockopt(*_MTU_DISCOVER[family], _NEVER)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
            try:
                made.bind((own, _VXLAN))
            except OSError:
                made.bind((own, 0))
        except OSError as error:
            problem = f"{host}: {error.strerror or error}"
            continue
        return made.detach()
    raise MachineCannot(f"no way to other machines for the tenant network: {problem}")


def _map(name: str, text: str) -> None:
    try:
        Path(f"/proc/self/{name}").write_text(text)
    except OSError as error:
        what = f"a user namespace of its own (/proc/self/{name})"
        raise KernelError(what, error.errno or 0) from None
