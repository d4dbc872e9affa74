"""A root directory for the guests of root's lab: the machine's files, as user nobody may read them.

Runs in a guest's first process. Each file system of the machine is the lower layer of an overlay of
the guest's own. So its sockets and named pipes are not the machine's, nor are its locks, leases and
watches. The guest may not see what changes on the machine after it has looked.

A guest sees two kinds of directories unchanged: those that are readable, which it cannot write,
and those that are shared. If a directory above is private, an empty one takes its place. In
readable ones, and where the kernel has no overlay, the owners of files are unknown: the kernel then
refuses every write, and so a connection to a socket, or writing to a named pipe.
/tmp shows the machine's, and takes the guest's own writes to itself; /var/tmp, /run and root's home
are empty at each boot.
"""

import ctypes
import os
import pwd
import stat
import struct
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from netemu.errors import MachineCannot
from netemu.kernel import guest_ids
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
_STAGE: Final = "/run/.root"
_EMPTY: Final = "/run/.empty"
_QUIET: Final = ns.MS_NOSUID | ns.MS_NODEV
# Bytes that a guest may write to each: it is memory, which is the whole machine's.
_SIZE: Final = 512 << 20
_ALL_MAY_SEARCH: Final = stat.S_IXOTH
_ALL_MAY_LIST: Final = stat.S_IROTH | stat.S_IXOTH

_libc = ctypes.CDLL(None, use_errno=True)


class Maps(NamedTuple):
    """User namespaces that map the owners of a mount's files for a guest."""

    shared: int
    """Files of root belong to the guest's root."""
    private: int
    """So do they, without a group: they can be read and not written."""
    readable: int
    """Owners are unknown: files can be read where all users may, and not written."""


def change(maps: Maps, owner: int, shared: Iterable[str], readable: Mapping[str, str]) -> list[str]:
    """Leave the present root for one of the guest whose root is the user `owner`.

    What the guest writes in the directories that are `shared` is root's. `readable` directories are
    seen at a path, by which they may be reached through links, and lie at another.
    Returns what is wrong with those that cannot be shown, one that is gone by now for one: the
    guest boots without. Raises KernelError, and nothing is changed but for a mount at /run.
    """
    ns.mount("none", "/", flags=ns.MS_REC | ns.MS_PRIVATE)
    points = _mount_points()
    ns.mount("tmpfs", "/run", "tmpfs", _QUIET, f"mode=755,size={_SIZE}")
    for directory in (_STAGE, _EMPTY):
        os.mkdir(directory)
    root = _Root(maps, owner)
    root.build(points, shared, readable)
    os.chdir(_STAGE)
    _check(_libc.syscall(_SYS_PIVOT_ROOT[os.uname().machine], b".", b"."), "a root of its own")
    _check(_libc.umount2(b".", _DETACH), "leaving the machine's root")
    os.chdir("/")
    return root.wrong


class _Root:
    """The tree at _STAGE, which is built from the top down."""

    def __init__(self, maps: Maps, owner: int) -> None:
        self._maps = maps
        self._owner = owner
        self._laid: set[str] = set()
        self._empty: set[str] = set()
        self.wrong: list[str] = []

    def build(
        self, points: Iterable[str], shared: Iterable[str], readable: Mapping[str, str]
    ) -> None:
        """Lay each part in its place, parents first."""
        places: dict[str, Callable[[str], None]] = dict.fromkeys(points, self._cover)
        places[_DEVICES] = _show
        places |= {path: partial(self._see, source) for path, source in readable.items()}
        places |= {"/tmp": self._copy, "/var/tmp": partial(self._replace, mode=0o1777)}
        home = pwd.getpwuid(0).pw_dir
        if home != "/":
            places[home] = self._replace
        places |= dict.fromkeys(shared, self._share)
        for path in sorted(places):
            places[path](path)
            self._laid.add(path)

    def _cover(self, point: str) -> None:
        """Show a file system by an overlay of the guest's own; a file by itself."""
        if not os.path.isdir(_STAGE + point):
            if os.path.isfile(_STAGE + point):
                _show(point, _RDONLY | _NODEV)
            return
        try:
            _overlay(point, ns.MS_RDONLY | ns.MS_NODEV, f"lowerdir={_EMPTY}:{{}}")
        except MachineCannot as error:
            self.wrong.append(f"{point} shows locks and watches of others: {error}")
            with ExitStack() as opened:
                there, here = (_at(one, opened) for one in (point, _STAGE + point))
                self._lay_read_only(there, here, point, self._maps.readable)

    def _copy(self, path: str) -> None:
        """Show a directory in which the guest's own writes stay with it."""
        written, work = "/run/.written", "/run/.work"
        for directory, mode in ((written, 0o1777), (work, 0o700)):
            os.mkdir(directory)
            os.chmod(directory, mode)
            os.chown(directory, self._owner, self._owner)
        try:
            _overlay(path, _QUIET, f"lowerdir={{}},upperdir={written},workdir={work}")
        except MachineCannot:  # this kernel has no overlay: then the machine's is not seen
            self._replace(path, mode=0o1777)

    def _replace(self, path: str, *, mode: int = 0o755) -> None:
        """Put an empty directory of the guest's own there."""
        if os.path.isdir(_STAGE + path):
            options = f"mode={mode:o},uid={self._owner},gid={self._owner},size={_SIZE}"
            ns.mount("tmpfs", _STAGE + path, "tmpfs", _QUIET, options)
            self._laid.add(path)
            self._empty.add(path)

    def _see(self, source: str, path: str) -> None:
        """Show a readable directory. One that is private itself is shown as root reads it."""
        try:
            with ExitStack() as opened:
                there = _open(source, opened)
                private = os.fstat(there).st_mode & _ALL_MAY_LIST != _ALL_MAY_LIST
                users = self._maps.private if private else self._maps.readable
                self._lay_read_only(there, self._way(path, opened), path, users)
        except (OSError, KernelError) as error:
            if path == source:  # else it may be seen by the links that lead there
                self.wrong.append(f"{path} is seen as nobody may: {error}")

    def _share(self, path: str) -> None:
        """Show a directory in which the guest writes as root.

        No part of its path may be a link: a guest that writes in what is above could have put it
        there since the last boot, to be given something else.
        """
        try:
            with ExitStack() as opened:
                there = _open(path, opened)
                here = self._way(path, opened)
                _lay(there, here, _IDMAP | _NOSUID | _NODEV, self._maps.shared)
        except (OSError, KernelError) as error:
            self.wrong.append(f"{path} is not shared: {error}")

    def _lay_read_only(self, there: int, here: int, path: str, users: int) -> None:
        try:
            _lay(there, here, _RDONLY | _NODEV | _IDMAP, users)
        except KernelError as error:  # not every file system can say that owners are unknown
            self.wrong.append(f"{path} is as it is, with its sockets and named pipes: {error}")
            _lay(there, here, _RDONLY | _NODEV)

    def _way(self, path: str, opened: ExitStack) -> int:
        """Open the place where something is to be laid, as the guest's root finds it."""
        with guest_ids.owner(self._owner):  # a private directory above is no longer root's
            self._make_way(path)
            return _open(_STAGE + path, opened)

    def _make_way(self, path: str) -> None:
        """Put an empty directory in place of the first private one above."""
        nearest = "/"
        for above in map(str, reversed(Path(path).parents)):
            if above in self._laid:
                nearest = above
            elif nearest not in self._empty and _is_private(_STAGE + above):
                self._replace(above)
                nearest = above
        # In what is shared, a guest may have left a link that leads out: nothing is made there.
        if nearest in self._empty:
            self._make(path)

    def _make(self, path: str) -> None:
        for one in (*reversed(Path(path).parents), path):
            try:
                os.mkdir(f"{_STAGE}{one}")
            except FileExistsError:
                continue
            os.chown(f"{_STAGE}{one}", self._owner, self._owner)


def _mount_points() -> list[str]:
    """Where something is mounted that a guest is to see."""
    points: dict[str, None] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        below = any(point == one or point.startswith(f"{one}/") for one in (*_OWN, _DEVICES))
        if not below and not _hidden(point):
            points[point] = None
    return [*points]


def _hidden(point: str) -> bool:
    """Whether nobody reaches it, because a directory above is private."""
    try:
        return any(_is_private(str(above)) for above in Path(point).parents)
    except OSError:  # something was mounted above it later
        return True


def _is_private(directory: str) -> bool:
    return not os.lstat(directory).st_mode & _ALL_MAY_SEARCH


def _overlay(path: str, flags: int, layers: str) -> None:
    """Mount an overlay; `layers` says where the machine's directory is among them."""
    lower = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # By its number: a path may have what separates layers and options.
        told = layers.format(f"/proc/self/fd/{lower}")
        ns.mount("overlay", _STAGE + path, "overlay", flags, told)
    finally:
        os.close(lower)


def _show(path: str, attributes: int = 0) -> None:
    """Show what is there, as it is."""
    with ExitStack() as opened:
        _lay(_at(path, opened), _at(_STAGE + path, opened), attributes)


def _lay(there: int, here: int, attributes: int, users: int = 0) -> None:
    with ExitStack() as opened:
        tree = _clone(there, opened)
        _set(tree, attributes, users)
        _move(tree, here)


def _at(path: str, opened: ExitStack) -> int:
    return _kept(os.open(path, os.O_PATH | os.O_CLOEXEC), opened)


def _open(path: str, opened: ExitStack) -> int:
    # struct open_how: flags, mode, how to resolve
    how = struct.pack("=3Q", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0, _NO_SYMLINKS)
    done = _libc.syscall(_SYS_OPENAT2, _AT_FDCWD, os.fsencode(path), how, len(how))
    return _kept(done, opened)


def _clone(there: int, opened: ExitStack) -> int:
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _EMPTY_PATH
    return _kept(_libc.syscall(_SYS_OPEN_TREE, there, b"", flags), opened)


def _kept(descriptor: int, opened: ExitStack) -> int:
    _check(descriptor, "opening it")
    opened.callback(os.close, descriptor)
    return descriptor


def _set(tree: int, attributes: int, users: int) -> None:
    # struct mount_attr: what to set, what to clear, propagation, the user namespace
    told = struct.pack("=4Q", attributes, 0, 0, users if attributes & _IDMAP else 0)
    done = _libc.syscall(_SYS_MOUNT_SETATTR, tree, b"", _EMPTY_PATH, told, len(told))
    _check(done, "mapping the users of a file system")


def _move(tree: int, here: int) -> None:
    flags = _MOVE_EMPTY_PATH | _MOVE_TO_EMPTY_PATH
    _check(_libc.syscall(_SYS_MOVE_MOUNT, tree, b"", here, b"", flags), "mounting it")


def _check(result: int, what: str) -> int:
    if result < 0:
        raise KernelError(what, ctypes.get_errno())
    return result
