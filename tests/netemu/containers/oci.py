"""Containers as Docker starts them, run by runc from a bundle: no engine and no image are needed.

The root is the machine's own file system under an overlay, so the container has its programs.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# moby's defaults: profiles/seccomp, oci/caps and oci/defaults.go.
DEFAULT_CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID"),
    *("SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
)
MASKED = (
    *("/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
# What the profile allows with CAP_SYS_ADMIN only …
ADMIN_CALLS = (
    *("bpf", "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount"),
    *("open_tree", "perf_event_open", "setdomainname", "sethostname", "setns", "umount", "umount2"),
    "unshare",
)
# … and never.
REFUSED_CALLS = ("add_key", "keyctl", "request_key", "kexec_load", "userfaultfd")
CLONE_FLAGS = (0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
ALL_CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"),
    *("SETPCAP", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK"),
    *("IPC_OWNER", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
)


@dataclass(frozen=True)
class Container:
    """How a container is started; the defaults are those of `docker run`."""

    add: Sequence[str] = ()  # --cap-add
    seccomp: bool = True  # False: --security-opt seccomp=unconfined
    system_paths: bool = True  # False: --security-opt systempaths=unconfined
    privileged: bool = False  # --privileged
    user: int = 0  # --user
    without: Sequence[str] = ()  # programs that it lacks

    def run(self, source: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m netemu COMMAND…` in it; `source` is the PYTHONPATH to use."""
        with self._bundle(source, command) as (bundle, script):
            return subprocess.run(
                ["unshare", "--mount", "sh", "-ec", script, "sh", str(bundle)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
            )

    @contextmanager
    def _bundle(self, source: str, command: Sequence[str]) -> Iterator[tuple[Path, str]]:
        # Below /run, which every Debian has as a file system of its own: an overlay cannot lie in
        # what it covers.
        bundle = Path(tempfile.mkdtemp(prefix="nt-oci-", dir="/run"))
        for name in ("layer", "rootfs", "state"):
            (bundle / name).mkdir()
        (bundle / "config.json").write_text(json.dumps(self._config(source, command)))
        hidden = "".join(f'rm -f "$1/rootfs{os.path.realpath(one)}"\n' for one in self.without)
        script = f"""
mount -t tmpfs none "$1/layer"
mkdir "$1/layer/upper" "$1/layer/work"
mount -t overlay -o "lowerdir=/,upperdir=$1/layer/upper,workdir=$1/layer/work" none "$1/rootfs"
{hidden}
exec runc --root "$1/state" run --bundle "$1" "{bundle.name}"
"""
        try:
            yield bundle, script
        finally:
            shutil.rmtree(bundle, ignore_errors=True)

    def _config(self, source: str, command: Sequence[str]) -> dict[str, Any]:
        given = ALL_CAPABILITIES if self.privileged else (*DEFAULT_CAPABILITIES, *self.add)
        bounding = [f"CAP_{one}" for one in given]
        held = bounding if self.user == 0 else []
        open_paths = self.privileged or not self.system_paths
        config: dict[str, Any] = {
            "ociVersion": "1.0.2",
            "hostname": "container",
            "root": {"path": "rootfs"},
            "process": {
                "user": {"uid": self.user, "gid": self.user},
                "args": [sys.executable, "-m", "netemu", *command],
                "cwd": "/",
                "env": [
                    f"PYTHONPATH={source}",
                    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "HOME=/tmp",
                    "container=docker",
                ],
                "capabilities": {"bounding": bounding, "effective": held, "permitted": held},
                "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 20000, "soft": 20000}],
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                _tmpfs("/dev", "755"),
                {
                    "destination": "/dev/pts",
                    "type": "devpts",
                    "source": "devpts",
                    "options": ["newinstance", "ptmxmode=0666", "mode=0620"],
                },
                _tmpfs("/dev/shm", "1777"),
                {
                    "destination": "/sys",
                    "type": "sysfs",
                    "source": "sysfs",
                    "options": ["nosuid", "noexec", "nodev", *([] if self.privileged else ["ro"])],
                },
                _tmpfs("/tmp", "1777"),
                _tmpfs("/run", "755"),
                # Last: it may lie below one of those before.
                *(_bound(path) for path in source.split(":") if os.path.isdir(path)),
                *_interpreter(source),
            ],
            "linux": {
                "namespaces": [
                    {"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")
                ],
                "maskedPaths": [] if open_paths else list(MASKED),
                "readonlyPaths": [] if open_paths else list(READ_ONLY),
            },
        }
        if self.seccomp and not self.privileged:
            config["linux"]["seccomp"] = _profile(admin="SYS_ADMIN" in given)
        return config


def _bound(path: str) -> dict[str, Any]:
    return {"destination": path, "type": "bind", "source": path, "options": ["rbind"]}


def _interpreter(source: str) -> list[dict[str, Any]]:
    """The environment that this Python is of, if it is not below what is there already."""
    below = any(Path(sys.prefix).is_relative_to(path) for path in source.split(":"))
    return [] if below or sys.prefix == sys.base_prefix else [_bound(sys.prefix)]


def _tmpfs(path: str, mode: str) -> dict[str, Any]:
    return {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": [f"mode={mode}"]}


def _profile(*, admin: bool) -> dict[str, Any]:
    """Docker's profile, as far as it concerns namespaces, mounts and keys."""
    rules: list[dict[str, Any]] = [{"names": list(REFUSED_CALLS), "action": "SCMP_ACT_ERRNO"}]
    if not admin:
        rules.append({"names": list(ADMIN_CALLS), "action": "SCMP_ACT_ERRNO"})
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38})
        rules += [
            {
                "names": ["clone"],
                "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}],
            }
            for flag in CLONE_FLAGS
        ]
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
