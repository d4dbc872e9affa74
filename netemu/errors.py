"""What can go wrong, by whose fault it is; each kind has its own exit code.

0 is "well"; 1 something that was checked is not so; 2 bad usage or input; 3 the machine cannot.
"""


class NetemuError(Exception):
    """Base of what a person may see: one line that says what, where and what would be right."""

    exit_code = 1


class NotSo(NetemuError):
    """Something that was checked, or asked of a running lab, is not so."""

    exit_code = 1


class BadInput(NetemuError):
    """A lab file, a name or an option is wrong; nothing was changed."""

    exit_code = 2


class MachineCannot(NetemuError):
    """The kernel, a limit or a missing program stands in the way; says what to do about it."""

    exit_code = 3


def of_exit_code(code: int, text: str) -> NetemuError:
    """The error that ended another process with `code`."""
    kinds = {kind.exit_code: kind for kind in (NotSo, BadInput, MachineCannot)}
    return kinds.get(code, NotSo)(text)
