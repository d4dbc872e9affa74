"""Options that several verbs share."""

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hostagent.terminal.number import Number
from netemu.cli import completing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from netemu.client.maintenance import Maintenance

    _PathType = click.ParamType[Path]
else:
    _PathType = click.ParamType  # generic since click 8.4 only

Command = TypeVar("Command", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def lab_name(command: Command) -> Command:
    """The option `--name` of a lab that need not run."""
    return click.option("--name", metavar="NAME", help="The lab's name.")(command)


def of_lab(command: Command) -> Command:
    """The option `--name` of a running lab; it may be left out if only one runs."""
    text = "The lab; may be left out if only one runs."
    return click.option("--name", metavar="NAME", help=text, shell_complete=completing.labs)(
        command
    )


def plan_of(name: str | None) -> "Maintenance":
    """Return the events, faults and clock of the running lab NAME, or of the only one."""
    from netemu.client import labs
    from netemu.client.maintenance import Maintenance

    return Maintenance(labs.the_one(name))


def named(lab: str | None, name: str | None) -> str | None:
    """Return the lab that a verb's argument LAB or its --name says. Raises UsageError if both are
    given.
    """
    if lab is not None and name is not None and lab != name:
        raise click.UsageError(f"two labs are named: {lab} and {name}")
    return lab if lab is not None else name


# Multiplies RFC 3927's durations.
TIME_SCALE = Number(0, 100, above=True)


class _OutputFile(_PathType):
    """An output file, whose ending gives the format. Whether it can be written is tried before the
    work.
    """

    name = "file"

    def __init__(self, *endings: str) -> None:
        self._endings = endings

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Refuse a file that cannot be written; leave nothing behind."""
        path = Path(value)
        if path.suffix.lower() not in self._endings:
            known = ", ".join(self._endings)
            self.fail(f"{value}: its ending says what is written: {known}", param, ctx)
        try:
            new = not path.exists()
            path.open("ab").close()
            if new:
                path.unlink()
        except (OSError, ValueError) as error:
            self.fail(f"{value}: cannot be written: {_reason(error)}", param, ctx)
        return path

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[Any]":
        """Have the shell complete file names."""
        return click.Path().shell_complete(ctx, param, incomplete)


def output(*endings: str, what: str, multiple: bool = True) -> Callable[[Command], Command]:
    """The option `-o FILE`, repeatable; FILE's ending gives the format."""
    return click.option(
        "-o", "--output", "files" if multiple else "file",
        type=_OutputFile(*endings), multiple=multiple, metavar="FILE",
        help=f"Write {what}, by FILE's ending{'; repeatable' if multiple else ''}.",
    )  # fmt: skip


def pictures(files: "tuple[Path, ...]") -> list[Path]:
    """Return the files that are plots. Raises MachineCannot if plots cannot be drawn."""
    found = [file for file in files if file.suffix.lower() == ".svg"]
    if found:
        from netemu.plotting import pyplot

        pyplot()
    return found


@contextmanager
def writing(path: Path) -> "Iterator[None]":
    """Raise NotSo for any error of writing a file."""
    from netemu.errors import NotSo

    try:
        yield
    except OSError as error:
        raise NotSo(f"{path}: cannot be written: {_reason(error)}") from None


def write(path: Path, text: str) -> None:
    """Write a text into a file. Raises NotSo."""
    with writing(path):
        path.write_text(text, encoding="utf-8")


def _reason(error: OSError | ValueError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
