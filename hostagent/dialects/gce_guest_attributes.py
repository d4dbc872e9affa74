"""GCE's guest attributes: what a guest writes for itself. Pure: kept in memory, by guest.

They live as long as the responder, and stay with it when the guest moves to another node.
"""

import re
from typing import Final

from hostagent.model import MAX_GUESTS, Guest
from hostagent.properties import under, value

MAX_BYTES: Final = 64 * 1024
MAX_ATTRIBUTES: Final = 256
"""What one guest may keep: keys and values. A thousand guests then take 64 MB at worst."""

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


class GuestAttributes:
    """The guest attributes of a node's guests, and how often each guest has written."""

    def __init__(self) -> None:
        """There are none."""
        self._kept: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
        self._writes: dict[tuple[str, str], int] = {}

    def of(self, guest: Guest) -> dict[str, dict[str, str]]:
        """Return the guest's own, by namespace and key."""
        told: dict[str, dict[str, str]] = {}
        for (space, key), text in sorted(self._kept.get(_whose(guest), {}).items()):
            told.setdefault(space, {})[key] = text
        return told

    def writes(self, guest: Guest) -> int:
        """Return how often the guest has changed any."""
        return self._writes.get(_whose(guest), 0)

    def put(self, guest: Guest, names: list[str], body: bytes) -> None:
        """Write one attribute; raises NotWritten."""
        if len(names) != 2 or not all(map(_name.fullmatch, names)):
            raise NotWritten("a guest attribute has a namespace and a key")
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            raise NotWritten("the value must be UTF-8") from error
        whose = _whose(guest)
        kept = self._kept.get(whose, {}) | {(names[0], names[1]): text}
        size = sum(len(space) + len(key) + len(one.encode()) for (space, key), one in kept.items())
        if size > MAX_BYTES or len(kept) > MAX_ATTRIBUTES:
            raise NotWritten(f"more than {MAX_ATTRIBUTES} attributes or {MAX_BYTES} bytes")
        if len(self._kept) >= MAX_GUESTS and whose not in self._kept:
            self._kept.clear()  # of guests that have come and gone
        self._kept[whose] = kept
        self._writes[whose] = self._writes.get(whose, 0) + 1

    def delete(self, guest: Guest, names: list[str]) -> bool:
        """Delete one attribute, or a namespace, and return whether there was one."""
        whose = _whose(guest)
        kept = self._kept.get(whose, {})
        left = {name: text for name, text in kept.items() if list(name[: len(names)]) != names}
        if not names or len(left) == len(kept):
            return False
        self._kept[whose] = left
        self._writes[whose] = self._writes.get(whose, 0) + 1
        return True


def _whose(guest: Guest) -> tuple[str, str]:
    return guest.name, value(guest, "numeric_id")
