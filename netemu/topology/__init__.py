"""The content of a lab file: validated, with every default filled in, as frozen values. Pure: it
reads text that is given to it, and knows nothing of namespaces or processes.
"""

from netemu.topology.entries import MAX_GUESTS_PER_NODE, schema
from netemu.topology.lab import SOFT, Dialects, Guest, Lab, Node, Policy, mac_address, spread
from netemu.topology.labfile import DEMO, MAX_BYTES, load, parse
from netemu.topology.machine import SMBIOS, VirtualMachine

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
