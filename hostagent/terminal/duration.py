"""A DURATION on a command line: one parser, one explanation, for both commands."""

import re
from typing import TYPE_CHECKING, Any, Final

import click

# Said once, in the help of each command.
EXPLAINED: Final = "A DURATION is a number of seconds, or numbers with units: 90, 500ms, 5m, 1h30m."
# Beyond ten years it is a slip of the pen, and clocks soon have no name for the date.
LONGEST_DAYS: Final = 3653
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER: Final = r"[0-9]+(?:\.[0-9]+)?"
_PIECE: Final = re.compile(rf"({_NUMBER})(ms|[smhd])")

if TYPE_CHECKING:
    _Seconds = click.ParamType[float]
else:
    _Seconds = click.ParamType  # generic since click 8.4 only


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


class Duration(_Seconds):
    """The type of an option or argument that is a length of time; its value is in seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read what was typed; a default may be a number."""
        if isinstance(value, int | float):
            return float(value)
        try:
            return seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
