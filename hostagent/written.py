"""What a guest has written for itself, which its agent keeps: GCE's guest attributes. Pure."""

from collections.abc import Mapping
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

MAX_BYTES: Final = 64 * 1024
MAX_WRITTEN: Final = 256
"""What one guest may keep: names and texts. A thousand guests then take 64 MB at worst."""

WrittenName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,128}(/[A-Za-z0-9_.:-]{1,128})?$")]
"""`NAMESPACE/KEY`, or a whole namespace to be deleted."""
WrittenText = Annotated[str, Meta(max_length=MAX_BYTES)]
Written: TypeAlias = Annotated[dict[WrittenName, WrittenText], Meta(max_length=MAX_WRITTEN)]


class TooMuch(Exception):
    """The guest has written more than it may keep."""

    def __init__(self) -> None:
        super().__init__(f"more than {MAX_WRITTEN} attributes or {MAX_BYTES} bytes")


def after(written: Mapping[str, str], name: str, text: str | None) -> dict[str, str]:
    """Return what is written after `name` is set to `text`; None deletes it, or a whole namespace.

    Raises TooMuch.
    """
    if text is None:
        return {
            one: told
            for one, told in written.items()
            if one != name and one.partition("/")[0] != name
        }
    made = {**written, name: text}
    size = sum(len(one) + len(told.encode()) for one, told in made.items())
    if size > MAX_BYTES or len(made) > MAX_WRITTEN:
        raise TooMuch
    return made
