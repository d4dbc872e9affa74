"""Names the limit that a refused system call has reached, by the setting that raises it. Pure but
for reading /proc/sys.
"""

import errno
import resource
from pathlib import Path
from typing import Final

from netemu.kernel.errors import KernelError

_LIMITS_OF_NAMESPACES: Final = Path("/proc/sys/user")


def reached(code: int, kinds: tuple[str, ...] = ()) -> str:
    """The limit behind an error number; empty if the number stands for none.

    `kinds` are the kinds of namespace that were to be made, as /proc/sys/user spells them.
    """
    match code:
        case errno.EMFILE:
            return f"'ulimit -n' is {_soft(resource.RLIMIT_NOFILE)}"
        case errno.ENFILE:
            return "fs.file-max is reached"
        case errno.ETOOMANYREFS:
            most = _soft(resource.RLIMIT_NOFILE)
            return f"this user's processes have more than {most} descriptors in flight: 'ulimit -n'"
        case errno.EAGAIN:
            most = _soft(resource.RLIMIT_NPROC)
            return f"processes: 'ulimit -u' is {most}; else pids.max of the control group is it"
        case errno.ENOMEM:
            return "memory, or memory.max of the control group"
        case errno.ENOSPC | errno.EUSERS if kinds:
            return _of_namespaces(kinds)
        case errno.EPERM if "user" in kinds:
            return "a chroot, or a setting of this machine, forbids it"
        case _:
            return ""


def words(error: BaseException) -> str:
    """What went wrong, with the limit that was reached."""
    if isinstance(error, KernelError) or not isinstance(error, OSError):
        return str(error) or type(error).__name__
    limit = reached(error.errno or 0)
    return f"{error}{f' ({limit})' if limit else ''}"


def _soft(limit: int) -> str:
    soft, _ = resource.getrlimit(limit)
    return "unlimited" if soft == resource.RLIM_INFINITY else str(soft)


def _of_namespaces(kinds: tuple[str, ...]) -> str:
    """The kinds of which none at all is allowed, if there are any: these were the ones refused."""
    most = {kind: _most(kind) for kind in kinds}
    suspects = {kind: count for kind, count in most.items() if count == "0"} or most
    named = [f"user.max_{kind}_namespaces is {count}" for kind, count in suspects.items()]
    return " or ".join(named)


def _most(kind: str) -> str:
    try:
        return (_LIMITS_OF_NAMESPACES / f"max_{kind}_namespaces").read_text().strip()
    except OSError:
        return "unknown"
