"""What several commands share: exit codes, the errors that carry them, and lengths of time."""

import re
from typing import Final

import click

REFUSED: Final = 1
BAD_INPUT: Final = 2
UNABLE: Final = 3

LONGEST_DAYS: Final = 36500
LONGEST: Final = LONGEST_DAYS * 86400.0
"""Seconds. The system's own timers take no more than some centuries."""

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Refused(click.ClickException):
    """Ends the program: the agent has said no, and nothing has changed."""

    exit_code = REFUSED


class BadInput(click.ClickException):
    """Ends the program: what it was given cannot be used."""

    exit_code = BAD_INPUT


class Unable(click.ClickException):
    """Ends the program: the machine cannot do what is asked."""

    exit_code = UNABLE


def seconds(text: str) -> float:
    """Read a length of time: `90`, `90s`, `5m`, `1h30m`, `500ms`; an option's type."""
    text = text.strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        text += "s"
    pieces = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhd])", text)
    if not pieces or "".join(number + unit for number, unit in pieces) != text:
        raise click.BadParameter(f"{text!r} is no duration; it would look like 90s, 5m or 1h30m")
    length = sum(float(number) * _UNITS[unit] for number, unit in pieces)
    if length > LONGEST:
        raise click.BadParameter(f"{text[:40]} is too long: a duration is {LONGEST_DAYS} d at most")
    return length
