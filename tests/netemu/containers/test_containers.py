"""Labs in containers with Docker's capabilities, masked paths and system call list, run by runc."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netemu.containers.oci import Container

pytestmark = [
    pytest.mark.lab,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("runc"), reason="needs root and runc"),
]

FLAGS = "--security-opt seccomp=unconfined"
ADDED = ("SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE")
CAPABILITIES = " ".join(f"--cap-add {one}" for one in ADDED) + " --security-opt apparmor=unconfined"


@pytest.mark.parametrize(
    "container",
    [
        pytest.param(Container(add=ADDED), id="three capabilities"),
        pytest.param(Container(privileged=True), id="privileged"),
        pytest.param(
            Container(user=1000, seccomp=False, system_paths=False), id="ordinary user, unmasked"
        ),
        pytest.param(Container(seccomp=False, system_paths=False), id="root, unmasked"),
    ],
)
def test_the_demo_runs_in_a_container(container: Container, readable_source: str) -> None:
    """A user starts the container with the flags that the README names, and the demo holds."""
    done = container.run(readable_source, "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Everything above was checked and is true." in done.stdout


@pytest.mark.parametrize("verb", ["up", "check"])
@pytest.mark.parametrize(
    ("container", "remedy"),
    [
        pytest.param(Container(), CAPABILITIES, id="plain"),
        pytest.param(Container(add=("SYS_ADMIN",)), CAPABILITIES, id="no NET_ADMIN"),
        pytest.param(Container(user=1000), FLAGS, id="ordinary user"),
        pytest.param(Container(user=1000, seccomp=False), "systempaths=unconfined", id="masked"),
        pytest.param(
            Container(add=ADDED, without=("/usr/sbin/nft",)),
            "sudo apt-get install nftables",
            id="no nft",
        ),
    ],
)
def test_a_container_that_cannot_run_labs_says_how_one_could(
    container: Container, remedy: str, verb: str, readable_source: str
) -> None:
    """A user starts a container that may too little: the error has the flags to paste."""
    done = container.run(readable_source, verb)
    assert done.returncode == 3, done.stdout + done.stderr
    told = done.stdout if verb == "check" else done.stderr
    assert remedy in told
    assert "lacks" not in told
    assert "Traceback" not in done.stderr
    if verb == "up":
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert "netemu check" not in told


def test_a_root_without_proc_is_told_to_mount_it(readable_source: str, tmp_path: Path) -> None:
    """A user in a chroot without /proc is told to mount it, by `up` and by `check`."""
    root = tmp_path / "root"
    root.mkdir()
    for verb in ("up", "check"):
        script = (
            'root="$1"; shift; mount --bind / "$root"; mount --rbind /dev "$root/dev"; '
            'mount -t tmpfs none "$root/proc"; exec chroot "$root" env "$@"'
        )
        command = [f"PYTHONPATH={readable_source}", sys.executable, "-m", "netemu", verb]
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-ec", script, "sh", str(root), *command],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "NETEMU_RUNTIME_DIR": f"/tmp/nt-none-{os.getpid()}",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        shutil.rmtree(f"/tmp/nt-none-{os.getpid()}", ignore_errors=True)
        assert done.returncode == 3, done.stdout + done.stderr
        assert "sudo mount -t proc proc /proc" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
