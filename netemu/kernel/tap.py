"""Taps: links of a node whose other end is a descriptor. Runs in the supervisor.

A tap without IFF_VNET_HDR carries frames as a wire does: whole, with their checksums, none longer
than the MTU. It is gone when its last descriptor is closed.
"""

import fcntl
import os
import struct
from typing import Final

from netemu.kernel.errors import KernelError

DEVICE: Final = "/dev/net/tun"
# linux/if_tun.h
_TUNSETIFF, _TUNSETIFINDEX = 0x400454CA, 0x400454DA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000


def allowed() -> bool:
    """Whether this user may make taps. Only opening asks a container's rules for devices, too."""
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def make(name: str, index: int) -> int:
    """Make a tap, down, in the present network namespace: its descriptor. Raises KernelError."""
    try:
        made = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise KernelError(f"a tap for a machine: {DEVICE}", error.errno or 0) from None
    try:
        fcntl.ioctl(made, _TUNSETIFINDEX, struct.pack("i", index))
        fcntl.ioctl(made, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    except OSError as error:
        os.close(made)
        raise KernelError(f"the tap {name}", error.errno or 0) from None
    return made
