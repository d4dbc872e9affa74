"""The way to a terminal: everything that a command prints passes here.

Text that comes from a lab, a user or a guest is data. It is never read as markup, and characters
that a terminal would obey (escapes, controls, changes of direction) are shown, not sent.
"""

import json
import os
import re
import sys
from typing import Any, Final, NamedTuple

import click

# C0 and C1 controls, what is invisible, what changes the direction, and halves of characters, by
# which Python stands for bytes that are not UTF-8.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_NAMED: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


class OutputFailed(Exception):
    """Standard output cannot be written: a full disk, for one. Says why."""


class NobodyReads(Exception):
    """Standard output is a pipe whose reader has gone, as with `head`."""


class Styled(NamedTuple):
    """Text with a look: a colour's name, `bold`, `dim`, or two of them. Plain where none is."""

    text: str
    style: str


Part = str | Styled


def visible(text: str, *, lines: bool = False) -> str:
    r"""Return `text` with controls spelt out, as in \x1b; with `lines`, \n and \t stay."""
    return _UNSAFE.sub(lambda found: _spelt(found[0], lines), text)


def _spelt(letter: str, lines: bool) -> str:
    if letter in _NAMED:
        return letter if lines and letter != "\r" else _NAMED[letter]
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of an argument that is not UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def painted(*parts: Part, lines: bool = False) -> str:
    """Join parts into one text for a terminal: visible, each in its own style."""
    return "".join(
        visible(part, lines=lines)
        if isinstance(part, str)
        else _in_style(visible(part.text, lines=lines), part.style)
        for part in parts
    )


def _in_style(text: str, style: str) -> str:
    words = style.split()
    if not words:
        return text
    colour = next((word for word in words if word not in ("bold", "dim")), None)
    return click.style(text, fg=colour, bold="bold" in words or None, dim="dim" in words or None)


def say(*parts: Part, err: bool = False, lines: bool = False, nl: bool = True) -> None:
    """Print parts as one line, or with `lines` as the lines that they have. Raises OutputFailed."""
    _write(painted(*parts, lines=lines), err=err, nl=nl)


def say_painted(text: str) -> None:
    """Print what `painted` has made."""
    _write(text)


def say_json(value: Any) -> None:
    """Print a value as one line of JSON, in ASCII."""
    _write(json.dumps(value).replace("\x7f", "\\u007f"))


def say_data(text: str | bytes) -> None:
    """Write a file's content on standard output: as it is, but on a terminal made visible."""
    if sys.stdout is not None and sys.stdout.isatty():
        text = text.decode(errors="surrogateescape") if isinstance(text, bytes) else text
        text = visible(text, lines=True)
    _write(text, nl=False)


def say_raw(data: bytes) -> None:
    """Write bytes on standard output as they are, also on a terminal."""
    _write(data, nl=False)


def _write(text: str | bytes, *, err: bool = False, nl: bool = True) -> None:
    try:
        click.echo(text, err=err, nl=nl, color=False if os.environ.get("NO_COLOR") else None)
    except BrokenPipeError:
        raise NobodyReads from None
    except OSError as error:
        if not err:  # what cannot be said on standard error cannot be said at all
            raise OutputFailed(f"the output cannot be written: {error.strerror}") from None
