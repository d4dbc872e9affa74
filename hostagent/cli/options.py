"""What several commands share: exit codes, and the errors that carry them."""

from typing import Final

import click

REFUSED: Final = 1
BAD_INPUT: Final = 2
UNABLE: Final = 3


class Refused(click.ClickException):
    """Ends the program: the agent has said no, and nothing has changed."""

    exit_code = REFUSED


class BadInput(click.ClickException):
    """Ends the program: what it was given cannot be used."""

    exit_code = BAD_INPUT


class Unable(click.ClickException):
    """Ends the program: the machine cannot do what is asked."""

    exit_code = UNABLE
