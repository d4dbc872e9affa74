"""A manual page out of a command's own help, in roff's man macros.

Runs when the pages are built (netns-scripts/man-pages), and in no command. Pure.
"""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import click


def page(root: click.Command, name: str, version: str) -> str:
    """Write the manual page of a program: what it is for, and every command with its options."""
    lines = [
        f'.TH {name.upper()} 1 "" "{name} {version}" "User Commands"',
        ".SH NAME",
        f"{name} \\- {_roff(_paragraphs(root.help)[0])}",
        ".SH SYNOPSIS",
        f".B {name}",
        "COMMAND [OPTIONS] [ARGUMENTS]",
        ".SH DESCRIPTION",
        *_prose(root.help),
        *_prose(root.epilog),
        ".SH COMMANDS",
    ]
    for path, command in _commands(root, (name,)):
        lines += [f".SS {_quoted(' '.join((*path, *_usage(command))))}", *_prose(command.help)]
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                lines += [".TP", f".B {_quoted(_signature(option))}", _roff(_help(option))]
        lines += _prose(command.epilog)
    return "\n".join(lines) + "\n"


def _commands(
    command: click.Command, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below this one, each before those below it."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield (*path, name), inner
            yield from _commands(inner, (*path, name))


def _usage(command: click.Command) -> Iterator[str]:
    if any(isinstance(one, click.Option) for one in command.params):
        yield "[OPTIONS]"
    if isinstance(command, click.Group):
        yield "COMMAND"
    for one in command.params:
        if isinstance(one, click.Argument):
            word = one.metavar or _choices(one.type) or str(one.name).upper()
            many = "..." if one.nargs == -1 and not word.rstrip("]").endswith("...") else ""
            yield f"{word}{many}" if one.required or word.startswith("[") else f"[{word}{many}]"


def _signature(option: click.Option) -> str:
    words = ", ".join(option.opts)
    if option.is_flag:
        return words
    return f"{words} {option.metavar or _choices(option.type) or option.type.name.upper()}"


def _choices(kind: Any) -> str:
    return "|".join(map(str, kind.choices)) if isinstance(kind, click.Choice) else ""


def _help(option: click.Option) -> str:
    shown = option.show_default
    default = shown if isinstance(shown, str) else option.default if shown else None
    return (option.help or "") + (f"  [default: {default}]" if default is not None else "")


def _paragraphs(text: str | None) -> list[str]:
    return [one for one in re.split(r"\n\s*\n", inspect.cleandoc(text or "")) if one.strip("\b\n ")]


def _prose(text: str | None) -> Iterator[str]:
    """Paragraphs; those that click is told not to wrap keep their lines."""
    for paragraph in _paragraphs(text):
        yield ".PP"
        if paragraph.startswith("\b"):
            yield ".nf"
            yield from (_roff(line) for line in paragraph.splitlines()[1:])
            yield ".fi"
        else:
            yield _roff(" ".join(paragraph.split()))


def _quoted(text: str) -> str:
    return '"' + _roff(text).replace('"', "\\(dq") + '"'


def _roff(text: str) -> str:
    """Text that roff takes as it is: no escapes, no request at the beginning of a line."""
    plain = text.replace("\\", "\\(rs").replace("-", "\\-").replace("…", "...")
    return f"\\&{plain}" if plain[:1] in (".", "'") else plain
