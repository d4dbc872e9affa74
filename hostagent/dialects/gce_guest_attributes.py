"""GCE's guest attributes: what a guest writes for itself, and its agent keeps. Pure."""

import re
from typing import Final

from hostagent.model import Guest, View
from hostagent.properties import under
from hostagent.written import TooMuch, after

ENABLE: Final = "enable-guest-attributes"
"""The metadata attribute, of the instance or else of its project, that switches them on."""

_TRUE: Final = frozenset({"true", "y", "yes", "1"})
_name = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


class NotWritten(Exception):
    """The attribute is not possible, or too much; the message says why."""


def enabled(guest: Guest) -> bool:
    """Whether the guest has guest attributes."""
    own = under(guest, "attributes.").get(ENABLE)
    told = under(guest, "project_attributes.").get(ENABLE, "") if own is None else own
    return told.lower() in _TRUE


def by_namespace(view: View) -> dict[str, dict[str, str]]:
    """Return the guest's own, by namespace and key."""
    told: dict[str, dict[str, str]] = {}
    for name, text in sorted(view.written.items()):
        space, _, key = name.partition("/")
        told.setdefault(space, {})[key] = text
    return told


def put(view: View, names: list[str], body: bytes) -> tuple[str, str]:
    """Return the name and the text that are to be written; raises NotWritten."""
    if len(names) != 2 or not all(map(_name.fullmatch, names)):
        raise NotWritten("a guest attribute has a namespace and a key")
    name = "/".join(names)
    try:
        text = body.decode()
        after(view.written, name, text)
    except UnicodeDecodeError as error:
        raise NotWritten("the value must be UTF-8") from error
    except TooMuch as error:
        raise NotWritten(str(error)) from error
    return name, text


def deleted(view: View, names: list[str]) -> str | None:
    """Return the name of what is to be deleted, one attribute or a namespace; None: it is not
    there.
    """
    name = "/".join(names)
    return None if after(view.written, name, None) == view.written else name
