"""The error of every call that the kernel refuses."""

import os

from netemu.errors import MachineCannot


class KernelError(MachineCannot):
    """The kernel refused a request."""

    def __init__(self, what: str, errno: int, detail: str = "") -> None:
        words = os.strerror(errno) if errno else "failed"
        super().__init__(f"{what}: {words}{f' ({detail})' if detail else ''}")
        self.what = what
        self.errno = errno
