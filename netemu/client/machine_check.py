"""What this machine's kernel, programs and limits allow, found out by building a lab of one guest.

The steps run in a child of their own (`netemu.supervisor.boot.trial`), in a sandbox that ends
with it; each step that is refused is told with what to do about it.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hostagent import confinement
from netemu.errors import BadInput, MachineCannot
from netemu.kernel import tap
from netemu.topology import Lab
from netemu.wire.limits import Finding, Size, limits
from netemu.wire.source import python_path

SMALL = Size(10)
"""A lab that every machine should have room for."""
_PATIENCE = 30.0
QEMU: Final = "qemu-system-x86_64"


def examine(size: Size = SMALL) -> list[Finding]:
    """Try everything that a lab needs, in a child that leaves nothing behind, and look at the
    limits for one of this size.
    """
    child = subprocess.run(
        [sys.executable, "-P", "-m", "netemu.supervisor.boot.trial"],
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        env={**os.environ, "PYTHONPATH": python_path()},
        check=False,
    )
    found = [Finding(*json.loads(line)) for line in child.stdout.splitlines()]
    if child.returncode and all(finding.ok for finding in found):
        last = child.stderr.strip().splitlines()
        found.append(Finding("a lab of one guest", False, last[-1] if last else "no word", ""))
    return [*found, _services(), *limits(size)]


def _services() -> Finding:
    """Whether agents and responders can be kept from the machine's files."""
    version = confinement.landlock_version()
    return Finding(
        "services' files",
        bool(version),
        f"Landlock {version}" if version else "no Landlock: services read what their user may",
        "a kernel with CONFIG_SECURITY_LANDLOCK, and landlock in its boot option lsm=",
        vital=False,
    )


def of_machines() -> Iterator[Finding]:
    """What this machine has for guests with kernels of their own."""
    found = shutil.which(QEMU)
    yield Finding(
        "QEMU",
        found is not None,
        _version(found) if found else f"{QEMU} is not installed",
        "sudo apt-get install --no-install-recommends qemu-system-x86",
    )
    there = "this user may not open it" if os.path.exists(tap.DEVICE) else "it is not there"
    yield Finding(
        "taps",
        True,
        tap.DEVICE if tap.allowed() else f"{tap.DEVICE}: {there}; relays carry frames instead",
        "",
    )
    yield Finding(
        "processors",
        True,
        "emulated (TCG); KVM is not used: a guest's user has no /dev/kvm",
        "",
    )


def _version(path: str) -> str:
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).partition("\n")[0] or "it does not start"


def require_machines(lab: Lab) -> None:
    """Raise MachineCannot if this machine lacks what the lab's machines need, or BadInput if one of
    their files is missing.
    """
    short = [one for one in of_machines() if not one.ok]
    if short:
        told = "; ".join(f"{one.what}: {one.seen}: {one.remedy}" for one in short)
        raise MachineCannot(f"machines cannot run here: {told}")
    for guest in lab.guests:
        for path in guest.machine.files if guest.machine else ():
            if not Path(path).is_file():
                built = ": 'netns-scripts/vm-image small' builds it" if "/.images/" in path else ""
                raise BadInput(f"guest {guest.name}: machine: {path}: no such file{built}")
