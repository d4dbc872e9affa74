"""Supplementary groups where there are none: in an ordinary user's lab.

The kernel refuses setgroups(2) in a user namespace that a user has made for himself. Programs that
call it only to remain who they are (tcpdump -Z root) end because of it, for no good reason.
"""

import ctypes
import os
import struct
from pathlib import Path
from typing import Final

from netemu.kernel.errors import KernelError

# linux/prctl.h, linux/seccomp.h, linux/filter.h, linux/audit.h
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_RET_ALLOW, _RET_ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
# Offsets in struct seccomp_data.
_NUMBER, _ARCHITECTURE = 0, 4
# setgroups(2) has a number, and the kernel a name for the architecture.
_SETGROUPS: Final = {"x86_64": (116, 0xC000003E), "aarch64": (159, 0xC00000B7)}


def pass_over_setgroups() -> None:
    """From now on setgroups(2) does nothing and succeeds, if the kernel would refuse it.

    For this process and what it becomes; it has to be root in its user namespace.
    """
    known = _SETGROUPS.get(os.uname().machine)
    if known is None or Path("/proc/self/setgroups").read_text().strip() != "deny":
        return
    number, architecture = known
    steps = (
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_IF_EQUAL, 0, 3, architecture),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_IF_EQUAL, 0, 1, number),
        (_RETURN, 0, 0, _RET_ERRNO | 0),
        (_RETURN, 0, 0, _RET_ALLOW),
    )
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    kept = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: how many, and where.
    program = struct.pack("@HP", len(steps), ctypes.addressof(kept))
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0) != 0:
        raise KernelError("a filter of system calls", ctypes.get_errno())
