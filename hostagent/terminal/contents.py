"""Properties that may be bytes or stand in a file: user data and Azure's custom data.

For command lines and lab files, which are read outside of all daemons.
"""

from pathlib import Path
from typing import Any, Final

from hostagent.properties import CLOUDS, data_url

MAX_CONTENTS: Final = 96 * 1024
"""Bytes of a file: as many as a property holds in base64. EC2 takes 16 KiB, Azure 64."""

_KEYS: Final = ("user_data", "custom_data")


class ContentsError(ValueError):
    """What a property's value should be read from cannot be read."""


def taken(key: str, value: Any, directory: Path) -> Any:
    """Return the value as it is kept: bytes, and what is in `@FILE`, as text or as a data URL.

    FILE is relative to the directory. Values of other properties stay what they are. Raises
    ContentsError.
    """
    cloud, _, plain = key.partition(".")
    if key not in _KEYS and (cloud not in CLOUDS or plain not in _KEYS):
        return value
    if isinstance(value, bytes):
        return data_url(value)
    if isinstance(value, str) and value.startswith("@"):
        return data_url(_read(directory / value[1:]))
    return value


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise ContentsError(f"{path}: there is no such file")
        with path.open("rb") as file:
            raw = file.read(MAX_CONTENTS + 1)
    except (OSError, ValueError) as error:  # a NUL in the path is a ValueError
        if isinstance(error, ContentsError):
            raise
        raise ContentsError(f"{path}: cannot be read: {error}") from None
    if len(raw) > MAX_CONTENTS:
        raise ContentsError(f"{path}: is longer than {MAX_CONTENTS // 1024} KiB")
    return raw
