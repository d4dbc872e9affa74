"""What a lab file says: validated, with every default filled in, as frozen values.

Pure: reads text that it is given, knows nothing of namespaces or processes.
"""

from netemu.topology.lab import Guest, Lab, Node, Policy
from netemu.topology.labfile import DEMO, MAX_GUESTS_PER_NODE, load, parse, schema

__all__ = [
    "DEMO",
    "MAX_GUESTS_PER_NODE",
    "Guest",
    "Lab",
    "Node",
    "Policy",
    "load",
    "parse",
    "schema",
]
