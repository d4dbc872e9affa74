"""Gives up every privilege for good, and checks it. Runs in the agent's and responder's processes.

Call `give_up` once everything that needs a privilege is open, and everything needed is imported:
the source tree may be unreadable afterwards (a clone in /root).
"""

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

_PR_SET_DUMPABLE: Final = 4
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522
_LAST_POSSIBLE_CAPABILITY: Final = 63

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    _fields_ = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


class PrivilegesRemain(Exception):
    """A privilege could not be given up; the process must end."""


def give_up(uid: int | None) -> bool:
    """Give up all capabilities, and with `uid` become that user and group only.

    Returns False if the user stays the same: there is no CAP_SETUID, or the user namespace does not
    map `uid`. The capabilities are given up all the same. Raises PrivilegesRemain if one is left.
    """
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        # Credentials belong to a thread: other threads would keep theirs.
        raise PrivilegesRemain("privileges must be given up before threads are started")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    # The bounding set: otherwise root would regain capabilities by executing a program.
    for capability in range(_LAST_POSSIBLE_CAPABILITY + 1):
        _prctl(_PR_CAPBSET_DROP, capability, tolerate=(errno.EPERM, errno.EINVAL))
    became = uid is None or _become(uid)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, tolerate=(errno.EINVAL,))
    header = _Header(_CAPABILITY_VERSION_3, 0)
    data = (_Data * 2)()
    if _libc.capset(ctypes.byref(header), data) != 0:
        raise PrivilegesRemain(f"capset: {os.strerror(ctypes.get_errno())}")
    # Other processes of this uid (another node's agent) cannot trace or dump this one.
    _prctl(_PR_SET_DUMPABLE, 0)
    _check(uid if became else None)
    return became


def _become(uid: int) -> bool:
    try:
        os.setgroups([])
    except PermissionError:
        pass  # not root, or the user namespace denies it; the groups are harmless there
    try:
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL):
            raise PrivilegesRemain(f"cannot become user {uid}: {error}") from error
        return os.getuid() == uid
    return True


def _check(uid: int | None) -> None:
    header = _Header(_CAPABILITY_VERSION_3, 0)
    data = (_Data * 2)()
    if _libc.capget(ctypes.byref(header), data) != 0:
        raise PrivilegesRemain(f"capget: {os.strerror(ctypes.get_errno())}")
    if any(half.effective | half.permitted | half.inheritable for half in data):
        raise PrivilegesRemain("capabilities are left")
    if uid is not None and os.getresuid() != (uid, uid, uid):
        raise PrivilegesRemain(f"user ids are {os.getresuid()}, not {uid}")


def _prctl(option: int, argument: int, tolerate: tuple[int, ...] = ()) -> None:
    if _libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        if number not in tolerate:
            raise PrivilegesRemain(f"prctl {option}: {os.strerror(number)}")
