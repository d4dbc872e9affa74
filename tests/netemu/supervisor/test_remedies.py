"""What is told about each cause for which a machine refuses a lab."""

import errno
import subprocess
import sys

import pytest
from msgspec.structs import replace

from netemu.errors import MachineCannot
from netemu.kernel.errors import KernelError
from netemu.supervisor.boot.remedies import Surroundings, explained, look, remedy

USER_NAMESPACE = KernelError("a new namespace", errno.EPERM)
NO_BRIDGE = KernelError("bridge br0", errno.EOPNOTSUPP)
MACHINE = Surroundings(release="6.1.0-28-amd64")


@pytest.mark.parametrize(
    ("here", "error", "told"),
    [
        (
            replace(MACHINE, apparmor_restricts=True),
            USER_NAMESPACE,
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            replace(MACHINE, apparmor_restricts=True),
            KernelError("a user namespace of its own (/proc/self/uid_map)", errno.EPERM),
            "sudo tee /etc/sysctl.d/60-netemu.conf",
        ),
        (
            replace(MACHINE, user_namespaces_off=True),
            USER_NAMESPACE,
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (replace(MACHINE, chroot=True, root=True), USER_NAMESPACE, "leave the chroot"),
        (replace(MACHINE, container=True), USER_NAMESPACE, "seccomp=unconfined"),
        (replace(MACHINE, container=True, root=True), USER_NAMESPACE, "--cap-add SYS_ADMIN"),
        (replace(MACHINE, seccomp=True), USER_NAMESPACE, "a filter of system calls"),
        (MACHINE, USER_NAMESPACE, "as root"),
        (
            replace(MACHINE, limits=(("user", 9), ("net", 0))),
            KernelError("a new namespace", errno.ENOSPC),
            "sudo sysctl -w user.max_net_namespaces=65536",
        ),
        (
            replace(MACHINE, container=True),
            KernelError("setting net.ipv4.ip_forward", errno.EROFS),
            "systempaths=unconfined",
        ),
        (
            MACHINE,
            KernelError("setting net.ipv4.ip_forward", errno.EROFS),
            "sudo mount -o remount,rw /proc/sys",
        ),
        (MACHINE, NO_BRIDGE, "sudo modprobe -a bridge veth nf_tables nft_limit nft_objref"),
        (replace(MACHINE, modules=False), NO_BRIDGE, "6.1.0-28-amd64 are not in /lib/modules"),
        (replace(MACHINE, container=True), NO_BRIDGE, "outside of the container"),
        (
            MACHINE,
            MachineCannot("the guard was refused by this kernel or nft: … Operation not supported"),
            "nft_socket",
        ),
        (replace(MACHINE, proc=False), USER_NAMESPACE, "sudo mount -t proc proc /proc"),
    ],
)
def test_each_cause_has_its_own_remedy(here: Surroundings, error: MachineCannot, told: str) -> None:
    assert told in remedy(error, here)
    assert told in str(explained(error, here))


def test_root_is_never_told_to_become_root() -> None:
    assert "root" not in remedy(USER_NAMESPACE, replace(MACHINE, root=True))


def test_what_nobody_knows_is_told_as_it_is() -> None:
    error = KernelError("the wire of web1", errno.EEXIST)
    assert explained(error, MACHINE) is error


def test_this_machine_can_be_looked_at() -> None:
    here = look()
    assert here.proc
    assert here.release
    assert dict(here.limits)["user"] > 0


def test_another_system_is_told_what_is_needed() -> None:
    script = (
        "import sys; sys.platform = 'darwin'; sys.argv = ['netemu', 'up']; "
        "from netemu.cli import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("netemu: labs need Linux")
    assert "Traceback" not in done.stderr
