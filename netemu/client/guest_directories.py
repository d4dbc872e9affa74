"""The machine's directories that guests of root's lab see unchanged. Runs in the user's
process.
"""

import os
import pwd
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from netemu.errors import BadInput
from netemu.wire.source import SOURCE

if TYPE_CHECKING:
    from netemu.topology import Lab

# Each guest has its own of these, so nothing of the machine's can be shared there.
_OF_EACH_GUEST: Final = ("proc", "sys", "run", "dev")
# A lab's own files are not in these, or everybody may read them.
_OF_PROGRAMS: Final = ("bin", "boot", "lib", "lib64", "sbin", "usr")
# A directory in these may be a lab's own; the whole of one is not.
_OF_THE_MACHINE: Final = {"/", "/etc", "/home", "/opt", "/srv", "/tmp", "/var", "/var/tmp"}


def may_be_shared(path: Path) -> bool:
    """Whether guests can be shown this directory of the machine's as it is."""
    return len(path.parts) > 1 and path.parts[1] not in _OF_EACH_GUEST


def shared(directory: str | Path) -> str:
    """The path of a directory in which guests are to write. Raises BadInput if it cannot be one."""
    path = Path(directory).resolve()
    if not path.is_dir():
        raise BadInput(f"{directory}: cannot be shared with guests: it is not a directory")
    if not may_be_shared(path):
        own = ", ".join(f"/{one}" for one in _OF_EACH_GUEST)
        raise BadInput(
            f"{directory}: cannot be shared with guests: each has its own {own}, and / would be "
            "all of the machine; name another directory"
        )
    return str(path)


def named(lab: "Lab") -> list[str]:
    """The directories of the files that a lab names: its own file, and its machines' disks."""
    files = [one for guest in lab.guests if guest.machine for one in guest.machine.files]
    return [
        lab.directory,
        *(os.path.dirname(at) for one in files for at in (one, os.path.realpath(one))),
    ]


def readable(own: Iterable[str | Path], shared_ones: Iterable[str]) -> dict[str, str]:
    """The lab's own directories, by the paths at which guests are to see them.

    These are its `own`, the present one, Python's, and those of its packages. They may be where
    only root may look. What is in a directory that is shared is seen there.
    """
    python = (sys.prefix, sys.base_prefix, SOURCE, *_links(sys.executable), *sys.path)
    found: dict[str, str] = {}
    for path in sorted({*map(_whole, (*own, os.curdir, *python))} - {""}):
        for at in dict.fromkeys((os.path.realpath(path), path)):
            found[at] = os.path.realpath(path)
    above = {*shared_ones}
    chosen = {}
    for at, source in sorted(found.items()):
        if _may_be_readable(at) and _may_be_readable(source) and not _is_below(at, above):
            chosen[at] = source
            above.add(at)
    return chosen


def _whole(path: str | Path) -> str:
    try:
        return os.path.abspath(path)
    except FileNotFoundError:  # the present directory has been removed
        return ""


def _links(program: str) -> list[str]:
    """The installations to which a program's links lead, one after another: PREFIX/bin/program."""
    found = []
    while os.path.islink(program):
        program = os.path.join(os.path.dirname(program), os.readlink(program))
        found.append(os.path.dirname(os.path.dirname(os.path.abspath(program))))
    return found


def _may_be_readable(path: str) -> bool:
    first = path.split("/")[1]
    return (
        os.path.isdir(path)
        and path not in _OF_THE_MACHINE
        and path != pwd.getpwuid(0).pw_dir
        and first not in (*_OF_EACH_GUEST, *_OF_PROGRAMS)
    )


def _is_below(path: str, above: Iterable[str]) -> bool:
    return any(path == one or path.startswith(f"{one}/") for one in above)
