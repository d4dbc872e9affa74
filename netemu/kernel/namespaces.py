"""System calls on namespaces and mounts, which Python 3.11 does not have.

Constants are those of linux/sched.h, linux/mount.h, linux/nsfs.h and linux/prctl.h.
"""

import ctypes
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from netemu.kernel import exhaustion
from netemu.kernel.errors import KernelError

NEWNS = 0x00020000
NEWUTS = 0x04000000
NEWIPC = 0x08000000
NEWUSER = 0x10000000
NEWPID = 0x20000000
NEWNET = 0x40000000
# As /proc/sys/user spells them.
_KINDS = {
    NEWUSER: "user", NEWNET: "net", NEWNS: "mnt", NEWPID: "pid", NEWIPC: "ipc", NEWUTS: "uts"
}  # fmt: skip

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_PRIVATE = 1 << 18

_NS_GET_USERNS = 0xB701
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15

_CLONE_VM = 0x100
_SIGCHLD = 17

_libc = ctypes.CDLL(None, use_errno=True)
_libc.clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
_libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
# The raw system call's number differs between architectures; the library does not wrap it.
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}


def _check(result: int, what: str, making: int = 0) -> int:
    """Raise KernelError for a negative result; `making` are the flags of new namespaces."""
    if result < 0:
        code = ctypes.get_errno()
        kinds = tuple(kind for flag, kind in _KINDS.items() if making & flag)
        raise KernelError(what, code, exhaustion.reached(code, kinds))
    return result


def unshare(flags: int) -> None:
    """Leave the present namespaces of these kinds for new ones."""
    _check(_libc.unshare(flags), "a new namespace", flags)


def setns(descriptor: int, kind: int = 0) -> None:
    """Enter the namespace that `descriptor` refers to; `kind` 0 takes any."""
    _check(_libc.setns(descriptor, kind), "entering a namespace")


def clone(flags: int) -> int:
    """Fork into new namespaces: 0 in the child, its process ID in the parent.

    The child must not return to Python code that it does not know: it has the parent's whole
    state. Only for single-threaded processes.
    """
    number = _SYS_CLONE[os.uname().machine]
    made = _libc.syscall(number, flags | _SIGCHLD, 0, 0, 0, 0)
    return _check(made, "a process of its own", flags)


# Bytes of stack. pause(2) needs few and never returns, so all placeholders share one stack.
_STACK_LENGTH = 16384
_stack = ctypes.create_string_buffer(_STACK_LENGTH)


def clone_placeholder(flags: int) -> int:
    """Start a process in new namespaces that does nothing until it is killed. Returns its ID.

    It shares this process's memory, so it costs a quarter of a fork or less. Of this process's code
    it executes the library's pause(2) only.
    """
    pause = ctypes.cast(_libc.pause, ctypes.c_void_p)
    top = (ctypes.addressof(_stack) + _STACK_LENGTH) & ~15
    made = _libc.clone(pause, top, flags | _CLONE_VM | _SIGCHLD, None)
    return _check(made, "a process of its own", flags)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    _check(
        _libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()),
        f"mounting {target}",
    )


def set_dumpable() -> None:
    """Let processes that may enter our user namespace open our descriptors in /proc.

    The kernel forbids that for a process whose privileges have grown, as ours did by unshare.
    """
    _check(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0), "PR_SET_DUMPABLE")


def set_process_name(name: str) -> None:
    """What `ps -o comm` shows; the kernel keeps 15 bytes."""
    _libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def owner_of(descriptor: int) -> int:
    """A descriptor of the user namespace that owns the namespace of `descriptor`."""
    return fcntl.ioctl(descriptor, _NS_GET_USERNS)


def open_own(kind: str) -> int:
    """A descriptor of this process's own namespace of `kind`: net, user, mnt, pid, uts, ipc."""
    return os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def same_namespace(one: int, other: int) -> bool:
    """Whether two descriptors refer to one namespace."""
    a, b = os.fstat(one), os.fstat(other)
    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)


NAMES = Path("/run/netns")


def call(name: str, path: str) -> None:
    """Let `ip netns` in the sandbox find a namespace, a descriptor in /proc, by a name."""
    forget_name(name)
    (NAMES / name).symlink_to(path)


def forget_name(name: str) -> None:
    """Let `ip netns` no longer find it."""
    (NAMES / name).unlink(missing_ok=True)


def identity_map(process: int | str) -> None:
    """Map this process's users to themselves in the new user namespace of `process`."""
    write_maps(process, _identity("uid_map"), _identity("gid_map"))


def write_maps(process: int | str, users: bytes, groups: bytes | None = None) -> None:
    """Say which users and groups (`None`: the same) the new user namespace of `process` has."""
    for kind, text in (("uid_map", users), ("gid_map", users if groups is None else groups)):
        descriptor = os.open(f"/proc/{process}/{kind}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text)
        finally:
            os.close(descriptor)


@cache
def _identity(kind: str) -> bytes:
    """The map of users that is this process's, onto themselves; such a map is written once."""
    extents = [line.split() for line in Path(f"/proc/self/{kind}").read_text().splitlines()]
    return "".join(f"{inside} {inside} {count}\n" for inside, _, count in extents).encode()


_SIOCGSKNS = 0x894C


@contextmanager
def inside_that_of(made: socket.socket) -> Iterator[None]:
    """Return to the network namespace in which the socket was made. The socket keeps it."""
    net = fcntl.ioctl(made.fileno(), _SIOCGSKNS)
    try:
        with inside(net):
            yield
    finally:
        os.close(net)


@contextmanager
def inside(net: int) -> Iterator[None]:
    """Act in the network namespace of `net`. Sockets made meanwhile stay there.

    It takes about 5 µs. Never await inside: the whole process is in the other namespace.
    """
    home = _home()
    setns(net, NEWNET)
    try:
        yield
    finally:
        setns(home, NEWNET)


_homes: dict[int, int] = {}


def _home() -> int:
    """This process's own network namespace, opened once (a forked child opens its own)."""
    process = os.getpid()
    if process not in _homes:
        # The thread's own: another thread may be in another namespace just now.
        _homes[process] = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    return _homes[process]
