"""Finds why this machine refuses a step of a lab, and what to paste to change that.

Pure but for `look`. Runs in the sandbox, and in the process that enters it. It changes nothing on
the machine.
"""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import Struct

from netemu.errors import MachineCannot
from netemu.kernel.errors import KernelError

# capabilities(7): what a lab needs of the user namespace that it is built in.
_CHOWN, _DAC_OVERRIDE, _KILL, _SETGID, _SETUID = 0, 1, 5, 6, 7
_NET_ADMIN, _NET_RAW, _SYS_PTRACE, _SYS_ADMIN = 12, 13, 19, 21
NEEDED: Final = frozenset(
    (_CHOWN, _DAC_OVERRIDE, _KILL, _SETGID, _SETUID, _NET_ADMIN, _NET_RAW, _SYS_PTRACE, _SYS_ADMIN)
)

MODULES: Final = ("bridge", "veth", "nf_tables", "nft_limit", "nft_objref", "nft_socket")

# Tried under runc with Docker's capabilities, masked paths and system call list; see README.
_CONTAINER_OF_ROOT: Final = (
    "start the container with --cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add SYS_PTRACE "
    "--security-opt apparmor=unconfined, or with --privileged"
)
_CONTAINER: Final = (
    "start the container with --security-opt seccomp=unconfined "
    "--security-opt apparmor=unconfined --security-opt systempaths=unconfined, "
    "or as root with --privileged"
)
_UBUNTU: Final = (
    "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0; to keep it: "
    "echo kernel.apparmor_restrict_unprivileged_userns=0 | "
    "sudo tee /etc/sysctl.d/60-netemu.conf"
)
_USER_NAMESPACES_OFF: Final = (
    "sudo sysctl -w kernel.unprivileged_userns_clone=1; to keep it: "
    "echo kernel.unprivileged_userns_clone=1 | sudo tee /etc/sysctl.d/60-netemu.conf"
)
_CHROOT: Final = (
    "leave the chroot: the kernel makes no user namespaces in one; "
    "systemd-nspawn and unshare with pivot_root make roots that are none"
)


class Surroundings(Struct, frozen=True):
    """The facts that decide whether namespaces, mounts and links may be made here.

    `limits` are the values of /proc/sys/user/max_*_namespaces by kind (mnt, net, user, …);
    `release` is the running kernel's, `modules` whether its modules are on the disk.
    """

    root: bool = False
    proc: bool = True
    seccomp: bool = False
    container: bool = False
    chroot: bool = False
    apparmor_restricts: bool = False
    user_namespaces_off: bool = False
    limits: tuple[tuple[str, int], ...] = ()
    release: str = ""
    modules: bool = True

    def lowest(self) -> str | None:
        """The kind of namespace whose limit is 0."""
        return next((kind for kind, most in self.limits if most == 0), None)


class _Rule(NamedTuple):
    """For errors like these, `say` what to do. None: another rule may know."""

    codes: frozenset[int]
    what: re.Pattern[str]
    say: Callable[[Surroundings], str | None]


def _when(cause: str, remedy: str) -> Callable[[Surroundings], str | None]:
    return lambda here: remedy if getattr(here, cause) else None


def _in_its_container(here: Surroundings) -> str | None:
    if not here.container:
        return None
    return _CONTAINER_OF_ROOT if here.root else _CONTAINER


def _raise_limit(here: Surroundings) -> str | None:
    kind = here.lowest()
    if kind is None:
        return None
    key = f"user.max_{kind}_namespaces"
    return (
        f"{key} is 0: sudo sysctl -w {key}=65536; to keep it: "
        f"echo {key}=65536 | sudo tee /etc/sysctl.d/60-netemu.conf"
    )


def _load_modules(here: Surroundings) -> str:
    names = " ".join(MODULES)
    if here.container:
        return f"on the machine outside of the container: sudo modprobe -a {names}"
    if not here.modules:
        return (
            f"the modules of the running kernel {here.release} are not in /lib/modules "
            f"(was the kernel upgraded?): reboot, then sudo modprobe -a {names}"
        )
    return f"sudo modprobe -a {names}; Linux 5.19 or later is needed"


def _codes(*codes: int) -> frozenset[int]:
    return frozenset(codes)


_ANY: Final = re.compile("")
_NAMESPACE: Final = re.compile("namespace|process of its own")
_MOUNT: Final = re.compile("^mounting ")
_MACHINERY: Final = re.compile("^(bridge|port|the wire|the guard|listening|a change of)")
# nft reports the kernel's error in words only.
_RULES_REFUSED: Final = re.compile("^the guard was refused.*(not supported|No such file)")
_REFUSED: Final = _codes(errno.EPERM, errno.EACCES)
_MISSING: Final = _codes(
    errno.EOPNOTSUPP,
    errno.ENOENT,
    errno.EAFNOSUPPORT,
    errno.EPROTONOSUPPORT,
    errno.ENODEV,
    errno.ENOPROTOOPT,
)

# In order: the first rule that knows a remedy is right.
_RULES: Final = (
    _Rule(_codes(errno.ENOSPC), _NAMESPACE, _raise_limit),
    _Rule(_REFUSED, _NAMESPACE, _when("chroot", _CHROOT)),
    _Rule(_REFUSED, _NAMESPACE, _when("apparmor_restricts", _UBUNTU)),
    _Rule(_REFUSED, _NAMESPACE, _when("user_namespaces_off", _USER_NAMESPACES_OFF)),
    _Rule(_REFUSED, _ANY, _in_its_container),
    _Rule(
        _REFUSED,
        _NAMESPACE,
        _when("seccomp", "a filter of system calls forbids it: start from a shell without one"),
    ),
    _Rule(_REFUSED, _NAMESPACE, lambda here: None if here.root else "run it as root, with sudo"),
    _Rule(
        _REFUSED,
        _MOUNT,
        lambda _: "something is mounted over parts of /proc or /sys here: unmount it, or use root",
    ),
    _Rule(
        _codes(errno.EROFS),
        _ANY,
        lambda here: _in_its_container(here) or "sudo mount -o remount,rw /proc/sys",
    ),
    _Rule(_MISSING, _MACHINERY, _load_modules),
    _Rule(_codes(0), _RULES_REFUSED, _load_modules),
)


def remedy(error: MachineCannot, here: Surroundings) -> str:
    """What to do about a refusal, in words that can be pasted; "" if no rule knows."""
    if not here.proc:
        return "mount /proc first: sudo mount -t proc proc /proc"
    code = error.errno if isinstance(error, KernelError) else 0
    what = error.what if isinstance(error, KernelError) else str(error)
    for rule in _RULES:
        if code in rule.codes and rule.what.search(what) and (found := rule.say(here)):
            return found
    return ""


def explained(error: MachineCannot, here: Surroundings | None = None) -> MachineCannot:
    """The same error with its remedy behind it."""
    told = remedy(error, here or look())
    return MachineCannot(f"{error}: {told}") if told else error


# How the facts are found.


def look() -> Surroundings:
    """Look at this process and its machine. Never fails: what cannot be read counts as absent."""
    status = _fields("/proc/self/status")
    release = os.uname().release
    return Surroundings(
        root=_is_root(),
        proc=bool(status),
        seccomp=status.get("Seccomp", "0") != "0",
        container=_in_container(),
        chroot=bool(status) and _in_chroot(),
        apparmor_restricts=_number("kernel/apparmor_restrict_unprivileged_userns") == 1,
        user_namespaces_off=_number("kernel/unprivileged_userns_clone") == 0,
        limits=tuple(
            (kind, most)
            for kind in ("user", "mnt", "pid", "net", "ipc", "uts")
            if (most := _number(f"user/max_{kind}_namespaces")) is not None
        ),
        release=release,
        modules=Path(f"/lib/modules/{release}").is_dir(),
    )


def has_what_it_takes() -> bool:
    """Whether this process may build a lab as it is, without a user namespace of its own."""
    try:
        held = int(_fields("/proc/self/status").get("CapEff", "0"), 16)
    except ValueError:
        return False
    return os.geteuid() == 0 and all(held >> one & 1 for one in NEEDED)


def _is_root() -> bool:
    """Whether the user is root outside. In a user namespace of its own, every user has the ID 0."""
    outside = _text("/proc/self/uid_map").split()[1:2]
    return os.geteuid() == 0 and outside in (["0"], [])


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _fields(path: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in _text(path).splitlines())
    return {key: value.strip() for key, _, value in pairs}


def _number(name: str) -> int | None:
    text = _text(f"/proc/sys/{name}").strip()
    return int(text) if text.isdigit() else None


def _in_container() -> bool:
    """Container engines' marks: podman's and Docker's files, $container, or the groups of PID 1."""
    marks = ("/.dockerenv", "/run/.containerenv")
    return (
        any(map(os.path.exists, marks))
        or not {"container", "KUBERNETES_SERVICE_HOST"}.isdisjoint(os.environ)
        or bool(re.search("docker|containerd|kubepods|libpod|lxc", _text("/proc/1/cgroup")))
    )


def _in_chroot() -> bool:
    """A root directory that is not a mount point was entered by chroot(2)."""
    mounts = _text("/proc/self/mountinfo").splitlines()
    return bool(mounts) and all(line.split()[4] != "/" for line in mounts)
