"""Times as text: moments in UTC, and lengths with units. Pure."""

import re
from datetime import UTC, datetime
from typing import Final

LAST: Final = 253402300799
"""The last second of the year 9999; no later one has a date."""

# Beyond ten years it is a slip of the pen, and clocks soon have no name for the date.
LONGEST_DAYS: Final = 3653
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER: Final = r"[0-9]+(?:\.[0-9]+)?"
_PIECE: Final = re.compile(rf"({_NUMBER})(ms|[smhd])")


def to_seconds(epoch: float) -> str:
    """Return `2019-01-21T09:00:43Z`."""
    return datetime.fromtimestamp(min(epoch, LAST), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def to_milliseconds(epoch: float | None) -> str | None:
    """Return `2019-01-21T09:00:43.000+00:00`; None of None."""
    if epoch is None:
        return None
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds")


def seconds(text: str) -> float:
    """Read a length of time in seconds. Raises ValueError with what would be right."""
    text = text.strip()
    if re.fullmatch(_NUMBER, text):
        length = float(text)
    elif re.fullmatch(f"({_PIECE.pattern})+", text):
        length = sum(float(number) * _UNITS[unit] for number, unit in _PIECE.findall(text))
    else:
        raise ValueError(f"{text!r} is not a duration: write 90, 500ms, 5m or 1h30m")
    if length > LONGEST_DAYS * 86400.0:
        raise ValueError(f"{text[:40]} is too long: a duration is {LONGEST_DAYS} d at most")
    return length
