"""Options that several verbs share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def lab_name(command: Command) -> Command:
    """`--name` of a lab that need not run."""
    return click.option("--name", metavar="NAME", help="The lab's name.")(command)


def of_lab(command: Command) -> Command:
    """`--name` of a running lab, which may be left out if there is only one."""
    text = "The lab; may be left out if only one runs."
    return click.option("--name", metavar="NAME", help=text)(command)
