"""Lab files, read with what the host agent knows of the properties that guests can have."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from hostagent import properties
from hostagent.model import Properties
from netemu import topology
from netemu.errors import BadInput
from netemu.topology import Lab

# What the lab finds out itself, and nobody else says.
OWN: Final = ("mac", "address")


def load(path: Path, *, name: str | None = None) -> Lab:
    """Read the lab file at `path`; `name` overrides the lab's. Raises BadInput."""
    return _whole(topology.load(path, name=name, check_property=wrong_property), str(path))


def parse(text: str, *, source: str, name: str | None = None) -> Lab:
    """Read a lab file's `text`, which errors call `source`. Raises BadInput."""
    lab = topology.parse(text, source=source, name=name, check_property=wrong_property)
    return _whole(lab, source)


def given(source: str | Path | Mapping[str, Any] | None, *, name: str) -> Lab:
    """Read what a program gives: a path, a lab file's text, what stands in one, or None for the
    demo. Raises BadInput.
    """
    if source is None:
        return load(topology.DEMO, name=name)
    if isinstance(source, Mapping):
        # JSON is YAML, and says of every value which type it has.
        return parse(json.dumps(source), source="the lab given", name=name)
    if isinstance(source, str) and ("\n" in source or ": " in source):
        return parse(source, source="the lab given", name=name)
    return load(Path(source), name=name)


def _whole(lab: Lab, source: str) -> Lab:
    for guest in lab.guests:
        if wrong := wrong_together(guest.properties):
            raise BadInput(f"{source}: guest {guest.name}: {wrong}")
    return lab


def wrong_property(key: str, value: str) -> str | None:
    """Say what is wrong with giving a guest this property, if anything."""
    if key in OWN:
        return "the lab says this itself, by what the guest has"
    return wrong_together({key: value})


def wrong_together(given: Mapping[str, str]) -> str | None:
    """Say why no guest can have all of these properties, if it is so."""
    try:
        properties.check(given)
        msgspec.convert(dict(given), Properties)
    except properties.PropertyError as error:
        return str(error)
    except msgspec.ValidationError as error:
        return f"properties: {error}"
    except UnicodeEncodeError:
        return "not UTF-8 text"
    return None
