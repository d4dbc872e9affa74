"""Lab files, read with what the host agent knows of the properties that guests can have."""

from pathlib import Path
from typing import Final

from hostagent import properties
from netemu import topology
from netemu.topology import Lab

# What the lab finds out itself, and nobody else says.
OWN: Final = ("mac", "address")


def load(path: Path, *, name: str | None = None) -> Lab:
    """Read the lab file at `path`; `name` overrides the lab's. Raises BadInput."""
    return topology.load(path, name=name, check_property=wrong_property)


def wrong_property(key: str, value: str) -> str | None:
    """Say what is wrong with giving a guest this property, if anything."""
    if key in OWN:
        return "the lab says this itself, by what the guest has"
    try:
        properties.check({key: value})
    except properties.PropertyError as error:
        return str(error)
    return None
