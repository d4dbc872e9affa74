"""What this machine's kernel, programs and limits allow, found out by building a lab of one guest.

The steps run in a child of their own (`netemu.supervisor.boot.trial`), in a sandbox that ends
with it; each step that is refused is told with what to do about it.
"""

import json
import os
import subprocess
import sys

from hostagent import confinement
from netemu.wire.limits import Finding, Size, limits
from netemu.wire.source import python_path

SMALL = Size(10)
"""A lab that every machine should have room for."""
_PATIENCE = 30.0


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
