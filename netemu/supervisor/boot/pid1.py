"""Enters the sandbox as its PID 1, prepares its mounts, and supervises the lab until it ends.

Run as `python -m netemu.supervisor.boot.pid1 DIRECTORY LOCK PROGRESS OWNER NODES CROSSES
[HOST PORT]… ROOM` with the order on standard input; the hosts are the servers of the lab's store,
if it has one, and CROSSES is 1 if its tenant network has other machines' guests. It holds the lab's
lock and every namespace; when it ends, all of it is gone.
"""

import asyncio
import errno
import logging
import os
import resource
import socket
import sys
from pathlib import Path
from typing import Final

from hostagent import process_title
from netemu.errors import MachineCannot, NetemuError
from netemu.kernel import namespaces as ns
from netemu.supervisor.boot import sandbox
from netemu.supervisor.boot.log_limit import LogLimit
from netemu.supervisor.boot.remedies import explained
from netemu.supervisor.boot.supervisor import Supervisor
from netemu.supervisor.nodes.node_services import STATE
from netemu.supervisor.nodes.zygote import Zygote, fork_zygote
from netemu.topology import Lab
from netemu.wire import runtime_dir
from netemu.wire.framing import Reader
from netemu.wire.limits import open_files
from netemu.wire.order import Order
from netemu.wire.progress import Progress

log = logging.getLogger(__name__)

# Bytes for all agents' stores of one lab; they are in memory, which is the whole machine's.
STATE_SIZE: Final = 256 << 20
_BACKLOG: Final = 64


def _make_room_for_descriptors(lab: Lab) -> None:
    """Raise the limit of open files as far as the lab needs it, or say what to raise."""
    needed = open_files(len(lab.guests), len(lab.nodes))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, needed))
        except (ValueError, OSError):
            raise MachineCannot(
                f"{len(lab.guests)} guests need {needed} open files, this user may have {hard}: "
                f"raise the limit with 'ulimit -Hn {needed}' as root, or in limits.conf"
            ) from None
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _settle(order: Order) -> None:
    """Mount the sandbox's own file systems, which hide the files of labs."""
    quiet = ns.MS_NOSUID | ns.MS_NODEV
    ns.mount("none", "/", flags=ns.MS_REC | ns.MS_PRIVATE)
    ns.mount("proc", "/proc", "proc", quiet | ns.MS_NOEXEC)
    # Read-only: in a container whose own is, the kernel allows no other.
    ns.mount("sysfs", "/sys", "sysfs", quiet | ns.MS_NOEXEC | ns.MS_RDONLY)
    if Path(order.hidden).is_dir():
        ns.mount("tmpfs", order.hidden, "tmpfs", quiet | ns.MS_RDONLY, "mode=755,size=4k")
    ns.mount("tmpfs", "/run", "tmpfs", quiet, "mode=755")
    STATE.mkdir(mode=0o755)
    # Limited in size, since it is memory. An agent that finds it full reports that and goes on.
    ns.mount("tmpfs", str(STATE), "tmpfs", quiet | ns.MS_NOEXEC, f"mode=755,size={STATE_SIZE}")
    socket.sethostname(order.lab.name)


def _listening(descriptor: int) -> socket.socket:
    """Listen on the socket: processes that connect see this process's credentials."""
    made = socket.socket(fileno=descriptor)
    made.listen(_BACKLOG)
    return made


def main() -> int:
    """Become PID 1 of a sandbox, and supervise the lab whose order is on standard input."""
    process_title.show(sys.orig_argv[:-1])
    os.umask(0o022)
    name, *numbers = sys.argv[1:7]
    lock, tell, owner, nodes, crosses = map(int, numbers)
    for descriptor in (lock, tell, owner):
        os.set_inheritable(descriptor, False)  # the lock is held until the last thread ends
    progress = Progress(tell)
    try:
        descriptors = sandbox.sockets(Path(name), nodes)
        servers = sys.argv[7:-1]
        outer = socket.socket(fileno=sandbox.to_machines(servers)) if crosses else None
        dialler = socket.socket(fileno=sandbox.dialler(servers)) if servers else None
        sandbox.enter()
    except NetemuError as error:
        progress.failed(error)
        return error.exit_code
    if os.fork() != 0:
        os._exit(0)
    os.setsid()
    ns.set_dumpable()
    zygote = fork_zygote()
    if zygote is None:
        return 0  # it has been the zygote, or one of the daemons
    return _supervise(Path(name), progress, owner, descriptors, dialler, outer, zygote)


def _supervise(
    place: Path,
    progress: Progress,
    owner: int,
    descriptors: list[int],
    dialler: socket.socket | None,
    outer: socket.socket | None,
    zygote: Zygote,
) -> int:
    """The exit code."""
    directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    top = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    logging.getLogger().handlers[0].addFilter(LogLimit())
    try:
        order = next(Reader[Order](Order).feed(sys.stdin.buffer.read()))
        os.chdir("/")
        ns.set_process_name(f"lab {order.lab.name}")
        _settle(order)
        control, *agents = map(_listening, descriptors)
        _make_room_for_descriptors(order.here)
        supervisor = Supervisor(order, directory, progress, owner, dialler, outer, zygote)
        if asyncio.run(supervisor.run(control, agents)):
            runtime_dir.discard(top, order.lab.name, directory)  # no other process does
    except NetemuError as error:
        if isinstance(error, MachineCannot):
            error = explained(error)
        log.error("%s", error)
        progress.failed(error)
        return error.exit_code
    except Exception as error:
        log.exception("the lab fails")
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        failure = MachineCannot if full else NetemuError
        progress.failed(failure(f"the lab fails: {error if full else repr(error)}"))
        return failure.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
