"""Which variables of its owner's environment a lab's guests are given. Pure."""

from collections.abc import Mapping
from typing import Final

_NAMES: Final = ("PATH", "PYTHONPATH", "HOME", "USER", "SHELL", "TERM", "TZ", "LANG")


def of(environment: Mapping[str, str]) -> dict[str, str]:
    """What programs need, and nothing private.

    The rest may hold secrets, and a guest's root can read the environment of every process there.
    """
    return {
        name: value
        for name, value in environment.items()
        if name in _NAMES or name.startswith("LC_")
    }
