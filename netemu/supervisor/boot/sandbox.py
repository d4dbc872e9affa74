"""The way into the sandbox: leave the machine's namespaces, and become the supervisor, PID 1.

Run as `python -m netemu.supervisor.boot.sandbox DIRECTORY LOCK PROGRESS OWNER NODES [HOST PORT]…`
with the lab on standard input; the hosts are the servers of its store, if that is elsewhere. An
ordinary user first becomes root of a user namespace of his own; nothing else differs.
"""

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from netemu.errors import MachineCannot, NetemuError
from netemu.kernel import namespaces as ns
from netemu.kernel.errors import KernelError
from netemu.supervisor.boot.remedies import explained, has_what_it_takes
from netemu.wire import runtime_dir
from netemu.wire.progress import Progress


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


def _sockets(directory: Path, nodes: int) -> list[socket.socket]:
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


def _bound(address: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.set_inheritable(True)
    made.bind(address)
    return made


def _dialler(servers: Sequence[str]) -> socket.socket:
    """Start the process that connects to the store's servers from outside; the way to it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.set_inheritable(True)
    with theirs:
        module = "netemu.supervisor.boot.store_dialler"
        subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(theirs.fileno()), *servers],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
            cwd="/",
        )
    return ours


def _map(name: str, text: str) -> None:
    try:
        Path(f"/proc/self/{name}").write_text(text)
    except OSError as error:
        what = f"a user namespace of its own (/proc/self/{name})"
        raise KernelError(what, error.errno or 0) from None


def main() -> NoReturn:
    """Enter the sandbox, hand over to the supervisor, and be done."""
    directory, lock, progress, owner, nodes = sys.argv[1], *map(int, sys.argv[2:6])
    try:
        sockets = _sockets(Path(directory), nodes)
        if servers := sys.argv[6:]:
            sockets.append(_dialler(servers))
        enter()
    except NetemuError as error:
        Progress(progress).failed(error)
        sys.exit(error.exit_code)
    if os.fork() != 0:
        os._exit(0)
    os.setsid()
    module = "netemu.supervisor.boot.pid1"
    arguments = [sys.executable, "-P", "-m", module, directory, str(lock), str(progress)]
    arguments += [str(owner), ",".join(str(made.fileno()) for made in sockets)]
    os.execv(sys.executable, arguments)


if __name__ == "__main__":
    main()
