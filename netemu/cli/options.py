"""Options that several verbs share."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from netemu.cli.completing import labs

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

Command = TypeVar("Command", bound=Callable[..., Any])

if TYPE_CHECKING:
    _Seconds = click.ParamType[float]
else:
    _Seconds = click.ParamType  # generic since click 8.4 only


def lab_name(command: Command) -> Command:
    """`--name` of a lab that need not run."""
    return click.option("--name", metavar="NAME", help="The lab's name.")(command)


def of_lab(command: Command) -> Command:
    """`--name` of a running lab, which may be left out if there is only one."""
    text = "The lab; may be left out if only one runs."
    return click.option("--name", metavar="NAME", help=text, shell_complete=labs)(command)


class Duration(_Seconds):
    """A length of time: 90, 90s, 5m, 1h30m, 1d. Seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Give the seconds."""
        if isinstance(value, int | float):
            return float(value)
        if not re.fullmatch(r"\d+(\.\d+)?|(\d+(\.\d+)?[smhd])+", value):
            self.fail(f"{value!r} is no length of time: write 90s, 5m, 1h30m or 1d", param, ctx)
        return sum(
            float(number) * _UNITS[unit]
            for number, unit in re.findall(r"(\d+(?:\.\d+)?)([smhd]?)", value)
        )
