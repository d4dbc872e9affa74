"""Mounts what a guest sees instead of the machine's files. Runs in the guest's first process,
before that enters the guest's user namespace.

Mounts made before are locked when the new namespace takes its copy (mount_namespaces(7)): root in
the guest cannot remove them to see what is beneath.
"""

import os
import stat
from collections.abc import Iterable
from typing import Final

from netemu.errors import MachineCannot
from netemu.kernel import namespaces as ns

# Container engines mount these read-only, too: no namespace separates them.
_OF_THE_MACHINE: Final = ("/proc/sys", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger")
# Some settings in /proc/sys/net are not the namespace's: this one cannot even be taken back.
_OF_ALL_NETWORKS: Final = ("/proc/sys/net/netfilter/nf_hooks_lwtunnel",)
_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty", "net/tun")
_LINKS: Final = {
    "ptmx": "pts/ptmx",
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
# Debian's group `tty`; an ordinary user's lab has no such group.
_TERMINALS: Final = "newinstance,ptmxmode=0666,mode=0620"
_QUIET: Final = ns.MS_NOSUID | ns.MS_NODEV
_ASIDE: Final = "/run/.aside"


def dress(hosts: str, owner: int, resolver: str = "") -> None:
    """Mount a guest's own /proc, /sys, /run, /dev and /etc/hosts in the present mount namespace.

    `owner` is the user that becomes the guest's root, `resolver` the address of its name server, if
    it has one.
    """
    ns.mount("none", "/", flags=ns.MS_REC | ns.MS_PRIVATE)
    ns.mount("proc", "/proc", "proc", _QUIET | ns.MS_NOEXEC)
    ns.mount("sysfs", "/sys", "sysfs", ns.MS_RDONLY | _QUIET | ns.MS_NOEXEC)
    ns.mount("tmpfs", "/run", "tmpfs", _QUIET, f"mode=755,uid={owner},gid={owner}")
    os.mkdir(_ASIDE)
    _keep_the_machine_settings()
    _devices(owner)
    os.rmdir(_ASIDE)
    servers = f"nameserver {resolver}\n" if resolver else "# no name server is within reach\n"
    _private("resolv.conf", servers)
    _private("hosts", hosts)
    for name in os.listdir("/run"):
        os.chown(f"/run/{name}", owner, owner)


def _keep_the_machine_settings() -> None:
    """Make what belongs to the whole machine read-only: most of /proc/sys, for one.

    A guest's root has the lab owner's user ID, to which those files belong.
    """
    ns.mount("/proc/sys/net", _ASIDE, flags=ns.MS_BIND)
    _make_read_only(_OF_THE_MACHINE)
    ns.mount(_ASIDE, "/proc/sys/net", flags=ns.MS_MOVE)
    _make_read_only(_OF_ALL_NETWORKS)


def _make_read_only(paths: Iterable[str]) -> None:
    for path in filter(os.path.exists, paths):
        ns.mount(path, path, flags=ns.MS_BIND)
        ns.mount(path, path, flags=ns.MS_BIND | ns.MS_REMOUNT | ns.MS_RDONLY)


def _devices(owner: int) -> None:
    """Mount a /dev of the guest's own. The machine's has disks, the kernel's log and others'
    terminals.
    """
    ns.mount(
        "tmpfs", _ASIDE, "tmpfs", ns.MS_NOSUID | ns.MS_NOEXEC, f"mode=755,uid={owner},gid={owner}"
    )
    for name in filter(lambda name: os.path.exists(f"/dev/{name}"), _DEVICES):
        path = f"{_ASIDE}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _device(f"/dev/{name}", path, owner)
    for name, target in _LINKS.items():
        os.symlink(target, f"{_ASIDE}/{name}")
    os.mkdir(f"{_ASIDE}/shm")
    ns.mount("tmpfs", f"{_ASIDE}/shm", "tmpfs", _QUIET, "mode=1777")
    os.mkdir(f"{_ASIDE}/pts")
    flags = ns.MS_NOSUID | ns.MS_NOEXEC
    try:
        ns.mount("devpts", f"{_ASIDE}/pts", "devpts", flags, f"{_TERMINALS},gid={owner + 5}")
    except MachineCannot:
        ns.mount("devpts", f"{_ASIDE}/pts", "devpts", flags, _TERMINALS)
    ns.mount(_ASIDE, "/dev", flags=ns.MS_MOVE)


def _device(theirs: str, path: str, owner: int) -> None:
    """Make a node of the guest's own, so that nobody sees its locks on it, or watches who opens it.

    Only root may: an ordinary user's guests have the machine's.
    """
    try:
        os.mknod(path, stat.S_IFCHR, os.stat(theirs).st_rdev)
    except PermissionError:
        os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC, 0o666))
        ns.mount(theirs, path, flags=ns.MS_BIND)
    else:
        os.chmod(path, 0o666)
        os.chown(path, owner, owner)


def _private(name: str, text: str) -> None:
    """Mount a file of the guest's own over the machine's /etc/`name`.

    A guest's DHCP client writes /etc/resolv.conf: that must not be the machine's.
    """
    if os.path.exists(f"/etc/{name}"):
        own = f"/run/{name}"
        with open(own, "w") as file:
            file.write(text)
        ns.mount(own, os.path.realpath(f"/etc/{name}"), flags=ns.MS_BIND)
