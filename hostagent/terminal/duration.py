"""A DURATION on a command line: one type, one explanation, for both commands."""

from typing import TYPE_CHECKING, Any, Final

import click

from hostagent.times import seconds

# Said once, in the help of each command.
EXPLAINED: Final = "A DURATION is a number of seconds, or numbers with units: 90, 500ms, 5m, 1h30m."
if TYPE_CHECKING:
    _Seconds = click.ParamType[float]
else:
    _Seconds = click.ParamType  # generic since click 8.4 only


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
