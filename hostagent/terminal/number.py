"""A number on a command line, with bounds."""

import math
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    _Float = click.ParamType[float]
else:
    _Float = click.ParamType  # generic since click 8.4 only


class Number(_Float):
    """A number within bounds; infinities and "nan" are refused."""

    name = "number"

    def __init__(self, least: float, most: float, *, above: bool = False) -> None:
        """With `above`, `least` itself is too little."""
        self._least, self._most, self._above = least, most, above

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read what was typed."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if self._least <= number <= self._most and not (self._above and number == self._least):
            return number
        bounds = "above" if self._above else "at least"
        return self.fail(
            f"{value!r}: a number is expected, {bounds} {self._least:g} and at most {self._most:g}",
            param,
            ctx,
        )
