"""A guest's root directory where a kernel has no overlay, or a file system says no owners."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conftest import SOURCE
from tests.netemu.labs.test_lab_confinement import SPEAK, listen_in

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only in root's lab has a guest such a root"),
]

# Arguments: what is missing of the kernel, a directory, a script to run there as the guest.
SHOWN = """
import os, signal, sys
from netemu.errors import MachineCannot
from netemu.kernel import factory, guest_root, namespaces as ns
from netemu.kernel.errors import KernelError
missing, place, script = sys.argv[1:]
def refuse(*arguments):
    raise MachineCannot("unknown file system")
lay = guest_root._lay
def lay_as_it_is(there, here, attributes, users=0):
    if users:
        raise KernelError("mapping the users of a file system", 22)
    lay(there, here, attributes)
guest_root._overlay = refuse
if missing == "both":
    guest_root._lay = lay_as_it_is
GUEST = 0x7000_0000
maps = factory._who_owns(GUEST, [])
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
ns.unshare(ns.NEWNS)
wrong = guest_root.change(maps, GUEST, [], {})
os.setresgid(GUEST, GUEST, GUEST)
os.setresuid(GUEST, GUEST, GUEST)
print(*(line for line in wrong if line.startswith("/ ")), sep="\\n")
print(open(f"{place}/read").read())
sys.argv = ["", place]
exec(script)
"""


@pytest.mark.parametrize("missing", ["overlay", "both"])
def test_without_an_overlay_sockets_are_refused_or_it_is_said(missing: str) -> None:
    """A guest reads the machine's files, and reaches its sockets only where the log says so."""
    with tempfile.TemporaryDirectory(prefix="nt-root-", dir="/var/lib") as made:
        place = Path(made)
        place.chmod(0o755)
        (place / "read").write_text("as nobody")
        with listen_in(place):
            words = [sys.executable, "-c", SHOWN, missing, made, SPEAK]
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=60, cwd=SOURCE, check=False
            )
    assert done.returncode == 0, done.stderr
    locks, *rest = done.stdout.splitlines()
    assert locks == "/ shows locks and watches of others: unknown file system"
    if missing == "overlay":
        assert rest == ["as nobody"]
    else:
        assert rest[0].startswith("/ is as it is, with its sockets and named pipes: ")
        assert rest[1:] == ["as nobody", f"connected in {made}", f"wrote in {made}"]
