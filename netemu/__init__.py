"""An emulated cloud host network: nodes, guests and the wires between them, on one Linux box.

The rooms, and the one way in which they import each other:

    cli, pytest_plugin  →  conformance, chaos, bench, scenario, simulation, drawing
                        →  client | supervisor  →  wire  →  linklocal, topology, kernel

``client`` runs in the user's process, ``supervisor`` in the sandbox of a lab; they meet in ``wire``
only, and never import each other. Each package says at its top in which process it runs and what it
never does. README.md beside this file shows the processes of a running lab and their channels.

Nothing here ever touches the machine's own network namespace.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hostagent.model import Event
    from netemu.client.api import Lab
    from netemu.client.async_maintenance import AsyncMaintenance
    from netemu.client.attached import AttachedLab
    from netemu.client.failures import CommandFailed, CommandTimedOut
    from netemu.errors import BadInput, MachineCannot, NetemuError, NotSo

__all__ = [
    "AsyncMaintenance",
    "AttachedLab",
    "BadInput",
    "CommandFailed",
    "CommandTimedOut",
    "Event",
    "Lab",
    "MachineCannot",
    "NetemuError",
    "NotSo",
    "__version__",
]

__version__ = "0.1.0"

# Where what a program uses is defined: imported when it is first used, so that `import netemu`
# costs nothing.
_PUBLIC = {
    "AsyncMaintenance": "netemu.client.async_maintenance",
    "AttachedLab": "netemu.client.attached",
    "BadInput": "netemu.errors",
    "CommandFailed": "netemu.client.failures",
    "CommandTimedOut": "netemu.client.failures",
    "Event": "hostagent.model",
    "Lab": "netemu.client.api",
    "MachineCannot": "netemu.errors",
    "NetemuError": "netemu.errors",
    "NotSo": "netemu.errors",
}


def __getattr__(name: str) -> Any:
    """What a program uses of this package, imported now."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
