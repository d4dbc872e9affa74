"""The content of a lab file: validated, with every default filled in, as frozen values.

`lab` and `machine` are the values, for any process. `labfile` reads a file, by way of `document`
(YAML with line numbers) and `entries` (its structure), in the user's process. Pure, apart from
reading the files that it is given; it knows nothing of namespaces or processes.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from netemu.topology.lab import (
    MAX_GUESTS_PER_NODE,
    SOFT,
    Dialects,
    Guest,
    Lab,
    Node,
    Policy,
    mac_address,
    spread,
)
from netemu.topology.machine import SMBIOS, VirtualMachine

if TYPE_CHECKING:
    from netemu.topology.entries import schema
    from netemu.topology.labfile import DEMO, MAX_BYTES, load, parse

__all__ = [
    "DEMO",
    "MAX_BYTES",
    "MAX_GUESTS_PER_NODE",
    "SMBIOS",
    "SOFT",
    "Dialects",
    "Guest",
    "Lab",
    "Node",
    "Policy",
    "VirtualMachine",
    "load",
    "mac_address",
    "parse",
    "schema",
    "spread",
]

# What reads lab files is imported when it is first used: a supervisor is given a lab as values.
_READERS: Final = {
    "DEMO": "netemu.topology.labfile",
    "MAX_BYTES": "netemu.topology.labfile",
    "load": "netemu.topology.labfile",
    "parse": "netemu.topology.labfile",
    "schema": "netemu.topology.entries",
}


def __getattr__(name: str) -> Any:
    """What reads a lab file, imported now."""
    if name not in _READERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_READERS[name]), name)
