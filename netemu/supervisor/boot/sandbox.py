"""The way into the sandbox: leave the machine's namespaces, and become the supervisor, PID 1.

Run as `python -m netemu.supervisor.boot.sandbox DIRECTORY LOCK PROGRESS` with the lab on standard
input. A user who is not root first becomes root of a user namespace of his own; nothing else
differs.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

from netemu.errors import MachineCannot, NetemuError
from netemu.kernel import namespaces as ns
from netemu.kernel.errors import KernelError
from netemu.wire.progress import Progress


def enter() -> None:
    """Leave the machine's namespaces; the next child is PID 1 of the sandbox."""
    user, group = os.geteuid(), os.getegid()
    try:
        if user != 0:
            ns.unshare(ns.NEWUSER)
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        ns.unshare(ns.NEWNS | ns.NEWPID | ns.NEWNET | ns.NEWIPC | ns.NEWUTS)
    except (KernelError, OSError) as error:
        raise MachineCannot(
            f"this user may not make namespaces ({error}); 'netemu check' says what to do"
        ) from None


def main() -> NoReturn:
    """Enter the sandbox, hand over to the supervisor, and be done."""
    directory, lock, progress = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    try:
        enter()
    except NetemuError as error:
        Progress(progress).failed(error)
        sys.exit(error.exit_code)
    if os.fork() != 0:
        os._exit(0)
    os.setsid()
    module = "netemu.supervisor.boot.pid1"
    arguments = [sys.executable, "-P", "-m", module, directory, str(lock), str(progress)]
    os.execv(sys.executable, arguments)


if __name__ == "__main__":
    main()
