"""Moments, in epoch seconds, as text in UTC. Pure."""

from datetime import UTC, datetime
from typing import Final

LAST: Final = 253402300799
"""The last second of the year 9999; no later one has a date."""


def to_seconds(epoch: float) -> str:
    """Return `2019-01-21T09:00:43Z`."""
    return datetime.fromtimestamp(min(epoch, LAST), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def to_milliseconds(epoch: float | None) -> str | None:
    """Return `2019-01-21T09:00:43.000+00:00`; None of None."""
    if epoch is None:
        return None
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds")
