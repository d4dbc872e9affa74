"""Reads lab files, with the host agent's knowledge of the properties that guests can have. Runs in
the user's process.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from hostagent import properties
from hostagent.faults import MAX_FAULTS
from hostagent.model import Properties
from hostagent.terminal import contents
from netemu import topology
from netemu.errors import BadInput
from netemu.topology import Lab
from netemu.wire.faults import planned

# Properties that the lab sets itself.
OWN: Final = ("mac", "address")


def load(path: Path, *, name: str | None = None) -> Lab:
    """Read the lab file at `path`; "-" is standard input. Raises BadInput.

    ${NAME} in it is replaced from the environment; `name` overrides the lab's name.
    """
    if str(path) == "-":
        return _from_standard_input(name)
    lab = topology.load(
        path,
        name=name,
        check_property=wrong_property,
        take_property=contents.taken,
        variables=os.environ,
    )
    return _whole(lab, str(path))


def _from_standard_input(name: str | None) -> Lab:
    source = "standard input"
    try:
        text = sys.stdin.buffer.read(topology.MAX_BYTES + 1).decode()
    except UnicodeDecodeError:
        raise BadInput(f"{source}: it is not UTF-8 text") from None
    return parse(text, source=source, name=name, directory=_here(), variables=os.environ)


def _here() -> Path:
    """The working directory, in which the programs of guests start."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise BadInput("the working directory is gone: change to one that is there") from None


def parse(
    text: str,
    *,
    source: str,
    name: str | None = None,
    directory: Path = Path("/"),
    variables: Mapping[str, str] | None = None,
) -> Lab:
    """Read a lab file's `text`, which errors call `source`. Raises BadInput."""
    lab = topology.parse(
        text,
        source=source,
        name=name,
        check_property=wrong_property,
        take_property=contents.taken,
        directory=directory,
        variables=variables,
    )
    return _whole(lab, source)


def given(source: str | Path | Mapping[str, Any] | None, *, name: str) -> Lab:
    """Read a program's lab: a path, a lab file's text, its content as values, or None for the demo.

    Raises BadInput.
    """
    if source is None:
        return load(topology.DEMO, name=name)
    if isinstance(source, Mapping):
        # JSON is YAML, and gives every value its type.
        try:
            text = json.dumps(source, allow_nan=False, default=_bytes)
        except (TypeError, ValueError, RecursionError) as error:
            raise BadInput(f"the lab given: {error}") from None
        return parse(text, source="the lab given", name=name)
    if isinstance(source, str) and ("\n" in source or ": " in source):
        return parse(source, source="the lab given", name=name, variables=os.environ)
    return load(Path(source), name=name)


def _bytes(value: Any) -> str:
    """Return bytes as the text of a property; JSON has no bytes."""
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} cannot stand in a lab file")
    return properties.data_url(value)


def _whole(lab: Lab, source: str) -> Lab:
    for guest in lab.guests:
        if wrong := wrong_together(guest.properties):
            raise BadInput(f"{source}: guest {guest.name}: {wrong}")
    counts: Counter[str] = Counter()
    for place, entry in enumerate(lab.faults):
        try:
            faults = planned(**{key: value for key, value in entry.items() if key != "guests"})
        except BadInput as error:
            raise BadInput(f"{source}: faults[{place}]: {error}") from None
        for guest in entry["guests"] or [one.name for one in lab.guests]:
            counts[guest] += len(faults)
            if counts[guest] > MAX_FAULTS:
                raise BadInput(
                    f"{source}: faults[{place}]: {guest} has more than {MAX_FAULTS} faults"
                )
    return lab


def wrong_property(key: str, value: str) -> str | None:
    """Return why no guest can have this property, or None."""
    if key in OWN:
        return "the lab says this itself, by what the guest has"
    return wrong_together({key: value})


def wrong_together(given: Mapping[str, str]) -> str | None:
    """Return why no guest can have all of these properties, or None."""
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
