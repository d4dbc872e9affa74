"""What a machine's emulator gives up, besides what every process of a guest gives up.

Runs in a child of the guest's first process, before it becomes the emulator.

The emulator runs as a guest's program does, in namespaces of the guest's own. It also has no
capability, reads the machine's programs and its own files alone, cannot change the tap that it
holds, and maps no more memory than its machine needs. None of this can be undone.
"""

import resource
from collections.abc import Iterable
from typing import Final

from hostagent import confinement, privileges
from netemu.kernel import seccomp

# A temporary file of the emulator, such as a disk's changes, takes memory: the limit of each.
MOST_WRITTEN: Final = 512 << 20
# Files that the loader and QEMU open by name.
_FILES: Final = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/urandom", "/proc")
WRITES: Final = "/run"
"""Where it may write: a directory in memory that is its guest's own."""


def confine(memory: int, files: Iterable[str]) -> list[str]:
    """Give all of that up. `memory` is in bytes; `files` are others that it may read.

    Returns what this kernel cannot enforce, a line each.
    """
    missing = []
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_WRITTEN, MOST_WRITTEN))
    privileges.give_up(None)
    try:
        confinement.restrict_files((*_FILES, *files), (WRITES, "/dev/null"), programs=True)
    except OSError as error:
        missing.append(f"Landlock: the emulator reads what a guest may ({error.strerror})")
    machine = seccomp.this_machine()
    if machine is not None:
        seccomp.install(seccomp.of_an_emulator(machine))
    return missing
