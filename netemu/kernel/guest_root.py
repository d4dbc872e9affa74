"""A root directory for the guests of root's lab: the machine's files, to be read as root alone may.

Each file system is mounted again, read-only, with the machine's root mapped to the guest's: a guest
reads what root reads, so that root's own programs run there, and writes nothing. Other users'
private files are nobody's to it. /tmp shows the machine's, and takes the guest's own writes to
itself; /var/tmp and /run are empty at each boot.
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from netemu.errors import MachineCannot
from netemu.kernel import namespaces as ns
from netemu.kernel.errors import KernelError

# linux/mount.h, linux/fcntl.h
_OPEN_TREE_CLONE = 1
_EMPTY_PATH = 0x1000
_MOVE_EMPTY_PATH, _MOVE_TO_EMPTY_PATH = 4, 0x40
_NO_SYMLINKS = 4  # linux/openat2.h
_RDONLY, _NOSUID, _NODEV, _IDMAP = 1, 2, 4, 0x100000
_DETACH = 2
# These have one number on all architectures; pivot_root(2) is older.
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_OPENAT2, _SYS_MOUNT_SETATTR = 428, 429, 437, 442
_SYS_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}
_AT_FDCWD = -100

# What a guest gets of its own in any case; of /dev only what it takes the nodes from.
_OWN: Final = ("/proc", "/sys", "/run")
_DEVICES: Final = "/dev"
_WRITABLE: Final = ("/tmp/", "/var/tmp/")
_STAGE: Final = "/run/.root"
_EMPTY: Final = "/run/.empty"
_QUIET: Final = ns.MS_NOSUID | ns.MS_NODEV
# Bytes that a guest may write to each: it is memory, which is the whole machine's.
_SIZE: Final = 512 << 20

_libc = ctypes.CDLL(None, use_errno=True)


def change(users: int, owner: int, shared: Iterable[str], masked: Iterable[str]) -> list[str]:
    """Leave the present root for such a one, of the guest whose root is the user `owner`.

    `users` is a user namespace in which root is that user, and nobody else is known. What the
    guest writes in the directories that are `shared` is root's. Returns what is wrong with those
    that cannot be, one that is gone by now for one: the guest boots without.
    A socket that is `masked` is an empty file to the guest: it could connect to it on a read-only
    mount too.
    Raises KernelError, and nothing is changed but for a mount at /run, where the kernel cannot map
    the users of the root file system (that of a container, for one).
    """
    ns.mount("none", "/", flags=ns.MS_REC | ns.MS_PRIVATE)
    points = _mount_points()
    ns.mount("tmpfs", "/run", "tmpfs", _QUIET, f"mode=755,size={_SIZE}")
    os.mkdir(_STAGE)
    # What is mounted below /tmp, and may hide something there, comes over the guest's own writes.
    below = [point for point in points if point.startswith(_WRITABLE)]
    _mount_again([point for point in points if point not in below], users)
    _make_writable(owner)
    _mount_again(below, users)
    _mask(masked)
    wrong = [told for directory in shared if (told := _share(directory, users))]
    os.chdir(_STAGE)
    _check(_libc.syscall(_SYS_PIVOT_ROOT[os.uname().machine], b".", b"."), "a root of its own")
    _check(_libc.umount2(b".", _DETACH), "leaving the machine's root")
    os.chdir("/")
    return wrong


def _mount_again(points: list[str], users: int) -> None:
    for point in points:
        tree = _clone(point)
        try:
            if point != _DEVICES:
                _restrict(tree, users, must=point == "/")
            _move(tree, _STAGE + point)
        finally:
            os.close(tree)


def _mount_points() -> list[str]:
    """Where something is mounted that a guest is to see, from above to below."""
    points: dict[str, None] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        below = any(point == one or point.startswith(f"{one}/") for one in _OWN)
        if not below and not point.startswith(f"{_DEVICES}/"):
            points[point] = None
    return sorted(points)


def _mask(paths: Iterable[str]) -> None:
    os.close(os.open(_EMPTY, os.O_CREAT | os.O_CLOEXEC, 0o000))
    for path in paths:
        if Path(_STAGE + path).is_socket():
            ns.mount(_EMPTY, _STAGE + path, flags=ns.MS_BIND)


def _share(directory: str, users: int) -> str:
    """Returns what is wrong with it, or "".

    No part of its path may be a link: a guest that writes in what is above could have put it there
    since the last boot, to be given something else.
    """
    opened: list[int] = []
    try:
        there = _open(directory)
        opened.append(there)
        here = _open(_STAGE + directory)
        opened.append(here)
        flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _EMPTY_PATH
        opened.append(_check(_libc.syscall(_SYS_OPEN_TREE, there, b"", flags), "opening it"))
        _set(opened[-1], _IDMAP | _NOSUID | _NODEV, users)
        flags = _MOVE_EMPTY_PATH | _MOVE_TO_EMPTY_PATH
        done = _libc.syscall(_SYS_MOVE_MOUNT, opened[-1], b"", here, b"", flags)
        _check(done, "mounting it")
    except KernelError as error:
        return f"{directory} is not shared: {error}"
    finally:
        for one in opened:
            os.close(one)
    return ""


def _open(path: str) -> int:
    # struct open_how: flags, mode, how to resolve
    how = struct.pack("=3Q", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0, _NO_SYMLINKS)
    done = _libc.syscall(_SYS_OPENAT2, _AT_FDCWD, os.fsencode(path), how, len(how))
    return _check(done, "opening it")


def _make_writable(owner: int) -> None:
    written, work = "/run/.written", "/run/.work"
    for path, mode in ((written, 0o1777), (work, 0o700)):
        os.mkdir(path)
        os.chmod(path, mode)
        os.chown(path, owner, owner)
    own = f"mode=1777,uid={owner},gid={owner},size={_SIZE}"
    try:
        layers = f"lowerdir={_STAGE}/tmp,upperdir={written},workdir={work}"
        ns.mount("overlay", f"{_STAGE}/tmp", "overlay", _QUIET, layers)
    except MachineCannot:  # this kernel has no overlay: then the machine's /tmp is not seen
        ns.mount("tmpfs", f"{_STAGE}/tmp", "tmpfs", _QUIET, own)
    if os.path.isdir(f"{_STAGE}/var/tmp"):
        ns.mount("tmpfs", f"{_STAGE}/var/tmp", "tmpfs", _QUIET, own)


def _clone(point: str) -> int:
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    return _check(
        _libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(point), flags), f"opening {point}"
    )


def _restrict(tree: int, users: int, *, must: bool) -> None:
    """Make a mount read-only, with its users mapped if its kind can be, or `must` be."""
    try:
        _set(tree, _IDMAP | _RDONLY | _NODEV, users)
    except KernelError:
        if must:
            raise
        _set(tree, _RDONLY | _NODEV, 0)


def _set(tree: int, attributes: int, users: int) -> None:
    # struct mount_attr: what to set, what to clear, propagation, the user namespace
    told = struct.pack("=4Q", attributes, 0, 0, users)
    done = _libc.syscall(_SYS_MOUNT_SETATTR, tree, b"", _EMPTY_PATH, told, len(told))
    _check(done, "mapping the users of a file system")


def _move(tree: int, target: str) -> None:
    path = os.fsencode(target)
    done = _libc.syscall(_SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, path, _MOVE_EMPTY_PATH)
    _check(done, f"mounting {target}")


def _check(result: int, what: str) -> int:
    if result < 0:
        raise KernelError(what, ctypes.get_errno())
    return result
